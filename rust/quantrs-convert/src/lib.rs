//! Tensors from file to file, chunk by chunk on all threads: memory stays at a few buffers per thread, whatever the tensor.
//!
//! Each worker takes the next chunk of rows, reads it at its place, converts it and writes it at its place, so the source and
//! the result need no order and no queue. Chunks do not depend on the number of threads; nor does anything written.

mod bit_stream;
mod chunks;
mod contained;
mod packed;
mod progress;
mod reader;
mod row_order;
mod stored;
mod tensor;
mod writeback;

pub use bit_stream::{PackError, pack_row, pack_rows, unpack_row, unpack_rows, words_per_row};
pub use contained::containing_types;
pub use progress::Progress;
pub use reader::{ReadBuffers, TensorReader};
pub use tensor::{Written, check_tensor, write_tensor};
pub use writeback::Writeback;

use quantrs_blocks::BlockError;
use quantrs_formats::FormatError;

/// Why a tensor could not be written or checked.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// The values cannot be converted.
    #[error("{name}: {source}")]
    Values {
        /// The tensor.
        name: String,
        /// What is wrong, and in which row and column.
        source: BlockError,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FormatError),
    /// What lies beside the codes of a quantized linear makes no sense.
    #[error("{name}: {what}: found {found}, expected {expected}")]
    Packed {
        /// The tensor.
        name: String,
        /// Scales, zero points, groups.
        what: &'static str,
        /// What is there.
        found: String,
        /// What should be.
        expected: String,
    },
    /// [`Progress::cancel`] was called.
    #[error("cancelled")]
    Cancelled,
}
