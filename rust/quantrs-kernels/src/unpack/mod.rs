//! Packed blocks as unsigned bytes and scales: the one form that all products of integers read.
//!
//! Every format is affine within groups of 16 or 32 weights: `w = s * (u - OFFSET) + m`, u an unsigned byte, s and m f32. m is
//! zero but for the five formats that store minimums. Rows are worked on in spans of 256 weights, the longest block.

mod bits;
mod grids;
mod k_quants;
mod simple;

use crate::isa::Isa;
pub(crate) use {bits::*, grids::*, k_quants::*, simple::*};

/// Weights of a span. The last span of a row may have fewer, a multiple of 32.
pub(crate) const SPAN: usize = 256;

/// Scales and minimums of the groups of a span.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Scales {
    pub(crate) s: [f32; 16],
    pub(crate) m: [f32; 16],
}

impl Scales {
    pub(crate) const ZERO: Scales = Scales { s: [0.0; 16], m: [0.0; 16] };
}

/// A block format as affine groups.
pub(crate) trait Unpack {
    /// Weights per block.
    const BLOCK_LEN: usize;
    /// Bytes per block.
    const BLOCK_BYTES: usize;
    /// Weights that share a scale: 16 or 32.
    const GROUP: usize;
    /// What is subtracted from u.
    const OFFSET: u8;
    /// Whether m is stored; then `OFFSET` is 0.
    const MINS: bool;
    /// Whether u may exceed 127.
    const BYTE: bool;
    /// Bytes of a full span.
    const SPAN_BYTES: usize = SPAN / Self::BLOCK_LEN * Self::BLOCK_BYTES;
    /// Whether activations have one scale per span: see [`Form`](crate::Form).
    const BY_SPAN: bool = Self::BLOCK_LEN == SPAN;
    /// What `scales` found out about the span that `codes` needs.
    type State: Copy;

    /// The scales, and minimums if `MINS`, of the first `n_groups` groups of the span; b: its blocks.
    fn scales<M: Isa>(m: M, b: &[u8], n_groups: usize, out: &mut Scales) -> Self::State;
    /// The 32 bytes u of weights `32 * i..`.
    fn codes<M: Isa>(m: M, state: &Self::State, b: &[u8], i: usize) -> M::B;
}

/// Work generic over the format.
pub(crate) trait ForFormat {
    type Output;
    fn call<F: Unpack>(self) -> Self::Output;
}

/// Call `work` with the format of this name; None for formats that are not packed blocks.
pub(crate) fn for_format<W: ForFormat>(name: &str, work: W) -> Option<W::Output> {
    Some(match name {
        "Q4_0" => work.call::<Q4_0>(),
        "Q4_1" => work.call::<Q4_1>(),
        "Q5_0" => work.call::<Q5_0>(),
        "Q5_1" => work.call::<Q5_1>(),
        "Q8_0" => work.call::<Q8_0>(),
        "Q8_1" => work.call::<Q8_1>(),
        "Q2_K" => work.call::<Q2K>(),
        "Q3_K" => work.call::<Q3K>(),
        "Q4_K" => work.call::<Q4K>(),
        "Q5_K" => work.call::<Q5K>(),
        "Q6_K" => work.call::<Q6K>(),
        "Q8_K" => work.call::<Q8K>(),
        "IQ1_S" => work.call::<Iq1S>(),
        "IQ1_M" => work.call::<Iq1M>(),
        "IQ2_XXS" => work.call::<Iq2Xxs>(),
        "IQ2_XS" => work.call::<Iq2Xs>(),
        "IQ2_S" => work.call::<Iq2S>(),
        "IQ3_XXS" => work.call::<Iq3Xxs>(),
        "IQ3_S" => work.call::<Iq3S>(),
        "IQ4_NL" => work.call::<Iq4Nl>(),
        "IQ4_XS" => work.call::<Iq4Xs>(),
        "TQ1_0" => work.call::<Tq1_0>(),
        "TQ2_0" => work.call::<Tq2_0>(),
        "MXFP4" => work.call::<Mxfp4>(),
        "NVFP4" => work.call::<Nvfp4>(),
        "Q1_0" => work.call::<Q1_0>(),
        "Q2_0" => work.call::<Q2_0>(),
        _ => return None,
    })
}

/// A little-endian u32 at a byte offset.
#[inline(always)]
fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(b[at..at + 4].try_into().expect("4 bytes"))
}

/// Two u32 as eight bytes, the first one's lowest first.
#[inline(always)]
fn join(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}
