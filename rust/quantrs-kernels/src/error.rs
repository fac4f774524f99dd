//! What can be wrong with the operands of a kernel.

/// Weights that no kernel can take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// The format has no decoder.
    #[error(
        "{format} weights cannot be multiplied: it is not a format of floating point values; convert the tensor first"
    )]
    Unsupported {
        /// Name of the format.
        format: &'static str,
    },
    /// A row is not a whole number of blocks.
    #[error(
        "a row of {n_cols} values is not a multiple of {block_len}, the block of {format}; pad the rows or use another format"
    )]
    RowLength {
        /// Values per row.
        n_cols: usize,
        /// Values per block.
        block_len: usize,
        /// Name of the format.
        format: &'static str,
    },
    /// The bytes are not those of that many rows.
    #[error(
        "found {found} bytes of {format}, expected {expected} for {n_rows} rows of {n_cols} values; check the shape"
    )]
    Size {
        /// Bytes handed in.
        found: usize,
        /// Bytes that the shape asks for; `usize::MAX` when it overflows.
        expected: usize,
        /// Rows asked for.
        n_rows: usize,
        /// Values per row.
        n_cols: usize,
        /// Name of the format.
        format: &'static str,
    },
}
