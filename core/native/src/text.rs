//! Envelopes as SQS carries them, in base64url without padding, strict in both directions. Source: RFC 4648 5 and 3.5.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString};

/// How the text of an envelope begins: bytes d8 60 84, d1 84, d2 84, da 70736c31. Source: SPEC.md 3.4.
const STARTS: [&str; 4] = ["2GCE", "0Y", "0o", "2nBzbDG"];

/// Write `data` as text.
#[pyfunction]
#[pyo3(signature = (data, /))]
pub fn encode<'py>(py: Python<'py>, data: &Bound<'py, PyBytes>) -> Bound<'py, PyString> {
    PyString::new(py, &URL_SAFE_NO_PAD.encode(data.as_bytes()))
}

/// Return the bytes that `text` is, exactly as `encode` writes them; none where it is anything else.
#[pyfunction]
#[pyo3(signature = (text, /))]
pub fn decode<'py>(py: Python<'py>, text: &Bound<'py, PyString>) -> PyResult<Option<Bound<'py, PyBytes>>> {
    let Ok(text) = text.to_str() else { return Ok(None) }; // a lone surrogate
    let Some(size) = text.len().checked_mul(3).map(|bits| bits / 4) else { return Ok(None) };
    // The engine refuses bits that are left over, any padding and any other letter.
    match URL_SAFE_NO_PAD.decode(text) {
        Ok(data) if data.len() == size => Ok(Some(PyBytes::new(py, &data))),
        Ok(_) => Err(PyValueError::new_err("a length that cannot be")),
        Err(_) => Ok(None),
    }
}

/// Seal `texts` with `seal` up to the first that it does not seal, or that may be an envelope already; return what was made as text.
#[pyfunction]
#[pyo3(signature = (seal, texts, /))]
pub fn seal_texts<'py>(
    py: Python<'py>,
    seal: &Bound<'py, PyAny>,
    texts: &Bound<'py, PyList>,
) -> PyResult<Bound<'py, PyList>> {
    let sealed = PyList::empty(py);
    for text in texts.iter() {
        let Ok(text) = text.cast_exact::<PyString>() else { break };
        let Ok(text) = text.to_str() else { break };
        if begins(text) {
            break;
        }
        let envelope = seal.call1((PyBytes::new(py, text.as_bytes()),))?;
        let Ok(envelope) = envelope.cast_into::<PyBytes>() else { break };
        sealed.append(encode(py, &envelope))?;
    }
    Ok(sealed)
}

/// Open `texts` with `open` up to the first that it does not open, or that holds no text; return what they hold.
#[pyfunction]
#[pyo3(signature = (open, texts, /))]
pub fn open_texts<'py>(
    py: Python<'py>,
    open: &Bound<'py, PyAny>,
    texts: &Bound<'py, PyList>,
) -> PyResult<Bound<'py, PyList>> {
    let done = PyList::empty(py);
    for text in texts.iter() {
        let Ok(text) = text.cast_exact::<PyString>() else { break };
        if !text.to_str().is_ok_and(begins) {
            break;
        }
        let Some(envelope) = decode(py, text)? else { break };
        let Ok(body) = open.call1((envelope,))?.cast_into::<PyBytes>() else { break };
        let Ok(clear) = str::from_utf8(body.as_bytes()) else { break };
        done.append(clear)?;
    }
    Ok(done)
}

/// Tell whether each `before` in `data` has one of `texts` behind it, in their order, and a quotation mark behind that.
#[pyfunction]
#[pyo3(signature = (before, texts, data, /))]
#[allow(clippy::needless_pass_by_value)] // as Python gives them
pub fn in_order(before: &[u8], texts: Vec<Bound<'_, PyString>>, data: &[u8]) -> bool {
    let mut rest = data;
    for text in texts {
        let Some(behind) = behind(rest, before) else { return false };
        let Some(end) = text.to_str().ok().and_then(|text| behind.strip_prefix(text.as_bytes())) else {
            return false;
        };
        if end.first() != Some(&b'"') {
            return false;
        }
        rest = end;
    }
    behind(rest, before).is_none()
}

/// Return what stands behind the first `part` of `data`.
fn behind<'a>(data: &'a [u8], part: &[u8]) -> Option<&'a [u8]> {
    let at = data.windows(part.len().max(1)).position(|here| here.first() == part.first() && here == part)?;
    data.get(at..)?.strip_prefix(part)
}

/// Tell whether `text` may be that of an envelope.
fn begins(text: &str) -> bool {
    STARTS.iter().any(|start| text.starts_with(start))
}
