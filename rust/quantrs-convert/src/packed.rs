//! Values of quantized linears whose codes, scales and zero points lie apart.

use crate::ConvertError;
use crate::bit_stream::scatter;
use crate::row_order::transpose;
use crate::stored::f8_e4m3;
use quantrs_formats::{At, Codes, Less, OpenSources, Packed, ScaleType, Zeros};
use quantrs_simd::{Level, bf16_value, dispatch, f16_value};
use rayon::prelude::*;
use std::ops::Range;

/// Bytes that are read at a time.
const READ_BYTES: usize = 1 << 20;
/// Output `8 * i + j` lies in this nibble of a word.
const AWQ_NIBBLE: [u32; 8] = [0, 4, 1, 5, 2, 6, 3, 7];
/// Magnitudes of the 4-bit float, by its lower three bits.
const F4_MAGNITUDES: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];

/// What a code stands for before it is scaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// A whole number: itself, minus the zero point.
    Whole,
    /// As `Whole`, of a signed byte; zero points have 128 added.
    Signed,
    F8,
    F4,
}

/// What a worker needs to know to turn codes into values: everything but the codes, in the order of stored rows.
///
/// Value     w = (code - zero) * scale in float32, which rounds once; floats: code * scale. A divisor divides the scale first, rounded.
/// Memory    scales in float32, zero points in a byte, for every row and group; 4 bytes per column where there is a `g_idx`
/// Exact     the same on every CPU: one product per value
/// Source    GPTQ: Frantar et al. 2022, arXiv:2210.17323; AWQ: Lin et al. 2023, arXiv:2306.00978; the layouts are those that gptqmodel,
///           AutoAWQ and compressed-tensors write
#[derive(Debug)]
pub(crate) struct Grid {
    pub(crate) meaning: Meaning,
    pub(crate) bits: u32,
    n_cols: usize,
    pub(crate) group_size: usize,
    group_rows: usize,
    n_groups: usize,
    /// `[ceil(n_rows / group_rows), n_groups]`
    pub(crate) scales: Vec<f32>,
    /// `[n_rows, n_groups]`; empty where all are the middle.
    pub(crate) zeros: Vec<u8>,
    /// `[n_cols]`; empty where they are `col / group_size`.
    pub(crate) groups: Vec<u32>,
    /// What each code of a float is; empty for whole numbers.
    floats: Vec<f32>,
}

/// Reads what lies beside the codes.
struct Sides<'a> {
    name: &'a str,
    sources: &'a OpenSources,
    n_rows: usize,
    n_cols: usize,
    n_groups: usize,
}

impl Grid {
    /// Read scales, zero points and groups. `packed` was checked with these sizes.
    pub(crate) fn read(
        name: &str,
        sources: &OpenSources,
        packed: &Packed,
        n_rows: usize,
        n_cols: usize,
    ) -> Result<Grid, ConvertError> {
        let n_groups = packed.n_groups(n_cols as u64) as usize;
        let sides = Sides { name, sources, n_rows, n_cols, n_groups };
        let meaning = match packed.codes {
            Codes::Rows { .. } | Codes::Columns { .. } | Codes::Awq => Meaning::Whole,
            Codes::I8 => Meaning::Signed,
            Codes::F8E4M3 => Meaning::F8,
            Codes::F4E2M1 => Meaning::F4,
        };
        let bits = packed.codes.bits();
        let group_size = packed.group_size.min(n_cols as u64) as usize;
        Ok(Grid {
            meaning,
            bits,
            n_cols,
            group_size,
            group_rows: packed.scales.group_rows.min(n_rows as u64) as usize,
            n_groups,
            scales: sides.scales(packed)?,
            zeros: sides.zeros(packed.zeros, bits)?,
            groups: packed.g_idx.map_or(Ok(Vec::new()), |at| sides.groups(at, group_size))?,
            floats: match meaning {
                Meaning::Whole | Meaning::Signed => Vec::new(),
                Meaning::F8 => (0..=255).map(f8_e4m3).collect(),
                Meaning::F4 => (0..=255).map(f4_e2m1).collect(),
            },
        })
    }

    /// Bytes of the codes of a row, once they lie row after row.
    pub(crate) fn row_bytes(&self) -> usize {
        let in_words = self.meaning == Meaning::Whole;
        let n_bits = self.n_cols * self.bits as usize;
        if in_words { n_bits.div_ceil(32) * 4 } else { n_bits.div_ceil(8) }
    }

    /// Where in a row's bytes a column begins that is a multiple of 32, or the end of the row.
    pub(crate) fn byte_of(&self, col: usize) -> usize {
        if col == self.n_cols { self.row_bytes() } else { col * self.bits as usize / 8 }
    }

    /// The zero point that codes of a row and group have; none of floats.
    pub(crate) fn zero(&self, row: usize, group: usize) -> u8 {
        match self.zeros.get(row * self.n_groups + group) {
            Some(zero) => *zero,
            None => 1 << (self.bits - 1),
        }
    }

    /// The scale that codes of a row and group have.
    pub(crate) fn scale(&self, row: usize, group: usize) -> f32 {
        self.scales[row / self.group_rows * self.n_groups + group]
    }

    /// Codes of one row: unsigned, those of signed bytes with 128 added.
    pub(crate) fn unpack(&self, level: Level, bytes: &[u8], codes: &mut [u8]) {
        dispatch!(level, s => unpack_any(s, self.bits, bytes, codes), scalar => unpack_any((), self.bits, bytes, codes));
        if self.meaning == Meaning::Signed {
            codes.iter_mut().for_each(|code| *code ^= 0x80);
        }
    }

    /// Values of columns of the stored row `row`, from its codes as [`unpack`](Self::unpack) gives them.
    pub(crate) fn decode(&self, level: Level, row: usize, cols: Range<usize>, codes: &[u8], out: &mut [f32]) {
        if !self.groups.is_empty() {
            let first = row * self.n_groups;
            let scales = &self.scales[row / self.group_rows * self.n_groups..][..self.n_groups];
            let middle = 1 << (self.bits - 1);
            for ((out, code), group) in out.iter_mut().zip(codes).zip(&self.groups[cols]) {
                let group = *group as usize;
                let zero = self.zeros.get(first + group).copied().unwrap_or(middle);
                *out = (f32::from(*code) - f32::from(zero)) * scales[group];
            }
            return;
        }
        let mut start = cols.start;
        while start < cols.end {
            let group = start / self.group_size;
            let end = cols.end.min((group + 1) * self.group_size);
            let part = start - cols.start..end - cols.start;
            let (scale, codes, out) = (self.scale(row, group), &codes[part.clone()], &mut out[part]);
            match <&[f32; 256]>::try_from(self.floats.as_slice()) {
                Ok(floats) => {
                    for (out, code) in out.iter_mut().zip(codes) {
                        *out = floats[usize::from(*code)] * scale;
                    }
                }
                Err(_) => {
                    let zero = f32::from(self.zero(row, group));
                    dispatch!(
                        level,
                        s => scale_whole(s, codes, zero, scale, out),
                        scalar => scale_whole((), codes, zero, scale, out)
                    );
                }
            }
            start = end;
        }
    }
}

/// Values of whole numbers of one group; `_level` only tells what CPU this is compiled for.
#[inline(always)]
fn scale_whole<S>(_level: S, codes: &[u8], zero: f32, scale: f32, out: &mut [f32]) {
    for (out, code) in out.iter_mut().zip(codes) {
        *out = (f32::from(*code) - zero) * scale;
    }
}

/// [`unpack`] of this many bits; `_level` as above.
#[inline(always)]
fn unpack_any<S>(_level: S, bits: u32, bytes: &[u8], codes: &mut [u8]) {
    match bits {
        2 => unpack::<2>(bytes, codes),
        3 => unpack::<3>(bytes, codes),
        4 => unpack::<4>(bytes, codes),
        5 => unpack::<5>(bytes, codes),
        6 => unpack::<6>(bytes, codes),
        7 => unpack::<7>(bytes, codes),
        _ => codes.copy_from_slice(&bytes[..codes.len()]),
    }
}

impl Sides<'_> {
    fn bytes(&self, at: At, nbytes: usize) -> Result<Vec<u8>, ConvertError> {
        read_stretch(self.sources, at, nbytes)
    }

    fn words(&self, at: At, n_words: usize) -> Result<Vec<u32>, ConvertError> {
        let bytes = self.bytes(at, 4 * n_words)?;
        Ok(bytes.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect())
    }

    fn wrong(&self, what: &'static str, found: String, expected: String) -> ConvertError {
        ConvertError::Packed { name: self.name.to_owned(), what, found, expected }
    }

    fn scales(&self, packed: &Packed) -> Result<Vec<f32>, ConvertError> {
        let scales = &packed.scales;
        let rows = self.n_rows.div_ceil(scales.group_rows.min(self.n_rows as u64) as usize);
        let bytes = self.bytes(scales.at, rows * self.n_groups * scales.scale_type.nbytes() as usize)?;
        let mut values = decoded_scales(scales.scale_type, &bytes);
        if scales.transposed {
            values = transposed(&values, self.n_groups, rows);
        }
        if let Some(at) = scales.divisor {
            let divisor = f32::from_bits(self.words(at, 1)?[0]);
            if !divisor.is_finite() || divisor == 0.0 {
                return Err(self.wrong(
                    "the scales' divisor",
                    divisor.to_string(),
                    "a finite number, not 0; the file is damaged".into(),
                ));
            }
            values.iter_mut().for_each(|v| *v /= divisor);
        }
        match values.iter().position(|v| !v.is_finite()) {
            None => Ok(values),
            Some(i) => {
                let found = format!("{} for row {}, group {}", values[i], i / self.n_groups, i % self.n_groups);
                Err(self.wrong("scales", found, "finite ones; the file is damaged".into()))
            }
        }
    }

    fn zeros(&self, zeros: Zeros, bits: u32) -> Result<Vec<u8>, ConvertError> {
        let (n_rows, n_groups) = (self.n_rows, self.n_groups);
        Ok(match zeros {
            Zeros::Middle => Vec::new(),
            Zeros::I8(at) => {
                let mut all = self.bytes(at, n_rows * n_groups)?;
                let middle = 1u8 << (bits - 1);
                for (i, zero) in all.iter_mut().enumerate() {
                    let signed = zero.cast_signed();
                    *zero = zero.wrapping_add(middle);
                    if u32::from(*zero) >= 1 << bits {
                        let found = format!("{signed} for row {}, group {}", i / n_groups, i % n_groups);
                        return Err(self.wrong("zero points", found, format!("one of {bits} bits")));
                    }
                }
                all
            }
            Zeros::Columns { at, less } => {
                let words_per_group = n_rows * bits as usize / 32;
                let mut words = self.words(at, n_groups * words_per_group)?;
                if less == Less::OneBorrowing {
                    // The carry gives back what a lane of 0 had borrowed.
                    let ones = u32::MAX / ((1 << bits) - 1);
                    words.iter_mut().for_each(|word| *word = word.wrapping_add(ones));
                }
                let mut by_group = stream(&words, words_per_group, n_rows, bits);
                if less == Less::OneWrapping {
                    let mask = ((1u32 << bits) - 1) as u8;
                    by_group.iter_mut().for_each(|zero| *zero = zero.wrapping_add(1) & mask);
                }
                transposed(&by_group, n_groups, n_rows)
            }
            Zeros::Awq(at) => {
                let words = self.words(at, n_groups * n_rows / 8)?;
                let nibble = |word: &u32| AWQ_NIBBLE.map(|k| (word >> (4 * k) & 15) as u8);
                let by_group: Vec<u8> = words.iter().flat_map(nibble).collect();
                transposed(&by_group, n_groups, n_rows)
            }
            Zeros::Rows(at) => {
                let words_per_group = (n_rows * bits as usize).div_ceil(32);
                let words = transposed(&self.words(at, words_per_group * n_groups)?, words_per_group, n_groups);
                transposed(&stream(&words, words_per_group, n_rows, bits), n_groups, n_rows)
            }
        })
    }

    /// Empty where every column's group is the one that it would have without.
    fn groups(&self, at: At, group_size: usize) -> Result<Vec<u32>, ConvertError> {
        let groups = self.words(at, self.n_cols)?;
        if let Some(col) = groups.iter().position(|group| *group as usize >= self.n_groups) {
            let found = format!("group {} of column {col}", groups[col].cast_signed());
            return Err(self.wrong("g_idx", found, format!("0 to {}", self.n_groups - 1)));
        }
        let trivial = groups.iter().enumerate().all(|(col, group)| *group as usize == col / group_size);
        Ok(if trivial { Vec::new() } else { groups })
    }
}

/// Codes that are stored output by output along the fast axis, as rows of a bit stream; None where they lie like that already.
pub(crate) fn held_codes(
    sources: &OpenSources,
    packed: &Packed,
    at: At,
    n_rows: usize,
    n_cols: usize,
) -> Result<Option<Vec<u8>>, ConvertError> {
    match packed.codes {
        Codes::Columns { bits } => {
            let n_words = n_cols * bits as usize / 32;
            let stored = read_stretch(sources, at, 4 * n_words * n_rows)?;
            let mut rows = vec![0; stored.len()];
            transpose::<4>(&stored, n_rows, n_words, &mut rows);
            Ok(Some(rows))
        }
        Codes::Awq => {
            let n_words = n_rows / 8;
            let stored = read_stretch(sources, at, 4 * n_words * n_cols)?;
            let mut by_word = vec![0; stored.len()];
            transpose::<4>(&stored, n_words, n_cols, &mut by_word);
            drop(stored);
            let row_bytes = n_cols.div_ceil(8) * 4;
            let mut rows = vec![0; n_rows * row_bytes];
            rows.par_chunks_mut(8 * row_bytes).zip(by_word.par_chunks(4 * n_cols)).for_each(|(rows, words)| {
                for (row, k) in rows.chunks_exact_mut(row_bytes).zip(AWQ_NIBBLE) {
                    for (byte, pair) in row.iter_mut().zip(words.chunks(8)) {
                        let nibble = |word: &[u8]| word[k as usize / 2] >> (4 * (k % 2)) & 15;
                        *byte = nibble(pair) | pair.get(4..8).map_or(0, |word| nibble(word) << 4);
                    }
                }
            });
            Ok(Some(rows))
        }
        _ => Ok(None),
    }
}

fn read_stretch(sources: &OpenSources, at: At, nbytes: usize) -> Result<Vec<u8>, ConvertError> {
    let mut out = vec![0; nbytes];
    out.par_chunks_mut(READ_BYTES)
        .enumerate()
        .try_for_each(|(i, out)| sources.read_at(at.source, at.offset + (i * READ_BYTES) as u64, out))?;
    Ok(out)
}

fn decoded_scales(scale_type: ScaleType, bytes: &[u8]) -> Vec<f32> {
    let halves = |value: fn(u16) -> f32| bytes.as_chunks::<2>().0.iter().map(move |b| value(u16::from_le_bytes(*b)));
    match scale_type {
        ScaleType::F32 => bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        ScaleType::F16 => halves(f16_value).collect(),
        ScaleType::Bf16 => halves(bf16_value).collect(),
        ScaleType::F8E4M3 => bytes.iter().map(|b| f8_e4m3(*b)).collect(),
        ScaleType::F8E8M0 => bytes.iter().map(|b| e8m0(*b)).collect(),
    }
}

/// 2^(b - 127); 255 is NaN.
///
/// Source    OCP Microscaling Formats (MX) Specification 1.0, section 5.4.1
fn e8m0(b: u8) -> f32 {
    match b {
        0 => f32::from_bits(0x0040_0000),
        255 => f32::NAN,
        b => f32::from_bits(u32::from(b) << 23),
    }
}

/// Sign, two bits of exponent, one of mantissa.
fn f4_e2m1(code: u8) -> f32 {
    let magnitude = F4_MAGNITUDES[usize::from(code & 7)];
    if code & 8 == 0 { magnitude } else { -magnitude }
}

/// `[n_rows, n_cols]` to `[n_cols, n_rows]`.
fn transposed<T: Copy>(values: &[T], n_rows: usize, n_cols: usize) -> Vec<T> {
    if n_rows == 1 || n_cols == 1 {
        return values.to_vec();
    }
    (0..n_cols).flat_map(|col| (0..n_rows).map(move |row| values[row * n_cols + col])).collect()
}

/// The first `n_codes` of each stretch of `n_words` words.
fn stream(words: &[u32], n_words: usize, n_codes: usize, bits: u32) -> Vec<u8> {
    let mask = (1u64 << bits) - 1;
    let code = |words: &[u32], i: usize| {
        let (word, shift) = (i * bits as usize / 32, i * bits as usize % 32);
        let next = words.get(word + 1).copied().unwrap_or(0);
        ((u64::from(words[word]) | u64::from(next) << 32) >> shift & mask) as u8
    };
    words.chunks_exact(n_words).flat_map(|words| (0..n_codes).map(move |i| code(words, i))).collect()
}

/// Eight codes fill `BITS` bytes, the first in the lowest bits.
#[inline(always)]
fn unpack<const BITS: usize>(bytes: &[u8], codes: &mut [u8]) {
    let (whole, rest) = codes.as_chunks_mut::<8>();
    let (packed, packed_rest) = bytes.split_at(whole.len() * BITS);
    for (codes, bytes) in whole.iter_mut().zip(packed.as_chunks::<BITS>().0) {
        let mut word = [0; 8];
        word[..BITS].copy_from_slice(bytes);
        *codes = scatter::<BITS>(u64::from_le_bytes(word)).to_le_bytes();
    }
    if !rest.is_empty() {
        let (mut word, n) = ([0; 8], packed_rest.len().min(BITS));
        word[..n].copy_from_slice(&packed_rest[..n]);
        rest.copy_from_slice(&scatter::<BITS>(u64::from_le_bytes(word)).to_le_bytes()[..rest.len()]);
    }
}
