//! Packed weights, borrowed.

use crate::KernelError;
use quantrs_blocks::BlockFormat;
use std::ops::Range;

/// Weights as they lie in the file: `[n_rows, n_cols]`, row-major blocks, never copied or repacked.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    format: &'static BlockFormat,
    data: &'a [u8],
    n_rows: usize,
    n_cols: usize,
    row_bytes: usize,
}

impl<'a> Matrix<'a> {
    /// Check the shape against the bytes, once; kernels then trust it.
    pub fn new(
        format: &'static BlockFormat,
        data: &'a [u8],
        n_rows: usize,
        n_cols: usize,
    ) -> Result<Self, KernelError> {
        if format.dequantize.is_none() {
            return Err(KernelError::Unsupported { format: format.name });
        }
        let row_bytes = format.row_bytes(n_cols).ok_or(KernelError::RowLength {
            n_cols,
            block_len: format.block_len,
            format: format.name,
        })?;
        let expected = row_bytes.saturating_mul(n_rows);
        if data.len() != expected {
            return Err(KernelError::Size { found: data.len(), expected, n_rows, n_cols, format: format.name });
        }
        Ok(Matrix { format, data, n_rows, n_cols, row_bytes })
    }

    /// The block format.
    pub fn format(&self) -> &'static BlockFormat {
        self.format
    }

    /// The packed bytes.
    pub fn data(&self) -> &'a [u8] {
        self.data
    }

    /// Rows: outputs of the product.
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// Values per row: inputs of the product.
    pub fn n_cols(&self) -> usize {
        self.n_cols
    }

    /// Bytes per row.
    pub fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// Some of the rows. Panics when they are not all there.
    pub fn rows(&self, rows: Range<usize>) -> Matrix<'a> {
        assert!(rows.start <= rows.end && rows.end <= self.n_rows, "rows {rows:?} of {}", self.n_rows);
        let data = &self.data[rows.start * self.row_bytes..rows.end * self.row_bytes];
        Matrix { data, n_rows: rows.len(), ..*self }
    }

    /// The bytes of one row.
    pub(crate) fn row(&self, r: usize) -> &'a [u8] {
        &self.data[r * self.row_bytes..][..self.row_bytes]
    }
}
