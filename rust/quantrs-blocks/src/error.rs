//! What can be wrong with the values or sizes handed in.

/// Where in a matrix of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Row, from 0.
    pub row: usize,
    /// Column of the value, or of the first value of the block.
    pub col: usize,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "row {}, column {}", self.row, self.col)
    }
}

/// Why values cannot be converted.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum BlockError {
    /// A NaN or an infinity in the input.
    #[error("{place}: the value is {value}; quantizing needs finite values, so repair the weights first")]
    NotFinite {
        /// Where.
        place: Place,
        /// NaN, inf or -inf.
        value: f32,
    },
    /// A value whose square overflows float32, which the scale search would lose silently.
    #[error(
        "{place}: {value:e} is too large for {format} (limit 2^62 = 4.6e18: its square overflows float32); use bf16 or f32 for this tensor"
    )]
    TooLarge {
        /// Where.
        place: Place,
        /// The value.
        value: f32,
        /// Name of the target format.
        format: &'static str,
    },
    /// The block's scale, or the value itself for f16 and bf16, becomes infinite in the stored width.
    #[error(
        "{place}: the block's values (largest magnitude {largest:e}) need a scale that {format} cannot hold; use bf16 or f32 for this tensor"
    )]
    ScaleOverflow {
        /// First column of the block.
        place: Place,
        /// Largest magnitude in the block.
        largest: f32,
        /// Name of the target format.
        format: &'static str,
    },
    /// An importance weight that is not finite and not negative.
    #[error("importance of column {col} is {value}; expected a finite value of at least 0")]
    BadImportance {
        /// Column.
        col: usize,
        /// The value.
        value: f32,
    },
    /// The format cannot be quantized without importance weights.
    #[error("{format} needs importance weights (an imatrix)")]
    ImportanceRequired {
        /// Name of the target format.
        format: &'static str,
    },
    /// Row length is not a multiple of the block length.
    #[error(
        "a row of {n_cols} values is not a multiple of {block_len} ({format} block); use a format with a smaller block, such as q8_0 (32) or f16 (1)"
    )]
    RowLength {
        /// Values per row.
        n_cols: usize,
        /// Values per block.
        block_len: usize,
        /// Name of the format.
        format: &'static str,
    },
    /// A buffer has another size than rows and format ask for.
    #[error("{what}: found {found} bytes, expected {expected}")]
    Size {
        /// Which buffer.
        what: &'static str,
        /// Its size.
        found: usize,
        /// The size it has to have.
        expected: usize,
    },
    /// Quantizing to, or decoding from, this format is not implemented.
    #[error("{format} cannot be {verb} here")]
    Unsupported {
        /// Name of the format.
        format: &'static str,
        /// `written` or `decoded`.
        verb: &'static str,
    },
    /// A bad value inside packed data.
    #[error("{place}: the stored scale of this {format} block is infinite or NaN")]
    StoredScale {
        /// First column of the block.
        place: Place,
        /// Name of the format.
        format: &'static str,
    },
}
