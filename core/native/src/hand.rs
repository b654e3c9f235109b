//! At hand: `Sealer.at_hand` and `Sealer.open_at_hand`, compiled. What is no common case is left to Python.

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PySlice};

use crate::open::{body_by, parts_by};
use crate::seal::Writer;

/// Seals for one destination, or opens what lay there.
#[pyclass(frozen, module = "postseal.core._native")]
pub struct Hand {
    /// By destination: `Outgoing` or `Incoming`. Looked up each time, as they may be dropped.
    ways: Py<PyDict>,
    at: Py<PyAny>,
    unbound: Py<PyBytes>,
    /// The least of the first bytes that an envelope can have.
    least: u8,
    /// What is raised where Python is to say what is wrong.
    refusals: Py<PyAny>,
}

#[pymethods]
impl Hand {
    #[new]
    #[pyo3(signature = (*, ways, at, unbound, least, refusals))]
    fn new(ways: Py<PyDict>, at: Py<PyAny>, unbound: Py<PyBytes>, least: u8, refusals: Py<PyAny>) -> Self {
        Self { ways, at, unbound, least, refusals }
    }

    /// Do what `Outgoing.quick` does.
    #[pyo3(signature = (body, content_type = None, /))]
    fn seal<'py>(
        &self,
        py: Python<'py>,
        body: &Bound<'py, PyAny>,
        content_type: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some(way) = self.ways.bind(py).get_item(&self.at)? else { return Ok(None) };
        let Ok(bytes) = body.cast_exact::<PyBytes>() else { return Ok(None) };
        let plain = way.getattr(intern!(py, "plain"))?;
        if plain.is_none() || bytes.as_bytes().first().is_some_and(|first| *first >= self.least) {
            return Ok(None);
        }
        let key = plain.getattr(intern!(py, "key"))?;
        if !key.is_none() {
            let writers = key.getattr(intern!(py, "writers"))?.cast_into::<PyDict>()?;
            if let Some(write) = writers.get_item(content_type)? {
                let sealed = self.write(&write, bytes)?;
                if sealed.is_truthy()? {
                    return Ok(Some(sealed));
                }
            }
        }
        let sealed = way.call_method1(intern!(py, "quick"), (bytes, content_type))?;
        Ok(Some(sealed).filter(|sealed| !sealed.is_none()))
    }

    /// Do what `Incoming.quick` does.
    #[pyo3(signature = (envelope, /))]
    fn open<'py>(
        &self,
        py: Python<'py>,
        envelope: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some((data, short)) = self.short(py, envelope)? else { return Ok(None) };
        self.unless_refused(py, short.call1((data, py.None())).map(Some))
    }

    /// Do what `Incoming.quick_body` does.
    #[pyo3(signature = (envelope, /))]
    fn body<'py>(
        &self,
        py: Python<'py>,
        envelope: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some((data, short)) = self.short(py, envelope)? else { return Ok(None) };
        self.unless_refused(py, body_by(&short, data))
    }

    /// Do what `Incoming.quick_parts` does.
    #[pyo3(signature = (envelope, /))]
    fn parts<'py>(
        &self,
        py: Python<'py>,
        envelope: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some((data, short)) = self.short(py, envelope)? else { return Ok(None) };
        self.unless_refused(py, parts_by(&short, data))
    }

    /// Tell the garbage collector what is held.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.ways)?;
        visit.call(&self.refusals)
    }
}

impl Hand {
    /// Seal `body` by `write`: `Writer.write` of one, called without going through Python, or a function in Python.
    fn write<'py>(
        &self,
        write: &Bound<'py, PyAny>,
        body: &Bound<'py, PyBytes>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = write.py();
        if let Some(writer) = write.getattr_opt(intern!(py, "__self__"))?
            && let Ok(writer) = writer.cast_exact::<Writer>()
        {
            return Ok(writer.get().write(py, body, self.unbound.bind(py), None, false)?.into_any());
        }
        write.call1((body, &self.unbound, py.None(), false))
    }

    /// Find what opens messages like `envelope`; none where there is nothing of that kind.
    fn short<'a, 'py>(
        &self,
        py: Python<'py>,
        envelope: &'a Bound<'py, PyAny>,
    ) -> PyResult<Option<(&'a Bound<'py, PyBytes>, Bound<'py, PyAny>)>> {
        let Some(way) = self.ways.bind(py).get_item(&self.at)? else { return Ok(None) };
        let Ok(data) = envelope.cast_exact::<PyBytes>() else { return Ok(None) };
        let hint = way.getattr(intern!(py, "hint"))?.cast_into::<PySlice>()?;
        let hint = hint.indices(isize::try_from(data.as_bytes().len())?)?;
        let (start, stop) = (usize::try_from(hint.start)?, usize::try_from(hint.stop)?);
        let hint = PyBytes::new(py, data.as_bytes().get(start..stop).unwrap_or_default());
        let learnt = way.getattr(intern!(py, "plain"))?.cast_into::<PyDict>()?;
        Ok(learnt.get_item(hint)?.map(|short| (data, short)))
    }

    /// Give nothing where Python is to say what is wrong.
    fn unless_refused<'py>(
        &self,
        py: Python<'py>,
        opened: PyResult<Option<Bound<'py, PyAny>>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        match opened {
            Err(error) if error.matches(py, self.refusals.bind(py))? => Ok(None),
            opened => Ok(opened?.filter(|opened| !opened.is_none())),
        }
    }
}
