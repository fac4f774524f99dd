//! Rows of bytes from one format to another, through float32.

use crate::error::{BlockError, Place};
use crate::format::{BlockFormat, Importance, Rows, Scales};
use quantrs_simd::Level;
use rayon::prelude::*;
use std::ops::Range;

/// Values that one task converts at a time: their f32 form, source and result stay in a core's L2 cache.
const CHUNK_VALUES: usize = 1 << 16;

/// Values whose squares overflow f32 begin here: 2^62 (256 of them still sum below the largest f32).
const SQUARE_LIMIT: f32 = 4_611_686_018_427_387_904.0;

/// 2^32: what no f16 scale reaches, with at most 128 scale steps and 128 levels. The searches of these formats sum products of
/// three values, which overflow f32 from about 2^39 on; the block would then be lost without an infinite scale to show for it.
const F16_SCALE_LIMIT: f32 = 4_294_967_296.0;

/// A conversion of a matrix `[n_rows, n_cols]` between two formats, checked and ready to run in chunks.
#[derive(Clone, Copy, Debug)]
pub struct Converter<'a> {
    level: Level,
    src: &'static BlockFormat,
    dst: &'static BlockFormat,
    n_rows: usize,
    n_cols: usize,
    /// `[n_slices, n_cols]`; the rows divide evenly over the slices.
    importance: Option<&'a [f32]>,
}

/// Part of a matrix: some whole rows, or a piece of one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// First row and column.
    pub start: Place,
    /// Number of values.
    pub n_values: usize,
    /// Its bytes in the source matrix.
    pub src: Range<usize>,
    /// Its bytes in the result matrix.
    pub dst: Range<usize>,
}

/// Buffers of one worker, reused from chunk to chunk.
#[derive(Debug, Default)]
pub struct Scratch {
    values: Vec<f32>,
    decoded: Vec<f32>,
}

/// Sums over the differences between a matrix and its quantized form, in f64.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RowErrors {
    /// Sum of (decoded - reference)^2.
    pub squared_error: f64,
    /// Sum of reference^2.
    pub squared: f64,
    /// Largest |decoded - reference|.
    pub max_error: f64,
}

impl RowErrors {
    /// The sums over both parts.
    pub fn merge(self, later: RowErrors) -> RowErrors {
        RowErrors {
            squared_error: self.squared_error + later.squared_error,
            squared: self.squared + later.squared,
            max_error: self.max_error.max(later.max_error),
        }
    }

    fn between(decoded: &[f32], reference: &[f32]) -> RowErrors {
        decoded.iter().zip(reference).fold(RowErrors::default(), |sums, (&a, &b)| {
            let (difference, b) = (f64::from(a) - f64::from(b), f64::from(b));
            let largest = sums.max_error.max(difference.abs());
            RowErrors {
                squared_error: sums.squared_error + difference * difference,
                squared: sums.squared + b * b,
                max_error: if difference.is_nan() { f64::NAN } else { largest },
            }
        })
    }
}

impl<'a> Converter<'a> {
    /// Check that the conversion exists and that the shapes fit.
    ///
    /// `importance` is `[n_slices, n_cols]` with `n_slices` a divisor of `n_rows` (one slice per expert). It is ignored where
    /// the target format ignores it.
    pub fn new(
        level: Level,
        src: &'static BlockFormat,
        dst: &'static BlockFormat,
        n_rows: usize,
        n_cols: usize,
        importance: Option<&'a [f32]>,
    ) -> Result<Converter<'a>, BlockError> {
        for format in [src, dst] {
            check_row_length(format, n_cols)?;
        }
        let importance = if src.id != dst.id {
            check_decoder(src)?;
            if dst.quantize.is_none() {
                return Err(BlockError::Unsupported { format: dst.name, verb: "written" });
            }
            if dst.importance == Importance::Required && importance.is_none() {
                return Err(BlockError::ImportanceRequired { format: dst.name });
            }
            importance.filter(|_| dst.importance != Importance::Ignored)
        } else {
            None
        };
        if let Some(w) = importance {
            let n_slices = w.len().checked_div(n_cols).unwrap_or(0);
            if n_slices * n_cols != w.len() || n_slices == 0 || !n_rows.is_multiple_of(n_slices) {
                let expected = n_cols * size_of::<f32>();
                return Err(BlockError::Size { what: "importance", found: size_of_val(w), expected });
            }
            if let Some(i) = w.iter().position(|v| !v.is_finite() || *v < 0.0) {
                return Err(BlockError::BadImportance { col: i % n_cols, value: w[i] });
            }
        }
        Ok(Converter { level, src, dst, n_rows, n_cols, importance })
    }

    /// For [`errors`](Self::errors) only: both formats need a decoder, neither a quantizer.
    pub fn comparing(
        level: Level,
        src: &'static BlockFormat,
        dst: &'static BlockFormat,
        n_rows: usize,
        n_cols: usize,
    ) -> Result<Converter<'static>, BlockError> {
        for format in [src, dst] {
            check_row_length(format, n_cols)?;
            check_decoder(format)?;
        }
        Ok(Converter { level, src, dst, n_rows, n_cols, importance: None })
    }

    /// Number of chunks; they cover the matrix in order.
    pub fn n_chunks(&self) -> usize {
        if self.n_cols == 0 {
            return 0;
        }
        match self.chunking() {
            Chunking::Pieces { per_row } => self.n_rows * per_row,
            Chunking::Rows { n_slices, per_slice, .. } => n_slices * per_slice,
        }
    }

    /// Chunk `i` of [`n_chunks`](Self::n_chunks).
    pub fn chunk(&self, i: usize) -> Chunk {
        let (start, n_values) = match self.chunking() {
            Chunking::Pieces { per_row } => {
                let col = i % per_row * CHUNK_VALUES;
                (Place { row: i / per_row, col }, CHUNK_VALUES.min(self.n_cols - col))
            }
            Chunking::Rows { n_slices, per_slice, rows } => {
                let slice_rows = self.n_rows / n_slices;
                let row = i % per_slice * rows;
                (Place { row: i / per_slice * slice_rows + row, col: 0 }, rows.min(slice_rows - row) * self.n_cols)
            }
        };
        let bytes = |format: &BlockFormat, n_values: usize| n_values / format.block_len * format.block_bytes;
        let first = start.row * self.n_cols + start.col;
        Chunk {
            start,
            n_values,
            src: bytes(self.src, first)..bytes(self.src, first + n_values),
            dst: bytes(self.dst, first)..bytes(self.dst, first + n_values),
        }
    }

    fn chunking(&self) -> Chunking {
        // With importance a row stays whole: four formats weight by the mean square of the whole row.
        if self.n_cols > CHUNK_VALUES && self.importance.is_none() {
            return Chunking::Pieces { per_row: self.n_cols.div_ceil(CHUNK_VALUES) };
        }
        let n_slices = self.importance.map_or(1, |w| w.len() / self.n_cols);
        let rows = (CHUNK_VALUES / self.n_cols).max(1);
        Chunking::Rows { n_slices, per_slice: (self.n_rows / n_slices).div_ceil(rows), rows }
    }

    /// Convert one chunk; returns the number of blocks whose values the target's scale range clips.
    pub fn convert_chunk(
        &self,
        chunk: &Chunk,
        src: &[u8],
        dst: &mut [u8],
        scratch: &mut Scratch,
    ) -> Result<usize, BlockError> {
        check_size("source rows", src.len(), chunk.src.len())?;
        check_size("result rows", dst.len(), chunk.dst.len())?;
        if self.src.id == self.dst.id {
            dst.copy_from_slice(src);
            return Ok(0);
        }
        if self.dst.id == F32_ID {
            let packed = decode_into(self.level, self.src, src);
            match as_f32_mut(dst) {
                Some(values) => packed(values),
                None => {
                    let values = resized(&mut scratch.values, chunk.n_values);
                    packed(values);
                    for (out, v) in dst.chunks_exact_mut(4).zip(values) {
                        out.copy_from_slice(&v.to_le_bytes());
                    }
                }
            }
            return Ok(0);
        }
        let x = self.decode(self.src, src, &mut scratch.values, chunk.n_values);
        self.check_values(x, chunk)?;
        let n_cols = self.n_cols.min(chunk.n_values);
        let importance = self.importance.map(|w| {
            let slice = chunk.start.row / (self.n_rows * self.n_cols / w.len());
            &w[slice * self.n_cols..][..self.n_cols]
        });
        let quantize = self.dst.quantize.expect("checked by Converter::new");
        quantize(self.level, Rows { x, n_cols, importance }, dst);
        if let Some(block) = self.dst.first_bad_scale(dst) {
            return Err(self.scale_overflow(chunk, block, x));
        }
        Ok(self.dst.clip_above.map_or(0, |limit| {
            x.chunks_exact(self.dst.block_len).filter(|block| block.iter().any(|v| v.abs() > limit)).count()
        }))
    }

    /// Compare one converted chunk with its source: both are decoded.
    pub fn chunk_errors(&self, chunk: &Chunk, src: &[u8], dst: &[u8], scratch: &mut Scratch) -> RowErrors {
        let Scratch { values, decoded } = scratch;
        let reference = self.decode(self.src, src, values, chunk.n_values);
        let decoded = self.decode(self.dst, dst, decoded, chunk.n_values);
        RowErrors::between(decoded, reference)
    }

    /// Convert a whole matrix that is in memory, in parallel over the threads of the current pool.
    ///
    /// Returns the number of clipped blocks. The error, if any, is that of the first bad place.
    pub fn convert(&self, src: &[u8], dst: &mut [u8]) -> Result<usize, BlockError> {
        let parts = split_mut(dst, (0..self.n_chunks()).map(|i| self.chunk(i).dst.len()));
        let results: Vec<_> = parts
            .into_par_iter()
            .enumerate()
            .map_init(Scratch::default, |scratch, (i, dst)| {
                let chunk = self.chunk(i);
                self.convert_chunk(&chunk, &src[chunk.src.clone()], dst, scratch)
            })
            .collect();
        results.into_iter().sum()
    }

    /// Compare a whole converted matrix with its source; sums run in chunk order, so they do not depend on the threads.
    pub fn errors(&self, src: &[u8], dst: &[u8]) -> RowErrors {
        let parts: Vec<_> = (0..self.n_chunks())
            .into_par_iter()
            .map_init(Scratch::default, |scratch, i| {
                let chunk = self.chunk(i);
                self.chunk_errors(&chunk, &src[chunk.src.clone()], &dst[chunk.dst.clone()], scratch)
            })
            .collect();
        parts.into_iter().fold(RowErrors::default(), RowErrors::merge)
    }

    fn place(&self, chunk: &Chunk, value: usize) -> Place {
        let at = chunk.start.col + value;
        Place { row: chunk.start.row + at / self.n_cols, col: at % self.n_cols }
    }

    /// The values of packed blocks: in place where they are f32 already.
    fn decode<'b>(
        &self,
        format: &BlockFormat,
        packed: &'b [u8],
        values: &'b mut Vec<f32>,
        n_values: usize,
    ) -> &'b [f32] {
        if format.id == F32_ID
            && let Some(x) = as_f32(packed)
        {
            return x;
        }
        let values = resized(values, n_values);
        decode_into(self.level, format, packed)(values);
        values
    }

    fn scale_overflow(&self, chunk: &Chunk, block: usize, x: &[f32]) -> BlockError {
        let first = block * self.dst.block_len;
        let largest = x[first..][..self.dst.block_len].iter().fold(0.0f32, |m, v| m.max(v.abs()));
        BlockError::ScaleOverflow { place: self.place(chunk, first), largest, format: self.dst.name }
    }

    /// Refuse what the target cannot hold before its quantizer sees it.
    fn check_values(&self, x: &[f32], chunk: &Chunk) -> Result<(), BlockError> {
        let format = self.dst;
        // f16 and bf16 hold the value itself: what would round to infinity.
        let limit = match (format.name, format.scales) {
            ("F16", _) => 65_520.0,
            ("BF16", _) => f32::from_bits(0x7f7f_8000),
            (_, Scales::F16(_) | Scales::Iq1M) => F16_SCALE_LIMIT,
            _ => SQUARE_LIMIT,
        };
        let bits = |v: f32| v.to_bits() & 0x7fff_ffff;
        let largest = self.level.run(
            #[inline(always)]
            || x.iter().fold(0, |largest: u32, &v| largest.max(bits(v))),
        );
        if largest < limit.to_bits() {
            return Ok(());
        }
        let i = x.iter().position(|&v| bits(v) >= limit.to_bits()).expect("the largest value is among them");
        let (place, value) = (self.place(chunk, i), x[i]);
        Err(if !value.is_finite() {
            BlockError::NotFinite { place, value }
        } else if format.block_len > 1 && value.abs() >= SQUARE_LIMIT {
            BlockError::TooLarge { place, value, format: format.name }
        } else {
            self.scale_overflow(chunk, i / format.block_len, x)
        })
    }
}

const F32_ID: u32 = 0;

enum Chunking {
    /// Pieces of `CHUNK_VALUES` of each row.
    Pieces { per_row: usize },
    /// `rows` whole rows, within each slice of rows that shares importance weights.
    Rows { n_slices: usize, per_slice: usize, rows: usize },
}

fn check_row_length(format: &BlockFormat, n_cols: usize) -> Result<(), BlockError> {
    match format.row_bytes(n_cols) {
        Some(_) => Ok(()),
        None => Err(BlockError::RowLength { n_cols, block_len: format.block_len, format: format.name }),
    }
}

fn check_decoder(format: &BlockFormat) -> Result<(), BlockError> {
    match format.dequantize {
        Some(_) => Ok(()),
        None => Err(BlockError::Unsupported { format: format.name, verb: "decoded" }),
    }
}

fn check_size(what: &'static str, found: usize, expected: usize) -> Result<(), BlockError> {
    if found == expected { Ok(()) } else { Err(BlockError::Size { what, found, expected }) }
}

fn decode_into<'b>(level: Level, format: &BlockFormat, packed: &'b [u8]) -> impl FnOnce(&mut [f32]) + 'b {
    let dequantize = format.dequantize.expect("checked by Converter::new");
    move |values| dequantize(level, packed, values)
}

fn resized(values: &mut Vec<f32>, n: usize) -> &mut [f32] {
    if values.len() < n {
        values.resize(n, 0.0);
    }
    &mut values[..n]
}

fn split_mut(mut rest: &mut [u8], lengths: impl Iterator<Item = usize>) -> Vec<&mut [u8]> {
    lengths
        .map(|n| {
            let (part, tail) = std::mem::take(&mut rest).split_at_mut(n);
            rest = tail;
            part
        })
        .collect()
}

fn as_f32(bytes: &[u8]) -> Option<&[f32]> {
    bytemuck::try_cast_slice(bytes).ok()
}

fn as_f32_mut(bytes: &mut [u8]) -> Option<&mut [f32]> {
    bytemuck::try_cast_slice_mut(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::by_name;

    fn converter<'a>(dst: &str, n_rows: usize, n_cols: usize, importance: Option<&'a [f32]>) -> Converter<'a> {
        Converter::new(Level::detect(), by_name("F32").unwrap(), by_name(dst).unwrap(), n_rows, n_cols, importance)
            .unwrap()
    }

    fn covered(c: &Converter<'_>) -> Vec<(usize, usize)> {
        (0..c.n_chunks()).map(|i| c.chunk(i)).map(|k| (k.src.start, k.src.end)).collect()
    }

    #[test]
    fn chunks_cover_the_matrix_in_order_without_gaps() {
        let weights = vec![1.0; 4 * 512];
        for c in [
            converter("Q4_K", 1000, 512, None),
            converter("Q4_K", 3, 200_192, None),
            converter("Q4_K", 1000, 512, Some(&weights)),
            converter("Q4_0", 1, 32, None),
        ] {
            let spans = covered(&c);
            assert_eq!(spans[0].0, 0);
            assert_eq!(spans.last().unwrap().1, c.n_rows * c.n_cols * 4);
            assert!(spans.windows(2).all(|w| w[0].1 == w[1].0 && w[0].0 < w[0].1), "{spans:?}");
        }
    }

    #[test]
    fn rows_of_two_importance_slices_are_never_in_one_chunk() {
        let weights = vec![1.0; 8 * 256];
        let c = converter("Q4_K", 8 * 3, 256, Some(&weights));
        assert_eq!(c.n_chunks(), 8);
        assert_eq!(c.chunk(1).start, Place { row: 3, col: 0 });
    }

    #[test]
    fn an_empty_matrix_has_no_chunks() {
        assert_eq!(converter("Q4_K", 0, 256, None).convert(&[], &mut []), Ok(0));
        assert_eq!(converter("Q4_K", 4, 0, None).convert(&[], &mut []), Ok(0));
    }

    #[test]
    fn the_first_bad_value_is_named_whatever_chunk_it_is_in() {
        let mut x = vec![1.0f32; 600 * 256];
        x[500 * 256 + 3] = f32::NAN;
        x[400 * 256 + 7] = f32::INFINITY;
        let mut out = vec![0; 600 * 144];
        let error = converter("Q4_K", 600, 256, None).convert(bytemuck::cast_slice(&x), &mut out).unwrap_err();
        assert_eq!(error, BlockError::NotFinite { place: Place { row: 400, col: 7 }, value: f32::INFINITY });
    }

    #[test]
    fn a_scale_that_f16_cannot_hold_is_refused_with_its_block() {
        let mut x = vec![1.0f32; 4 * 64];
        x[2 * 64 + 40] = 1e9;
        let mut out = vec![0; 4 * 36];
        let error = converter("Q4_0", 4, 64, None).convert(bytemuck::cast_slice(&x), &mut out).unwrap_err();
        let place = Place { row: 2, col: 32 };
        assert_eq!(error, BlockError::ScaleOverflow { place, largest: 1e9, format: "Q4_0" });
    }

    #[test]
    fn a_scale_beyond_f16_is_refused_by_every_format_at_every_magnitude_up_to_2_to_the_62() {
        for format in crate::FORMATS.iter().filter(|f| f.block_len > 1 && matches!(f.scales, Scales::F16(_))) {
            for exponent in (32..62).filter(|_| format.quantize.is_some()) {
                let x = vec![-(2f32.powi(exponent)); 256];
                let mut out = vec![0; format.row_bytes(256).unwrap()];
                let error =
                    converter(format.name, 1, 256, None).convert(bytemuck::cast_slice(&x), &mut out).unwrap_err();
                let (place, largest) = (Place { row: 0, col: 0 }, 2f32.powi(exponent));
                assert_eq!(error, BlockError::ScaleOverflow { place, largest, format: format.name });
            }
        }
    }

    #[test]
    fn values_whose_squares_overflow_are_refused() {
        let x = vec![5e18f32; 256];
        let mut out = vec![0; 144];
        let error = converter("Q4_K", 1, 256, None).convert(bytemuck::cast_slice(&x), &mut out).unwrap_err();
        assert!(matches!(error, BlockError::TooLarge { place: Place { row: 0, col: 0 }, .. }), "{error}");
    }

    #[test]
    fn importance_has_to_divide_the_rows() {
        let weights = vec![1.0; 3 * 256];
        let f32 = by_name("F32").unwrap();
        let q4_k = by_name("Q4_K").unwrap();
        assert!(Converter::new(Level::Scalar, f32, q4_k, 4, 256, Some(&weights)).is_err());
        let negative = vec![-1.0; 256];
        let error = Converter::new(Level::Scalar, f32, q4_k, 4, 256, Some(&negative)).unwrap_err();
        assert_eq!(error, BlockError::BadImportance { col: 0, value: -1.0 });
    }
}
