//! What a row of the registry says of a format.

use quantrs_simd::Level;

/// Rows of float32 values to quantize. Rows are independent of each other.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// `[n_rows, n_cols]`, row-major. All values are finite.
    pub x: &'a [f32],
    /// Values per row, a multiple of the block length.
    pub n_cols: usize,
    /// Importance of each column, `[n_cols]`, finite and >= 0: the weights of the squared errors.
    pub importance: Option<&'a [f32]>,
}

impl<'a> Rows<'a> {
    /// Block `i` of the flattened rows, `block_len` values.
    #[inline(always)]
    pub fn block(&self, i: usize, block_len: usize) -> &'a [f32] {
        &self.x[i * block_len..][..block_len]
    }

    /// The importance weights of block `i` of the flattened rows.
    #[inline(always)]
    pub fn block_importance(&self, i: usize, block_len: usize) -> Option<&'a [f32]> {
        self.importance.map(|w| &w[i * block_len % self.n_cols..][..block_len])
    }
}

/// What a quantizer does with importance weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Importance {
    /// The bytes do not depend on them.
    Ignored,
    /// Taken when given.
    Used,
    /// Cannot quantize without.
    Required,
}

impl Importance {
    /// `ignored`, `used` or `required`.
    pub fn name(self) -> &'static str {
        match self {
            Importance::Ignored => "ignored",
            Importance::Used => "used",
            Importance::Required => "required",
        }
    }
}

/// Where a block keeps floats that could be infinite or NaN: what a validator looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scales {
    /// f16 at these byte offsets.
    F16(&'static [usize]),
    /// bf16 at offset 0 (the value itself).
    Bf16,
    /// f32 at offset 0.
    F32,
    /// An E8M0 exponent at offset 0; 255 is NaN.
    E8M0,
    /// IQ1_M: the top nibbles of four u16 at offset 48 make an f16.
    Iq1M,
    /// Every bit pattern is a finite value.
    None,
}

/// Quantize rows; `out` has the exact size.
pub(crate) type QuantizeRef = fn(Rows<'_>, &mut [u8]);
/// Quantize rows at a CPU level; `out` has the exact size.
pub(crate) type Quantize = fn(Level, Rows<'_>, &mut [u8]);
/// Decode blocks at a CPU level; both sides are whole blocks of the same count.
pub(crate) type Dequantize = fn(Level, &[u8], &mut [f32]);

/// One row of the registry.
#[derive(Clone, Copy, Debug)]
pub struct BlockFormat {
    /// As upstream spells it: `Q4_K`.
    pub name: &'static str,
    /// ggml type id.
    pub id: u32,
    /// Elements per block.
    pub block_len: usize,
    /// Bytes per block.
    pub block_bytes: usize,
    /// What the quantizer does with importance weights.
    pub importance: Importance,
    /// Where floats lie in a block.
    pub scales: Scales,
    /// The plain quantizer: the oracle.
    pub quantize_ref: Option<QuantizeRef>,
    /// The lane-parallel quantizer; its bytes equal those of `quantize_ref`.
    pub quantize: Option<Quantize>,
    /// The decoder.
    pub dequantize: Option<Dequantize>,
    /// Magnitude above which values are clipped by the format's scale range.
    pub clip_above: Option<f32>,
}

impl BlockFormat {
    /// Bytes of a row of `n_cols` values, or None when it is not a whole number of blocks.
    pub fn row_bytes(&self, n_cols: usize) -> Option<usize> {
        n_cols.is_multiple_of(self.block_len).then(|| n_cols / self.block_len * self.block_bytes)
    }

    /// Bits per weight.
    pub fn bits_per_weight(&self) -> f64 {
        self.block_bytes as f64 * 8.0 / self.block_len as f64
    }

    /// Index of the first block whose stored scale is infinite or NaN.
    pub fn first_bad_scale(&self, packed: &[u8]) -> Option<usize> {
        let bad_f16 = |b: &[u8], at: usize| b[at + 1] & 0x7c == 0x7c;
        let bytes = self.block_bytes;
        match self.scales {
            Scales::F16(_) if self.block_len == 1 => first_bad_value(packed, 0x7c00),
            Scales::Bf16 => first_bad_value(packed, 0x7f80),
            Scales::F16(&[at]) => first_block(packed, bytes, |b| bad_f16(b, at)),
            Scales::F16(offsets) => first_block(packed, bytes, |b| offsets.iter().any(|&at| bad_f16(b, at))),
            Scales::F32 => first_block(packed, bytes, |b| b[3] & 0x7f == 0x7f && b[2] & 0x80 != 0),
            Scales::E8M0 => first_block(packed, bytes, |b| b[0] == 255),
            Scales::Iq1M => first_block(packed, bytes, |b| (b[55] >> 4) & 7 == 7 && (b[53] >> 4) & 12 == 12),
            Scales::None => None,
        }
    }
}

#[inline(always)]
fn first_block(packed: &[u8], block_bytes: usize, bad: impl Fn(&[u8]) -> bool) -> Option<usize> {
    packed.chunks_exact(block_bytes).position(bad)
}

/// Index of the first 16-bit float whose exponent bits are all set. A loop without early exit, which compilers vectorize,
/// finds the stretch; a second one the place.
fn first_bad_value(packed: &[u8], exponent: u16) -> Option<usize> {
    const STRETCH_BYTES: usize = 1 << 12;
    let bad = |b: &[u8]| u16::from_le_bytes([b[0], b[1]]) & exponent == exponent;
    let has_bad = |stretch: &[u8]| stretch.chunks_exact(2).fold(false, |any, b| any | bad(b));
    let stretch = packed.chunks(STRETCH_BYTES).position(has_bad)?;
    let first = stretch * STRETCH_BYTES;
    packed[first..].chunks_exact(2).position(bad).map(|at| first / 2 + at)
}
