//! Quantized linears as ggml blocks of the very same values, where a block type's grid contains theirs.

use crate::ConvertError;
use crate::packed::{Grid, Meaning};
use quantrs_formats::{OpenSources, TensorInfo, Values};
use quantrs_simd::{f16_bits, f16_value};
use std::ops::Range;

const BLOCK_LEN: usize = 32;

/// A block type that linears can lie in without loss, of 32 values each.
///
/// Value     the one that [`Grid::decode`] gives; a negative zero of a 4-bit float becomes a positive one
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contained {
    /// d (f16), 16 bytes: value `d * (q - 8)`, q of element j in the low half of byte j, of element j + 16 in the high one.
    Q4_0,
    /// d (f16), 32 signed bytes: value `d * q`.
    Q8_0,
    /// An exponent, 16 bytes of 4-bit floats in the order of `Q4_0`: value `2^(e - 127) * q`.
    Mxfp4,
}

impl Contained {
    const ALL: [Contained; 3] = [Contained::Q4_0, Contained::Mxfp4, Contained::Q8_0];

    /// The ggml type, as upstream spells it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Contained::Q4_0 => "Q4_0",
            Contained::Q8_0 => "Q8_0",
            Contained::Mxfp4 => "MXFP4",
        }
    }

    /// The one of this name.
    pub(crate) fn by_name(name: &str) -> Option<Contained> {
        Contained::ALL.into_iter().find(|block| block.name() == name)
    }

    fn block_bytes(self) -> usize {
        match self {
            Contained::Q4_0 => 18,
            Contained::Q8_0 => 34,
            Contained::Mxfp4 => 17,
        }
    }

    /// Whether the blocks can hold every value that codes of this grid can have.
    pub(crate) fn holds(self, grid: &Grid, n_cols: usize) -> bool {
        let blocks = n_cols.is_multiple_of(BLOCK_LEN) && grid.groups.is_empty();
        if !blocks || !(grid.group_size.is_multiple_of(BLOCK_LEN) || grid.group_size == n_cols) {
            return false;
        }
        let middle = 1 << (grid.bits - 1);
        let is_whole = matches!(grid.meaning, Meaning::Whole | Meaning::Signed);
        let in_the_middle = grid.zeros.iter().all(|zero| *zero == middle);
        let halves = || grid.scales.iter().all(|scale| f16_value(f16_bits(*scale)) == *scale);
        match self {
            Contained::Q4_0 => is_whole && grid.bits <= 4 && in_the_middle && halves(),
            Contained::Q8_0 => is_whole && (grid.bits < 8 || in_the_middle) && halves(),
            Contained::Mxfp4 => grid.meaning == Meaning::F4 && grid.scales.iter().all(|s| power_of_two(*s).is_some()),
        }
    }

    /// Blocks of columns of the stored row `row`, from its codes; the grid is one that they hold.
    pub(crate) fn encode(self, grid: &Grid, row: usize, cols: Range<usize>, codes: &[u8], out: &mut [u8]) {
        let blocks = codes.as_chunks::<BLOCK_LEN>().0.iter().zip(out.chunks_exact_mut(self.block_bytes()));
        for (i, (codes, out)) in blocks.enumerate() {
            let group = (cols.start + i * BLOCK_LEN) / grid.group_size;
            let (scale, zero) = (grid.scale(row, group), grid.zero(row, group));
            match self {
                Contained::Mxfp4 => {
                    out[0] = power_of_two(scale).expect("checked by holds");
                    halves_of_bytes(codes, 0, &mut out[1..]);
                }
                Contained::Q4_0 => {
                    out[..2].copy_from_slice(&f16_bits(scale).to_le_bytes());
                    halves_of_bytes(codes, 8u8.wrapping_sub(zero), &mut out[2..]);
                }
                Contained::Q8_0 => {
                    out[..2].copy_from_slice(&f16_bits(scale).to_le_bytes());
                    for (out, code) in out[2..].iter_mut().zip(codes) {
                        *out = code.wrapping_sub(zero);
                    }
                }
            }
        }
    }
}

/// Codes of 4 bits, with `add` added to each: element j in the low half of byte j, element j + 16 in the high one.
fn halves_of_bytes(codes: &[u8; BLOCK_LEN], add: u8, out: &mut [u8]) {
    for (j, out) in out.iter_mut().enumerate() {
        *out = codes[j].wrapping_add(add) & 15 | codes[j + 16].wrapping_add(add) << 4;
    }
}

/// The exponent code of 2^(e - 127), e below 255.
fn power_of_two(scale: f32) -> Option<u8> {
    match scale.to_bits() {
        0x0040_0000 => Some(0),
        bits if bits & 0x007f_ffff == 0 && bits >> 23 > 0 && bits >> 31 == 0 => u8::try_from(bits >> 23).ok(),
        _ => None,
    }
}

/// The block types that can hold a tensor of packed parts without loss, the smallest first. Scales and zero points are read, codes are
/// not. None where a part is not packed.
///
/// # Errors
/// [`ConvertError`]: what lies beside the codes cannot be read, or is damaged.
pub fn containing_types(sources: &OpenSources, info: &TensorInfo) -> Result<Vec<&'static str>, ConvertError> {
    let n_cols = info.dims[0] as usize;
    let mut blocks = Contained::ALL.to_vec();
    for part in info.assembly.iter().flat_map(|assembly| &assembly.parts) {
        let Values::Packed(packed) = &part.values else { return Ok(Vec::new()) };
        let grid = Grid::read(&info.name, sources, packed, part.n_rows as usize, n_cols)?;
        blocks.retain(|block| block.holds(&grid, n_cols));
    }
    let is_packed = info.assembly.as_ref().is_some_and(|assembly| assembly.add == 0.0);
    Ok(blocks.into_iter().filter(|_| is_packed).map(Contained::name).collect())
}
