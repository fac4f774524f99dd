//! Block formats: bytes <-> floats, byte for byte as ggml writes them.
//!
//! A format is one row of [`FORMATS`] and one file under `formats/`. Each has a plain `_ref` quantizer, which is the oracle,
//! and a lane-parallel one, which repeats the same operations in the same order with one block or sub-block per lane.

mod along;
mod convert;
mod error;
mod format;
mod formats;
mod lanes;
mod pack;
mod registry;
mod row_weights;
mod search;
mod tables;
mod threads;

/// What kernels that multiply packed blocks share with the decoders: grid blocks as integers.
pub mod decoding {
    pub use crate::formats::grid::Unpacked;
    pub use crate::formats::iq1_m::unpack as unpack_iq1_m;
    pub use crate::formats::iq1_s::unpack as unpack_iq1_s;
    pub use crate::formats::iq2_s::unpack as unpack_iq2_s;
    pub use crate::formats::iq2_xs::unpack as unpack_iq2_xs;
    pub use crate::formats::iq2_xxs::unpack as unpack_iq2_xxs;
    pub use crate::formats::iq3_s::unpack as unpack_iq3_s;
    pub use crate::formats::iq3_xxs::unpack as unpack_iq3_xxs;
}

pub use convert::{Chunk, Converter, RowErrors, Scratch};
pub use error::{BlockError, Place};
pub use format::{BlockFormat, Importance, Rows, Scales};
pub use registry::{FORMATS, by_id, by_name};
pub use threads::{default_threads, with_threads};
