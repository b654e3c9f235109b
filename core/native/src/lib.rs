//! The optional accelerator of `postseal.core`: what `outgoing` and `learnt` do for each message, compiled.
//!
//! It moves bytes and nothing else. Encryption, authentication and random bytes come from the same Python callables that the pure way
//! uses; which bytes an envelope has is fixed by core/SPEC.md, and the tests compare both ways byte for byte.
//! There is no `unsafe` here, and no input makes it panic: what does not fit goes the whole way, in Python.

use pyo3::prelude::*;

mod bytes;
mod hand;
mod md5;
mod open;
mod seal;
mod text;

/// `postseal.core._native`.
#[pymodule(gil_used = true)]
mod _native {
    #[pymodule_export]
    use crate::hand::Hand;
    #[pymodule_export]
    use crate::md5::md5s;
    #[pymodule_export]
    use crate::open::Opener;
    #[pymodule_export]
    use crate::seal::Writer;
    #[pymodule_export]
    use crate::text::{decode, encode, in_order, open_texts, seal_texts};
}
