//! Opening: `learnt.short_way`, compiled. Source: SPEC.md 8; core/postseal/core/learnt.py, which says why.

use std::ops::Range;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use pyo3::exceptions::PyValueError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyMemoryView, PySlice, PyTuple};

use crate::bytes::{Head, join, read};
use crate::seal::Places;

const TIME_MIN: u32 = 1 << 16;
const TAG_SIZE: usize = 16;
const MAX_CIPHERTEXT: usize = (1 << 31) - 17 + TAG_SIZE;
const ENC_STRUCTURE: &[u8] = b"\x83\x67Encrypt";
const ENCRYPT_HEAD: &[u8] = b"\xd8\x60\x84";
/// Bytes of a ciphertext from which a view is cheaper than a copy.
const LONG: usize = 8192;

/// Opens messages like one that was opened before.
#[pyclass(frozen, module = "postseal.core._native")]
pub struct Opener {
    key: Py<PyAny>,
    decrypt: Py<PyAny>,
    /// All that stands before the ciphertext's head in an encrypting envelope, with zeros in its holes.
    skeleton: Box<[u8]>,
    /// The parts of it that are the same for all messages.
    fixed: Box<[Range<usize>]>,
    places: Places,
    /// What stands before the encrypting envelope's head as a payload; empty where nothing is signed.
    before: Box<[u8]>,
    /// The recipients, and the head of the signature.
    tail: Box<[u8]>,
    recipients: usize,
    signature: usize,
    verify: Py<PyAny>,
    verify_unbound: Py<PyAny>,
    begin_mac: Option<Py<PyAny>>,
    ends: Py<PyAny>,
    has_end: bool,
    bound: Py<PyAny>,
    is_bound: bool,
    external: Py<PyAny>,
    unbound: Py<PyBytes>,
    check_time: Py<PyAny>,
    always_timed: bool,
    /// Seconds since the epoch: what was sent before is certainly not in the future.
    not_future: AtomicI64,
    /// When the key was last said to be used, in bits.
    used: AtomicU64,
    clock: Py<PyAny>,
    monotonic: Py<PyAny>,
    opened: Py<PyAny>,
    new: Py<PyAny>,
    facts: Py<PyAny>,
    content_type: Py<PyAny>,
    invalid_signature: Py<PyAny>,
    invalid_tag: Py<PyAny>,
    wrong_signature: Py<PyAny>,
    forged: Py<PyAny>,
    other: Option<Py<PyAny>>,
    /// Notes a message in the ledger; gives none where more is to be said of it.
    note: Option<Py<PyAny>>,
    count: Py<PyAny>,
    /// How long the chain of those that are tried in turn is.
    #[pyo3(get)]
    kinds: usize,
}

/// Where everything is in one envelope.
struct Found<'a> {
    /// The encrypting envelope, up to the ciphertext's head.
    start: &'a [u8],
    ciphertext: Range<usize>,
    /// What stands between ciphertext and signature.
    behind: &'a [u8],
    /// What the signature is over: the encrypting envelope, with its head as a byte string.
    payload: &'a [u8],
    signature: &'a [u8],
}

#[pymethods]
impl Opener {
    #[new]
    #[pyo3(signature = (*, key, decrypt, skeleton, places, before, recipients, behind, signature, verify, verify_unbound, begin_mac, ends, bound, external, unbound, check_time, timed, clock, monotonic, opened, new, facts, content_type, invalid_signature, invalid_tag, wrong_signature, forged, other, note, count, kinds))]
    #[allow(clippy::too_many_arguments, clippy::needless_pass_by_value)] // what the closure in Python has from around it
    fn new(
        py: Python<'_>,
        key: Py<PyAny>,
        decrypt: Py<PyAny>,
        skeleton: &[u8],
        places: Vec<usize>,
        before: &[u8],
        recipients: &[u8],
        behind: &[u8],
        signature: usize,
        verify: Py<PyAny>,
        verify_unbound: Py<PyAny>,
        begin_mac: Option<Py<PyAny>>,
        ends: Py<PyAny>,
        bound: Py<PyAny>,
        external: Py<PyAny>,
        unbound: Py<PyBytes>,
        check_time: Py<PyAny>,
        timed: bool,
        clock: Py<PyAny>,
        monotonic: Py<PyAny>,
        opened: Py<PyAny>,
        new: Py<PyAny>,
        facts: Py<PyAny>,
        content_type: Py<PyAny>,
        invalid_signature: Py<PyAny>,
        invalid_tag: Py<PyAny>,
        wrong_signature: Py<PyAny>,
        forged: Py<PyAny>,
        other: Option<Py<PyAny>>,
        note: Option<Py<PyAny>>,
        count: Py<PyAny>,
        kinds: usize,
    ) -> PyResult<Self> {
        let places = Places::new(&places)?;
        Ok(Self {
            key,
            decrypt,
            skeleton: skeleton.into(),
            fixed: fixed(&places, skeleton.len())?,
            places,
            before: before.into(),
            tail: [recipients, behind].concat().into(),
            recipients: recipients.len(),
            signature,
            verify,
            verify_unbound,
            begin_mac,
            has_end: ends.bind(py).is_truthy()?,
            ends,
            is_bound: bound.bind(py).is_truthy()?,
            bound,
            external,
            unbound,
            check_time,
            always_timed: timed,
            not_future: AtomicI64::new(0),
            used: AtomicU64::new(f64::NEG_INFINITY.to_bits()),
            clock,
            monotonic,
            opened,
            new,
            facts,
            content_type,
            invalid_signature,
            invalid_tag,
            wrong_signature,
            forged,
            other,
            note,
            count,
            kinds,
        })
    }

    /// Open `data` with what travelled beside it; none where it must go the whole way.
    #[pyo3(signature = (data, beside, /))]
    fn open<'py>(
        &self,
        py: Python<'py>,
        data: &Bound<'py, PyBytes>,
        beside: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some(found) = self.find(data.as_bytes()) else {
            let Some(other) = &self.other else { return Ok(None) };
            return Ok(Some(other.bind(py).call1((data, beside))?).filter(|opened| !opened.is_none()));
        };
        let Some((holes, body)) = self.unseal(py, data, &found, beside)? else { return Ok(None) };
        let message_id = PyBytes::new(py, &holes.message_id);
        let opened = self.new.bind(py).call1((&self.opened,))?;
        if let Some(note) = &self.note {
            let receipt = noted(note.bind(py), data, &found, &message_id)?;
            if receipt.is_none() {
                return Ok(None); // the whole way says what it is
            }
            opened.setattr(intern!(py, "_receipt"), receipt)?;
        }
        self.count.bind(py).call0()?;
        opened.setattr(intern!(py, "body"), body)?;
        opened.setattr(intern!(py, "_facts"), &self.facts)?;
        let varying = (holes.seconds, holes.millis, message_id, holes.expires);
        opened.setattr(intern!(py, "_varying"), varying)?;
        Ok(Some(opened))
    }

    /// Tell the garbage collector what is held.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        for held in [
            &self.key,
            &self.decrypt,
            &self.verify,
            &self.verify_unbound,
            &self.ends,
            &self.bound,
            &self.external,
            &self.check_time,
            &self.clock,
            &self.monotonic,
            &self.opened,
            &self.new,
            &self.facts,
            &self.content_type,
            &self.invalid_signature,
            &self.invalid_tag,
            &self.wrong_signature,
            &self.forged,
            &self.count,
        ] {
            visit.call(held)?;
        }
        visit.call(&self.begin_mac)?;
        visit.call(&self.note)?;
        visit.call(&self.other)
    }
}

/// What stands in the holes.
struct Holes {
    nonce: [u8; 12],
    seconds: u32,
    millis: u16,
    message_id: [u8; 16],
    expires: Option<u32>,
}

impl Opener {
    /// Open `data`, with nothing beside it, and give its body alone; none where it must go the whole way, or has to be noted.
    pub fn body<'py>(
        &self,
        py: Python<'py>,
        data: &Bound<'py, PyBytes>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        if self.note.is_some() {
            return Ok(None);
        }
        let Some(found) = self.find(data.as_bytes()) else {
            let Some(other) = &self.other else { return Ok(None) };
            return body_by(other.bind(py), data);
        };
        let Some((_, body)) = self.unseal(py, data, &found, py.None().bind(py))? else { return Ok(None) };
        self.count.bind(py).call0()?;
        Ok(Some(body))
    }

    /// Open `data`, with nothing beside it, and give its body, its content type and its receipt; none where it must go the whole way.
    pub fn parts<'py>(
        &self,
        py: Python<'py>,
        data: &Bound<'py, PyBytes>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some(found) = self.find(data.as_bytes()) else {
            let Some(other) = &self.other else { return Ok(None) };
            return parts_by(other.bind(py), data);
        };
        let none = py.None().into_bound(py);
        let Some((holes, body)) = self.unseal(py, data, &found, &none)? else { return Ok(None) };
        let mut receipt = none;
        if let Some(note) = &self.note {
            receipt = noted(note.bind(py), data, &found, &PyBytes::new(py, &holes.message_id))?;
            if receipt.is_none() {
                return Ok(None); // the whole way says what it is
            }
        }
        self.count.bind(py).call0()?;
        Ok(Some(PyTuple::new(py, [body, self.content_type.bind(py).clone(), receipt])?.into_any()))
    }

    /// Do steps 5 to 10 with what was `found`; none where it must go the whole way.
    fn unseal<'py>(
        &self,
        py: Python<'py>,
        data: &Bound<'py, PyBytes>,
        found: &Found<'_>,
        beside: &Bound<'py, PyAny>,
    ) -> PyResult<Option<(Holes, Bound<'py, PyAny>)>> {
        let Some(holes) = self.holes(found.start) else { return Ok(None) }; // malformed, whatever else is wrong
        let ticks = self.monotonic.bind(py).call0()?;
        let now = ticks.extract::<f64>()?;
        let key = self.key.bind(py);
        if now >= key.getattr(intern!(py, "expires"))?.extract::<f64>()?
            || found.behind != &*self.tail
        {
            return Ok(None);
        }
        let external = if self.is_bound || !beside.is_none() {
            self.external.bind(py).call1((beside, &self.bound))?.cast_into::<PyBytes>()?
        } else {
            self.unbound.bind(py).clone()
        };
        if !self.before.is_empty() {
            if self.has_end && self.clock.bind(py).call0()?.ge(&self.ends)? {
                return Ok(None);
            }
            self.verify(py, found, &external)?;
        }
        self.check_time(py, &holes)?;
        let body = self.decrypt(py, data, found, &holes, &external)?;
        // Which key goes first where there are too many is told to the second.
        let said = f64::from_bits(self.used.load(Ordering::Relaxed));
        if !(said..said + 1.0).contains(&now) {
            key.setattr(intern!(py, "used"), ticks)?;
            self.used.store(now.to_bits(), Ordering::Relaxed);
        }
        Ok(Some((holes, body)))
    }

    /// Find where everything is: that follows from the length alone. None where any byte outside the holes differs.
    fn find<'a>(&self, data: &'a [u8]) -> Option<Found<'a>> {
        let signature_at = data.len().checked_sub(self.signature)?;
        let stop = signature_at.checked_sub(self.tail.len().checked_sub(self.recipients)?)?;
        let mut begin = 0;
        if !self.before.is_empty() {
            let head = Head::within(stop.checked_sub(self.before.len())?)?;
            let rest = data.strip_prefix(&*self.before)?.strip_prefix(head.as_bytes())?;
            begin = data.len().checked_sub(rest.len())?;
        }
        let at = begin.checked_add(self.skeleton.len())?;
        let end = stop.checked_sub(self.recipients)?;
        let head = Head::within(end.checked_sub(at)?)?;
        let ciphertext = at.checked_add(head.as_bytes().len())?..end;
        if !(TAG_SIZE..=MAX_CIPHERTEXT).contains(&ciphertext.len()) {
            return None;
        }
        let start = data.get(begin..at)?;
        let alike = self.fixed.iter().all(|part| {
            matches!((start.get(part.clone()), self.skeleton.get(part.clone())), (Some(a), Some(b)) if a == b)
        });
        if !alike || data.get(at..ciphertext.start)? != head.as_bytes() {
            return None;
        }
        Some(Found {
            start,
            behind: data.get(end..signature_at)?,
            payload: data.get(self.before.len()..stop)?,
            signature: data.get(signature_at..)?,
            ciphertext,
        })
    }

    /// Read the holes. None where one has a value that no envelope may have. Source: SPEC.md 4.
    fn holes(&self, start: &[u8]) -> Option<Holes> {
        let places = &self.places;
        let expires = match places.expires {
            Some(at) => Some(u32::from_be_bytes(read(start, at)?)),
            None => None,
        };
        let holes = Holes {
            nonce: read(start, places.nonce)?,
            seconds: u32::from_be_bytes(read(start, places.seconds)?),
            millis: u16::from_be_bytes(read(start, places.millis)?),
            message_id: read(start, places.message_id)?,
            expires,
        };
        let right = holes.seconds >= TIME_MIN
            && holes.millis <= 999
            && expires.is_none_or(|expires| expires >= TIME_MIN);
        right.then_some(holes)
    }

    /// Do step 6: refuse where the signature is wrong.
    fn verify<'py>(
        &self,
        py: Python<'py>,
        found: &Found<'_>,
        external: &Bound<'py, PyBytes>,
    ) -> PyResult<()> {
        let signature = PyBytes::new(py, found.signature);
        let verified = if !external.is(self.unbound.bind(py)) {
            let message = join(py, &[external.as_bytes(), found.payload])?;
            self.verify.bind(py).call1((message, signature))
        } else if let Some(begin_mac) = &self.begin_mac {
            let mac = begin_mac.bind(py).call0()?;
            mac.call_method1(intern!(py, "update"), (PyBytes::new(py, found.payload),))?;
            mac.call_method1(intern!(py, "verify"), (signature,))
        } else {
            self.verify_unbound.bind(py).call1((PyBytes::new(py, found.payload), signature))
        };
        refuse(py, verified, &self.invalid_signature, &self.wrong_signature).map(drop)
    }

    /// Do step 7, reading the clock once in a while where the policy limits no age.
    fn check_time(&self, py: Python<'_>, holes: &Holes) -> PyResult<()> {
        let seconds = i64::from(holes.seconds);
        if self.always_timed || holes.expires.is_some() || seconds >= self.not_future.load(Ordering::Relaxed)
        {
            let sent = seconds.saturating_mul(1000).saturating_add(i64::from(holes.millis));
            let until: i64 = self.check_time.bind(py).call1((sent, holes.expires))?.extract()?;
            self.not_future.store(until, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Do step 10.
    fn decrypt<'py>(
        &self,
        py: Python<'py>,
        data: &Bound<'py, PyBytes>,
        found: &Found<'_>,
        holes: &Holes,
        external: &Bound<'py, PyBytes>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let protected =
            found.start.get(ENCRYPT_HEAD.len()..found.start.len().saturating_sub(1)).unwrap_or_default();
        let aad = join(py, &[ENC_STRUCTURE, protected, external.as_bytes()])?;
        let nonce = PyBytes::new(py, &holes.nonce);
        let Range { start, end } = found.ciphertext;
        let body = if found.ciphertext.len() < LONG {
            let ciphertext = PyBytes::new(py, data.as_bytes().get(start..end).unwrap_or_default());
            self.decrypt.bind(py).call1((nonce, ciphertext, aad))
        } else {
            let where_ = PySlice::new(py, isize::try_from(start)?, isize::try_from(end)?, 1);
            let ciphertext = PyMemoryView::from(data)?.get_item(where_)?;
            self.decrypt.bind(py).call1((nonce, ciphertext, aad))
        };
        refuse(py, body, &self.invalid_tag, &self.forged)
    }
}

/// Give the body alone of what `way` opens: `Opener.open` of one, or a function in Python.
pub fn body_by<'py>(
    way: &Bound<'py, PyAny>,
    data: &Bound<'py, PyBytes>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = way.py();
    if let Some(opener) = way.getattr_opt(intern!(py, "__self__"))?
        && let Ok(opener) = opener.cast_exact::<Opener>()
    {
        return opener.get().body(py, data);
    }
    let opened = way.call1((data, py.None()))?;
    if opened.is_none() { Ok(None) } else { opened.getattr(intern!(py, "body")).map(Some) }
}

/// Give body, content type and receipt of what `way` opens, likewise.
pub fn parts_by<'py>(
    way: &Bound<'py, PyAny>,
    data: &Bound<'py, PyBytes>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = way.py();
    if let Some(opener) = way.getattr_opt(intern!(py, "__self__"))?
        && let Ok(opener) = opener.cast_exact::<Opener>()
    {
        return opener.get().parts(py, data);
    }
    let opened = way.call1((data, py.None()))?;
    if opened.is_none() {
        return Ok(None);
    }
    let names = [intern!(py, "body"), intern!(py, "content_type"), intern!(py, "receipt")];
    let parts = names.map(|name| opened.getattr(name));
    Ok(Some(PyTuple::new(py, parts.into_iter().collect::<PyResult<Vec<_>>>()?)?.into_any()))
}

/// Have `note` note what was `found` in the ledger, and return the receipt; Python's None where more is to be said of it.
fn noted<'py>(
    note: &Bound<'py, PyAny>,
    data: &Bound<'py, PyBytes>,
    found: &Found<'_>,
    message_id: &Bound<'py, PyBytes>,
) -> PyResult<Bound<'py, PyAny>> {
    let tag = found.ciphertext.end.saturating_sub(TAG_SIZE)..found.ciphertext.end;
    let tag = PyBytes::new(note.py(), data.as_bytes().get(tag).unwrap_or_default());
    note.call1((message_id, tag))
}

/// Turn the error `wrong` of `result` into the one that leaves, which `how` raises.
fn refuse<'py>(
    py: Python<'py>,
    result: PyResult<Bound<'py, PyAny>>,
    wrong: &Py<PyAny>,
    how: &Py<PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    match result {
        Err(error) if error.is_instance(py, wrong.bind(py)) => {
            how.bind(py).call0()?;
            Err(error)
        }
        result => result,
    }
}

/// Return what lies between the holes of a skeleton of `size` bytes.
fn fixed(places: &Places, size: usize) -> PyResult<Box<[Range<usize>]>> {
    let mut holes = vec![(places.nonce, 12_usize)];
    holes.extend(places.expires.map(|at| (at, 4)));
    holes.extend([(places.seconds, 4), (places.message_id, 16), (places.millis, 2)]);
    let mut parts = Vec::with_capacity(6);
    let mut at = 0_usize;
    for (hole, width) in holes {
        if hole < at {
            return Err(PyValueError::new_err("holes out of their order"));
        }
        parts.push(at..hole);
        at = hole.saturating_add(width);
    }
    if at > size {
        return Err(PyValueError::new_err("a hole beyond the end"));
    }
    parts.push(at..size);
    Ok(parts.into())
}
