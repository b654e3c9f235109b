//! base64url without padding, as SQS carries envelopes: strict in both directions. Source: RFC 4648 5 and 3.5.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

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
