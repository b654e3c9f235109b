//! Sealing: `Outgoing.writer`, compiled. Source: SPEC.md 3 and 4; core/postseal/core/outgoing.py, which says why.

use pyo3::exceptions::PyValueError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use crate::bytes::{Head, fill, join};

const NONCE_SIZE: usize = 12;
const NOISE: usize = 28;
const SECOND: i64 = 1_000_000_000;
const MILLISECOND: i64 = 1_000_000;
const TIME_MIN: i64 = 1 << 16;
const TIME_MAX: i64 = (1 << 32) - 1;
const ENCRYPT_HEAD: &[u8] = b"\xd8\x60\x84";
/// An envelope from this size on is put together by Python's own `join`, which does not clear its memory first.
const LONG: usize = 8192;

/// Seals messages of one content type with one data key.
#[pyclass(frozen, module = "postseal.core._native")]
pub struct Writer {
    key: Py<PyAny>,
    permits: Py<PyList>,
    small: usize,
    random: Py<PyAny>,
    clock: Py<PyAny>,
    monotonic: Py<PyAny>,
    encrypt: Py<PyAny>,
    count: Py<PyAny>,
    /// `Enc_structure` up to `external_aad`, with zeros in its holes.
    template: Box<[u8]>,
    /// Where in it the protected byte string begins, with its head.
    begin: usize,
    places: Places,
    unbound: Py<PyBytes>,
    tail: Box<[u8]>,
    before: Box<[u8]>,
    behind: Box<[u8]>,
    sign: Py<PyAny>,
    sign_unbound: Py<PyAny>,
    begin_mac: Option<Py<PyAny>>,
    /// Returns the seconds of a time that a header can carry, or says that the clock is wrong.
    seconds: Py<PyAny>,
    join: Py<PyAny>,
}

/// Where the holes are.
pub struct Places {
    pub nonce: usize,
    pub expires: Option<usize>,
    pub seconds: usize,
    pub message_id: usize,
    pub millis: usize,
}

impl Places {
    /// Take them from a tuple of 4, or of 5 where there is an expiry.
    pub fn new(places: &[usize]) -> PyResult<Self> {
        match *places {
            [nonce, seconds, message_id, millis] => {
                Ok(Self { nonce, expires: None, seconds, message_id, millis })
            }
            [nonce, expires, seconds, message_id, millis] => {
                Ok(Self { nonce, expires: Some(expires), seconds, message_id, millis })
            }
            _ => Err(PyValueError::new_err("a header has 4 or 5 holes")),
        }
    }
}

#[pymethods]
impl Writer {
    #[new]
    #[pyo3(signature = (*, key, permits, small, random, clock, monotonic, encrypt, count, template, begin, places, unbound, tail, before, behind, sign, sign_unbound, begin_mac, seconds))]
    #[allow(clippy::too_many_arguments, clippy::needless_pass_by_value)] // what the closure in Python has from around it
    fn new(
        py: Python<'_>,
        key: Py<PyAny>,
        permits: Py<PyList>,
        small: usize,
        random: Py<PyAny>,
        clock: Py<PyAny>,
        monotonic: Py<PyAny>,
        encrypt: Py<PyAny>,
        count: Py<PyAny>,
        template: &[u8],
        begin: usize,
        places: Vec<usize>,
        unbound: Py<PyBytes>,
        tail: &[u8],
        before: &[u8],
        behind: &[u8],
        sign: Py<PyAny>,
        sign_unbound: Py<PyAny>,
        begin_mac: Option<Py<PyAny>>,
        seconds: Py<PyAny>,
    ) -> PyResult<Self> {
        Ok(Self {
            key,
            permits,
            small,
            random,
            clock,
            monotonic,
            encrypt,
            count,
            template: template.into(),
            begin,
            places: Places::new(&places)?,
            unbound,
            tail: tail.into(),
            before: before.into(),
            behind: behind.into(),
            sign,
            sign_unbound,
            begin_mac,
            seconds,
            join: PyBytes::new(py, b"").getattr("join")?.unbind(),
        })
    }

    /// Seal `body`, or return no bytes where it was not counted and there is no permit for it.
    #[pyo3(signature = (body, external, expires, counted, /))]
    pub fn write<'py>(
        &self,
        py: Python<'py>,
        body: &Bound<'py, PyBytes>,
        external: &Bound<'py, PyBytes>,
        expires: Option<u32>,
        counted: bool,
    ) -> PyResult<Bound<'py, PyBytes>> {
        if !counted && !self.may(py, body.as_bytes().len())? {
            return Ok(PyBytes::new(py, b""));
        }
        let noise = self.random.bind(py).call1((NOISE,))?.cast_into::<PyBytes>()?;
        let Some((nonce, message_id)) = noise.as_bytes().split_at_checked(NONCE_SIZE) else {
            return Err(PyValueError::new_err("too few random bytes"));
        };
        if noise.as_bytes().len() != NOISE || self.places.expires.is_some() != expires.is_some() {
            return Err(PyValueError::new_err("random bytes or an expiry are not as they should be"));
        }
        let (seconds, millis) = self.now(py)?;
        let is_unbound = external.is(self.unbound.bind(py));
        let size = self.template.len().saturating_add(external.as_bytes().len());
        let aad = PyBytes::new_with(py, size, |aad| {
            fill(aad, 0, &self.template);
            fill(aad, self.places.nonce, nonce);
            if let (Some(at), Some(expires)) = (self.places.expires, expires) {
                fill(aad, at, &expires.to_be_bytes());
            }
            fill(aad, self.places.seconds, &seconds.to_be_bytes());
            fill(aad, self.places.message_id, message_id);
            fill(aad, self.places.millis, &millis.to_be_bytes());
            fill(aad, self.template.len(), external.as_bytes());
            Ok(())
        })?;
        let sealed =
            self.encrypt.bind(py).call1((PyBytes::new(py, nonce), body, &aad))?.cast_into::<PyBytes>()?;
        self.count.bind(py).call0()?;
        let head = Head::of(sealed.as_bytes().len())
            .ok_or_else(|| PyValueError::new_err("the body is too large"))?;
        let protected = aad.as_bytes().get(self.begin..self.template.len()).unwrap_or_default();
        if self.before.is_empty() {
            return self.put_together(py, [ENCRYPT_HEAD, protected, b"\xa0", head.as_bytes()], &sealed);
        }
        let inner = [
            ENCRYPT_HEAD.len(),
            protected.len(),
            1,
            head.as_bytes().len(),
            sealed.as_bytes().len(),
            self.tail.len(),
        ];
        let payload_head =
            Head::of(inner.iter().sum()).ok_or_else(|| PyValueError::new_err("the body is too large"))?;
        let payload = join(
            py,
            &[
                payload_head.as_bytes(),
                ENCRYPT_HEAD,
                protected,
                b"\xa0",
                head.as_bytes(),
                sealed.as_bytes(),
                &self.tail,
            ],
        )?;
        let signature = self.signature(py, &payload, external, is_unbound)?;
        join(py, &[&self.before, payload.as_bytes(), &self.behind, signature.as_bytes()])
    }

    /// Tell the garbage collector what is held.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        for held in [
            &self.key,
            &self.random,
            &self.clock,
            &self.monotonic,
            &self.encrypt,
            &self.count,
            &self.sign,
            &self.sign_unbound,
            &self.seconds,
        ] {
            visit.call(held)?;
        }
        visit.call(&self.begin_mac)?;
        visit.call(&self.permits)
    }
}

impl Writer {
    /// Take a permit, as `SealingKeys.cached` does it.
    fn may(&self, py: Python<'_>, size: usize) -> PyResult<bool> {
        if size > self.small {
            return Ok(false);
        }
        let permits = self.permits.bind(py);
        let Some(last) = permits.len().checked_sub(1) else {
            return Ok(false);
        };
        permits.del_item(last)?; // nothing else runs between the two: we hold the interpreter's lock
        let now: f64 = self.monotonic.bind(py).call0()?.extract()?;
        let ends: f64 = self.key.bind(py).getattr(intern!(py, "expires"))?.extract()?;
        if now >= ends {
            permits.append(py.None())?; // nothing was sealed; and the key may yet go on, stale
            return Ok(false);
        }
        Ok(true)
    }

    /// Return the seconds since the epoch, and the milliseconds of the second.
    fn now(&self, py: Python<'_>) -> PyResult<(u32, u16)> {
        let clock = self.clock.bind(py).call0()?;
        if let Ok(now) = clock.extract::<i64>() {
            let (seconds, millis) = (now.div_euclid(SECOND), now.rem_euclid(SECOND).div_euclid(MILLISECOND));
            if (TIME_MIN..=TIME_MAX).contains(&seconds)
                && let (Ok(seconds), Ok(millis)) = (u32::try_from(seconds), u16::try_from(millis))
            {
                return Ok((seconds, millis));
            }
        }
        self.seconds.bind(py).call1((clock,))?;
        Err(PyValueError::new_err("the clock gives no whole nanoseconds"))
    }

    fn put_together<'py>(
        &self,
        py: Python<'py>,
        start: [&[u8]; 4],
        sealed: &Bound<'py, PyBytes>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let [a, b, c, d] = start;
        if sealed.as_bytes().len() < LONG {
            return join(py, &[a, b, c, d, sealed.as_bytes(), &self.tail]);
        }
        let parts = (join(py, &start)?, sealed, PyBytes::new(py, &self.tail));
        Ok(self.join.bind(py).call1((parts,))?.cast_into()?)
    }

    fn signature<'py>(
        &self,
        py: Python<'py>,
        payload: &Bound<'py, PyBytes>,
        external: &Bound<'py, PyBytes>,
        is_unbound: bool,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let made = if !is_unbound {
            let message = join(py, &[external.as_bytes(), payload.as_bytes()])?;
            self.sign.bind(py).call1((message,))?
        } else if let Some(begin_mac) = &self.begin_mac {
            let mac = begin_mac.bind(py).call0()?;
            mac.call_method1(intern!(py, "update"), (payload,))?;
            mac.call_method0(intern!(py, "finalize"))?
        } else {
            self.sign_unbound.bind(py).call1((payload,))?
        };
        Ok(made.cast_into()?)
    }
}
