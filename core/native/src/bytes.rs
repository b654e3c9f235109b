//! Bytes: the heads of byte strings, and Python's `bytes` put together in one piece.

use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// The head of a byte string: at most 5 bytes, since nothing in an envelope has 2^32 or more.
#[derive(Clone, Copy)]
pub struct Head {
    bytes: [u8; 5],
    size: usize,
}

impl Head {
    /// Encode the head of a byte string of `size` bytes in its shortest form; none where that takes over 5 bytes. Source: RFC 8949 3.
    pub fn of(size: usize) -> Option<Self> {
        let size = u32::try_from(size).ok()?;
        let [a, b, c, d] = size.to_be_bytes();
        Some(match size {
            0..24 => Self { bytes: [0x40 | d, 0, 0, 0, 0], size: 1 },
            24..0x100 => Self { bytes: [0x58, d, 0, 0, 0], size: 2 },
            0x100..0x1_0000 => Self { bytes: [0x59, c, d, 0, 0], size: 3 },
            _ => Self { bytes: [0x5a, a, b, c, d], size: 5 },
        })
    }

    /// Find the head of the byte string that takes `room` bytes with its head; none where none does.
    pub fn within(room: usize) -> Option<Self> {
        [1, 2, 3, 5]
            .into_iter()
            .find_map(|size| Self::of(room.checked_sub(size)?).filter(|head| head.size == size))
    }

    /// The head itself.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.size).unwrap_or_default()
    }
}

/// Put `parts` together as one `bytes`.
pub fn join<'py>(py: Python<'py>, parts: &[&[u8]]) -> PyResult<Bound<'py, PyBytes>> {
    let size = parts.iter().map(|part| part.len()).sum();
    PyBytes::new_with(py, size, |mut rest| {
        for part in parts {
            rest = put(rest, part);
        }
        Ok(())
    })
}

/// Write `part` where `room` begins, as far as there is room; return what is left of it.
fn put<'a>(room: &'a mut [u8], part: &[u8]) -> &'a mut [u8] {
    let (here, rest) = room.split_at_mut(part.len().min(room.len()));
    here.copy_from_slice(part.get(..here.len()).unwrap_or_default());
    rest
}

/// Write `value` into `within` at `at`; nothing where it does not fit.
pub fn fill(within: &mut [u8], at: usize, value: &[u8]) {
    if let Some(hole) = within.get_mut(at..).and_then(|rest| rest.get_mut(..value.len())) {
        hole.copy_from_slice(value);
    }
}

/// Read the `N` bytes of `within` at `at`.
pub fn read<const N: usize>(within: &[u8], at: usize) -> Option<[u8; N]> {
    within.get(at..)?.first_chunk().copied()
}
