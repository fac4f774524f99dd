//! Vectors along a block: for formats whose elements, once the scale is known, do not depend on each other.
//!
//! The largest magnitude is the same in any order of comparisons, so these functions are exact without the transposition that
//! sums need. Only which of equal magnitudes comes first depends on the order; that case is looked up in plain code.

use crate::lanes::MAX_LANES;
use crate::search::signed_max;
use quantrs_simd::Simd;

/// Values per block of the formats that use this file.
pub(crate) const BLOCK_LEN: usize = 32;

/// Blocks whose scales are computed together, one per lane.
pub(crate) const GROUP: usize = MAX_LANES;

/// Smallest and largest value. Of zeros, either may be returned. `x` is a whole number of vectors.
#[inline(always)]
fn extremes<S: Simd>(s: S, x: &[f32]) -> (f32, f32) {
    let first = s.load(x);
    let (mut min, mut max) = (first, first);
    for x in x.chunks_exact(S::LANES).skip(1) {
        let v = s.load(x);
        min = s.min(v, min);
        max = s.max(v, max);
    }
    (s.reduce_min(min), s.reduce_max(max))
}

/// As [`signed_max`]: the value of largest magnitude, sign kept; the first of equals; +0 for zeros.
#[inline(always)]
pub(crate) fn signed_max_along<S: Simd>(s: S, x: &[f32]) -> f32 {
    let (min, max) = extremes(s, x);
    if -min == max {
        signed_max(x)
    } else if -min > max {
        min
    } else {
        max
    }
}

/// The smallest and the largest value by strict comparison from the first on: of zeros, the first one.
#[inline(always)]
pub(crate) fn min_max_along<S: Simd>(s: S, x: &[f32]) -> (f32, f32) {
    let (min, max) = extremes(s, x);
    if min == 0.0 || max == 0.0 { min_max(x) } else { (min, max) }
}

/// [`signed_max`] of up to `GROUP` blocks.
///
/// The sign is chosen for all blocks at once: it is random, and a branch on it costs more than the search.
#[inline(always)]
pub(crate) fn group_signed_max<S: Simd>(s: S, x: &[f32]) -> [f32; GROUP] {
    let (mut mins, mut maxs) = ([0.0; GROUP], [0.0; GROUP]);
    for ((min, max), x) in mins.iter_mut().zip(&mut maxs).zip(x.chunks_exact(BLOCK_LEN)) {
        (*min, *max) = extremes(s, x);
    }
    let mut signed = [0.0; GROUP];
    for i in (0..GROUP).step_by(S::LANES) {
        let (min, max) = (s.load(&mins[i..]), s.load(&maxs[i..]));
        let minus_min = s.neg(min);
        s.store(s.select(s.gt(minus_min, max), min, max), &mut signed[i..]);
        let mut ties = s.bitmask(s.eq(minus_min, max));
        while ties != 0 {
            let b = i + ties.trailing_zeros() as usize;
            signed[b] = x.chunks_exact(BLOCK_LEN).nth(b).map_or(0.0, signed_max);
            ties &= ties - 1;
        }
    }
    signed
}

/// As [`min_max_along`], in plain code.
#[inline(always)]
pub(crate) fn min_max(x: &[f32]) -> (f32, f32) {
    x.iter().fold((x[0], x[0]), |(min, max), &x| (if x < min { x } else { min }, if x > max { x } else { max }))
}

/// The largest magnitude.
#[inline(always)]
pub(crate) fn abs_max_along<S: Simd>(s: S, x: &[f32]) -> f32 {
    let mut max = s.splat(0.0);
    for x in x.chunks_exact(S::LANES) {
        max = s.max(s.abs(s.load(x)), max);
    }
    s.reduce_max(max)
}

/// The largest magnitude, in plain code.
#[inline(always)]
pub(crate) fn abs_max(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |max, x| if x.abs() > max { x.abs() } else { max })
}

/// The scales d of a group of blocks.
pub(crate) struct GroupScales {
    /// 1/d, or 0 where d is 0.
    pub(crate) inverse: [f32; GROUP],
    /// d rounded to f16, as it is stored.
    pub(crate) f16: [[u8; 2]; GROUP],
}

/// Scales `d = span / divisor` of a group of blocks, one block per lane. The inverse is that of d before its f16 rounding.
#[inline(always)]
pub(crate) fn group_scales<S: Simd>(s: S, spans: &[f32; GROUP], divisor: f32) -> GroupScales {
    let mut scales = GroupScales { inverse: [0.0; GROUP], f16: [[0; 2]; GROUP] };
    let zero = s.splat(0.0);
    for i in (0..GROUP).step_by(S::LANES) {
        let d = s.div(s.load(&spans[i..]), s.splat(divisor));
        s.store(s.select(s.eq(d, zero), zero, s.div(s.splat(1.0), d)), &mut scales.inverse[i..]);
        s.store_f16(d, scales.f16[i..].as_flattened_mut());
    }
    scales
}

/// 1/d, or 0 where d is 0.
#[inline(always)]
pub(crate) fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// Pack 32 levels of four bits: nibble j of byte j is element j (low) and j + 16 (high). `level(i)` gives the levels of the
/// `S::LANES` elements from `i` on; bits above the fourth are dropped.
#[inline(always)]
pub(crate) fn store_nibbles<S: Simd>(s: S, out: &mut [u8], level: impl Fn(usize) -> S::I) {
    for i in (0..BLOCK_LEN / 2).step_by(S::LANES) {
        let low = s.iand(level(i), s.isplat(15));
        let high = s.ishl(level(i + BLOCK_LEN / 2), 4);
        s.store_bytes(s.ior(low, high), &mut out[i..]);
    }
}

/// Pack 32 levels of five bits: the low four as [`store_nibbles`] to `qs`, bit 4 of element e to bit e of the word `qh`.
/// Bits above the fifth are dropped.
#[inline(always)]
pub(crate) fn store_five_bits<S: Simd>(s: S, qh: &mut [u8], qs: &mut [u8], level: impl Fn(usize) -> S::I) {
    let bit4 = s.isplat(16);
    let high_bits = |i: usize, level: S::I| s.bitmask(s.ieq(s.iand(level, bit4), bit4)) << i;
    let mut word = 0;
    for i in (0..BLOCK_LEN / 2).step_by(S::LANES) {
        let (low, high) = (level(i), level(i + BLOCK_LEN / 2));
        word |= high_bits(i, low) | high_bits(i + BLOCK_LEN / 2, high);
        s.store_bytes(s.ior(s.iand(low, s.isplat(15)), s.ishl(high, 4)), &mut qs[i..]);
    }
    qh[..4].copy_from_slice(&word.to_le_bytes());
}

/// Pack 32 levels of four bits as [`store_nibbles`], in plain code.
#[inline(always)]
pub(crate) fn pack_nibbles(levels: &[u8; BLOCK_LEN], qs: &mut [u8]) {
    for (j, byte) in qs[..BLOCK_LEN / 2].iter_mut().enumerate() {
        *byte = (levels[j] & 15) | levels[j + BLOCK_LEN / 2] << 4;
    }
}

/// Pack 32 levels of five bits as [`store_five_bits`], in plain code.
#[inline(always)]
pub(crate) fn pack_five_bits(levels: &[u8; BLOCK_LEN], qh: &mut [u8], qs: &mut [u8]) {
    let word = levels.iter().enumerate().fold(0u32, |word, (e, &l)| word | u32::from(l >> 4 & 1) << e);
    qh[..4].copy_from_slice(&word.to_le_bytes());
    pack_nibbles(levels, qs);
}

/// Inverse of [`store_nibbles`]: `value(q)` of all 32 levels, in order.
#[inline(always)]
pub(crate) fn decode_nibbles<S: Simd>(s: S, qs: &[u8], out: &mut [f32], value: impl Fn(S::I) -> S::F) {
    let (low, high) = out.split_at_mut(BLOCK_LEN / 2);
    for i in (0..BLOCK_LEN / 2).step_by(S::LANES) {
        let q = s.load_u8(&qs[i..]);
        s.store(value(s.iand(q, s.isplat(15))), &mut low[i..]);
        s.store(value(s.ishr(q, 4)), &mut high[i..]);
    }
}

/// `scale * q` of 32 levels of eight bits, signed.
#[inline(always)]
pub(crate) fn decode_i8<S: Simd>(s: S, qs: &[u8], out: &mut [f32], scale: f32) {
    for i in (0..BLOCK_LEN).step_by(S::LANES) {
        s.store(s.mul(s.splat(scale), s.to_f32(s.load_i8(&qs[i..]))), &mut out[i..]);
    }
}

/// [`decode_i8`] in plain code.
pub(crate) fn decode_i8_ref(qs: &[u8], out: &mut [f32], scale: f32) {
    for (out, &q) in out.iter_mut().zip(qs) {
        *out = scale * f32::from(q as i8);
    }
}
