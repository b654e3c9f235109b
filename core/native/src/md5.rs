//! MD5 of several texts at once: SQS names bodies by it. A checksum, and no protection. Source: RFC 1321.
//!
//! In one MD5 each step waits for the one before, and most of the processor idles. So texts go side by side, each in a lane of its own: of
//! the loop over the lanes in `absorb` the compiler makes vector instructions.

use std::array::from_fn;
use std::iter::Chain;
use std::slice::{Iter, from_ref};

use pyo3::prelude::*;
use pyo3::types::PyString;

/// Texts that go side by side.
const LANES: usize = 4;
const BLOCK: usize = 64;
/// Bytes behind a text that say its size.
const SIZE: usize = 8;

/// What became of the blocks before.
type State = [u32; 4];

/// Source: RFC 1321 3.3.
const START: State = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];

/// Return the MD5 of each of `texts`, of their UTF-8, in hex.
#[pyfunction]
#[pyo3(signature = (texts, /))]
#[allow(clippy::needless_pass_by_value)] // as Python gives them
pub fn md5s(texts: Vec<Bound<'_, PyString>>) -> PyResult<Vec<String>> {
    let texts = texts.iter().map(|text| Ok(text.to_str()?.as_bytes())).collect::<PyResult<Vec<_>>>()?;
    Ok(digests(&texts).into_iter().map(hex).collect())
}

fn digests(texts: &[&[u8]]) -> Vec<[u8; 16]> {
    let ends: Vec<_> = texts.iter().map(|text| End::of(text)).collect();
    let mut digests = vec![[0; 16]; texts.len()];
    let mut waiting =
        texts.iter().zip(&ends).zip(&mut digests).map(|((text, end), digest)| Lane::of(text, end, digest));
    let mut lanes: [_; LANES] = from_fn(|_| waiting.next());
    let mut states = [START; LANES];
    let mut words = [[0; 16]; LANES];
    while lanes.iter().any(Option::is_some) {
        for (lane, words) in lanes.iter_mut().zip(&mut words) {
            if let Some(block) = lane.as_mut().and_then(|lane| lane.blocks.next()) {
                for (word, bytes) in words.iter_mut().zip(block.as_chunks().0) {
                    *word = u32::from_le_bytes(*bytes);
                }
            }
        }
        absorb(&mut states, &words);
        for (lane, state) in lanes.iter_mut().zip(&mut states) {
            if let Some(ended) = lane.as_mut().filter(|lane| lane.blocks.size_hint().0 == 0) {
                for (bytes, word) in ended.digest.as_chunks_mut().0.iter_mut().zip(*state) {
                    *bytes = word.to_le_bytes();
                }
                *lane = waiting.next();
                *state = START;
            }
        }
    }
    digests
}

/// A text on its way.
struct Lane<'a> {
    blocks: Chain<Iter<'a, [u8; BLOCK]>, Iter<'a, [u8; BLOCK]>>,
    digest: &'a mut [u8; 16],
}

impl<'a> Lane<'a> {
    fn of(text: &'a [u8], end: &'a End, digest: &'a mut [u8; 16]) -> Self {
        Self { blocks: text.as_chunks().0.iter().chain(end.blocks()), digest }
    }
}

/// What stands behind the whole blocks of a text: the rest of it, a one, zeros, and its size in bits. Source: RFC 1321 3.1 and 3.2.
struct End {
    bytes: [[u8; BLOCK]; 2],
    both: bool,
}

impl End {
    fn of(text: &[u8]) -> Self {
        let rest = text.as_chunks::<BLOCK>().1;
        let both = rest.len() >= BLOCK - SIZE;
        let mut bytes = [[0; BLOCK]; 2];
        let [first, second] = &mut bytes;
        for (byte, given) in first.iter_mut().zip(rest.iter().chain(&[0x80])) {
            *byte = *given;
        }
        let bits = u64::try_from(text.len()).unwrap_or_default().wrapping_mul(8);
        if let Some(size) = (if both { second } else { first }).last_chunk_mut() {
            *size = bits.to_le_bytes();
        }
        Self { bytes, both }
    }

    fn blocks(&self) -> Iter<'_, [u8; BLOCK]> {
        let [first, _] = &self.bytes;
        if self.both { self.bytes.iter() } else { from_ref(first).iter() }
    }
}

/// Take one block of each lane in.
#[inline(never)]
fn absorb(states: &mut [State; LANES], words: &[[u32; 16]; LANES]) {
    for (state, words) in states.iter_mut().zip(words) {
        *state = after(*state, words);
    }
}

/// Return what becomes of `start` with one block. Source: RFC 1321 3.4.
#[inline(always)]
#[allow(clippy::inline_always)] // else `absorb` is no loop that can be made vector instructions of
#[rustfmt::skip]
fn after(start: State, w: &[u32; 16]) -> State {
    let mut s = start;
    let mix = |b: u32, c: u32, d: u32| (b & c) | (!b & d);
    s = four::<7, 12, 17, 22>(s, [w[0], w[1], w[2], w[3]], [0xd76a_a478, 0xe8c7_b756, 0x2420_70db, 0xc1bd_ceee], mix);
    s = four::<7, 12, 17, 22>(s, [w[4], w[5], w[6], w[7]], [0xf57c_0faf, 0x4787_c62a, 0xa830_4613, 0xfd46_9501], mix);
    s = four::<7, 12, 17, 22>(s, [w[8], w[9], w[10], w[11]], [0x6980_98d8, 0x8b44_f7af, 0xffff_5bb1, 0x895c_d7be], mix);
    s = four::<7, 12, 17, 22>(s, [w[12], w[13], w[14], w[15]], [0x6b90_1122, 0xfd98_7193, 0xa679_438e, 0x49b4_0821], mix);
    let mix = |b: u32, c: u32, d: u32| (b & d) | (c & !d);
    s = four::<5, 9, 14, 20>(s, [w[1], w[6], w[11], w[0]], [0xf61e_2562, 0xc040_b340, 0x265e_5a51, 0xe9b6_c7aa], mix);
    s = four::<5, 9, 14, 20>(s, [w[5], w[10], w[15], w[4]], [0xd62f_105d, 0x0244_1453, 0xd8a1_e681, 0xe7d3_fbc8], mix);
    s = four::<5, 9, 14, 20>(s, [w[9], w[14], w[3], w[8]], [0x21e1_cde6, 0xc337_07d6, 0xf4d5_0d87, 0x455a_14ed], mix);
    s = four::<5, 9, 14, 20>(s, [w[13], w[2], w[7], w[12]], [0xa9e3_e905, 0xfcef_a3f8, 0x676f_02d9, 0x8d2a_4c8a], mix);
    let mix = |b: u32, c: u32, d: u32| b ^ c ^ d;
    s = four::<4, 11, 16, 23>(s, [w[5], w[8], w[11], w[14]], [0xfffa_3942, 0x8771_f681, 0x6d9d_6122, 0xfde5_380c], mix);
    s = four::<4, 11, 16, 23>(s, [w[1], w[4], w[7], w[10]], [0xa4be_ea44, 0x4bde_cfa9, 0xf6bb_4b60, 0xbebf_bc70], mix);
    s = four::<4, 11, 16, 23>(s, [w[13], w[0], w[3], w[6]], [0x289b_7ec6, 0xeaa1_27fa, 0xd4ef_3085, 0x0488_1d05], mix);
    s = four::<4, 11, 16, 23>(s, [w[9], w[12], w[15], w[2]], [0xd9d4_d039, 0xe6db_99e5, 0x1fa2_7cf8, 0xc4ac_5665], mix);
    let mix = |b: u32, c: u32, d: u32| c ^ (b | !d);
    s = four::<6, 10, 15, 21>(s, [w[0], w[7], w[14], w[5]], [0xf429_2244, 0x432a_ff97, 0xab94_23a7, 0xfc93_a039], mix);
    s = four::<6, 10, 15, 21>(s, [w[12], w[3], w[10], w[1]], [0x655b_59c3, 0x8f0c_cc92, 0xffef_f47d, 0x8584_5dd1], mix);
    s = four::<6, 10, 15, 21>(s, [w[8], w[15], w[6], w[13]], [0x6fa8_7e4f, 0xfe2c_e6e0, 0xa301_4314, 0x4e08_11a1], mix);
    s = four::<6, 10, 15, 21>(s, [w[4], w[11], w[2], w[9]], [0xf753_7e82, 0xbd3a_f235, 0x2ad7_d2bb, 0xeb86_d391], mix);
    [
        s[0].wrapping_add(start[0]),
        s[1].wrapping_add(start[1]),
        s[2].wrapping_add(start[2]),
        s[3].wrapping_add(start[3]),
    ]
}

/// Do four steps, with a word of the block and a sine for each.
#[inline(always)]
#[allow(clippy::inline_always, clippy::many_single_char_names)] // as `after`; as the RFC has them
fn four<const A: u32, const B: u32, const C: u32, const D: u32>(
    [mut a, mut b, mut c, mut d]: State,
    [w, x, y, z]: [u32; 4],
    sines: [u32; 4],
    mix: impl Fn(u32, u32, u32) -> u32,
) -> State {
    let sum =
        |a: u32, b, c, d, word, sine| a.wrapping_add(mix(b, c, d)).wrapping_add(word).wrapping_add(sine);
    a = sum(a, b, c, d, w, sines[0]).rotate_left(A).wrapping_add(b);
    d = sum(d, a, b, c, x, sines[1]).rotate_left(B).wrapping_add(a);
    c = sum(c, d, a, b, y, sines[2]).rotate_left(C).wrapping_add(d);
    b = sum(b, c, d, a, z, sines[3]).rotate_left(D).wrapping_add(c);
    [a, b, c, d]
}

fn hex(digest: [u8; 16]) -> String {
    digest
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}
