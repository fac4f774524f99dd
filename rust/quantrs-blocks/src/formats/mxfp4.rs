//! MXFP4: blocks of 32 four-bit floats (E2M1) and a power-of-two scale (E8M0), as the OCP microscaling formats define.

use super::fp4::{DOUBLED_F32, Limits, nearest_ref};
use crate::along::{GROUP, abs_max, abs_max_along, decode_nibbles, store_nibbles};
use crate::format::Rows;
use quantrs_simd::{Level, Simd, dispatch};

const BLOCK_LEN: usize = 32;
const BLOCK_BYTES: usize = 17;

/// Format    32 values -> 17 bytes: e (E8M0), qs[16]; 4.25 bpw. Byte j is element j (low nibble) and j + 16 (high)
/// Value     w ~ 2^(e - 128) * doubled E2M1 value of q
/// Search    e = floor(log2(largest magnitude)) - 2 + 127, the logarithm rounded to f32 before the floor
/// Rounding  the nearest code, the lowest of equals
/// Edges     zero block: e = 0. Just below a power of two the logarithm already rounds up to it. e keeps eight bits: a largest
///           magnitude below 2^-126 wraps to a huge scale with zero codes, one in 2^-126..2^-125 to 255, which is NaN
/// Shapes    rows: f32[n], n % 32 == 0; out: u8[n / 32 * 17]
/// Exact     bytes equal `quantize_row_mxfp4_ref`, ggml 0.25.3, FP contraction off
/// Source    ggml `src/ggml-quants.c` at llama.cpp 0c1e57098; OCP Microscaling Formats (MX) Specification 1.0
pub(crate) fn quantize_ref(rows: Rows<'_>, out: &mut [u8]) {
    for (x, out) in rows.x.chunks_exact(BLOCK_LEN).zip(out.chunks_exact_mut(BLOCK_BYTES)) {
        let largest = abs_max(x);
        out[0] = if largest > 0.0 { exponent_code(floor_log2_ref(largest)) } else { 0 };
        let scale = half_scale(out[0]);
        for j in 0..16 {
            out[1 + j] = nearest_ref(x[j], scale) | nearest_ref(x[j + 16], scale) << 4;
        }
    }
}

/// As [`quantize_ref`], along the block: nothing but the largest magnitude crosses elements.
pub(crate) fn quantize(level: Level, rows: Rows<'_>, out: &mut [u8]) {
    dispatch!(level, s => quantize_along(s, rows, out), scalar => quantize_ref(rows, out));
}

#[inline(always)]
fn quantize_along<S: Simd>(s: S, rows: Rows<'_>, out: &mut [u8]) {
    for (x, out) in rows.x.chunks(GROUP * BLOCK_LEN).zip(out.chunks_mut(GROUP * BLOCK_BYTES)) {
        // The exponents first: the logarithm is a call, which empties the vector registers of what follows.
        for (x, out) in x.chunks_exact(BLOCK_LEN).zip(out.chunks_exact_mut(BLOCK_BYTES)) {
            let largest = abs_max_along(s, x);
            out[0] = if largest > 0.0 { exponent_code(floor_log2(largest)) } else { 0 };
        }
        for (x, out) in x.chunks_exact(BLOCK_LEN).zip(out.chunks_exact_mut(BLOCK_BYTES)) {
            let limits = Limits::new(s, half_scale(out[0]));
            store_nibbles(
                s,
                &mut out[1..],
                #[inline(always)]
                |i| limits.nearest(s, s.load(&x[i..])),
            );
        }
    }
}

/// The floor of the base-2 logarithm rounded to f32; v > 0.
fn floor_log2_ref(v: f32) -> i32 {
    f64::from(v).log2() as f32 as i32 - i32::from((f64::from(v).log2() as f32).fract() < 0.0)
}

/// As [`floor_log2_ref`], from the bits of v. The f32 logarithm reaches the next integer only for mantissas within
/// ln(2) * 2^6 = 44 steps of the next power of two (half a step of floats of magnitude 64 to 128, the largest exponents).
#[inline(always)]
fn floor_log2(v: f32) -> i32 {
    let bits = v.to_bits();
    if bits >= 0x0080_0000 && bits & 0x007f_ffff < 0x007f_ffff - 44 {
        (bits >> 23) as i32 - 127
    } else {
        floor_log2_ref(v)
    }
}

/// The E8M0 code of a largest magnitude in 2^n..2^(n+1): its largest E2M1 value is 6 = 1.5 * 2^2. Keeps the low eight bits.
#[inline(always)]
fn exponent_code(n: i32) -> u8 {
    (n - 2 + 127) as u8
}

/// 2^(e - 128), half the E8M0 value; subnormal for e = 0 and 1.
#[inline(always)]
fn half_scale(e: u8) -> f32 {
    f32::from_bits(if e < 2 { 0x0020_0000 << e } else { (u32::from(e) - 1) << 23 })
}

/// Inverse of [`quantize`].
pub(crate) fn dequantize(level: Level, packed: &[u8], out: &mut [f32]) {
    dispatch!(level, s => dequantize_along(s, packed, out), scalar => dequantize_ref(packed, out));
}

#[inline(always)]
fn dequantize_along<S: Simd>(s: S, packed: &[u8], out: &mut [f32]) {
    for (b, out) in packed.chunks_exact(BLOCK_BYTES).zip(out.chunks_exact_mut(BLOCK_LEN)) {
        let scale = s.splat(half_scale(b[0]));
        decode_nibbles(
            s,
            &b[1..],
            out,
            #[inline(always)]
            |q| s.mul(s.lookup32(&DOUBLED_F32, q), scale),
        );
    }
}

fn dequantize_ref(packed: &[u8], out: &mut [f32]) {
    for (b, out) in packed.chunks_exact(BLOCK_BYTES).zip(out.chunks_exact_mut(BLOCK_LEN)) {
        let scale = half_scale(b[0]);
        for (j, q) in b[1..].iter().enumerate() {
            out[j] = DOUBLED_F32[usize::from(q & 15)] * scale;
            out[j + 16] = DOUBLED_F32[usize::from(q >> 4)] * scale;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floor_log2_equals_its_reference_around_every_power_of_two() {
        for exponent in 0..255u32 {
            for mantissa in (0..60).chain((1 << 23) - 60..1 << 23) {
                let v = f32::from_bits(exponent << 23 | mantissa);
                if v > 0.0 {
                    assert_eq!(floor_log2(v), floor_log2_ref(v), "{v:e}");
                }
            }
        }
    }

    #[test]
    fn the_logarithm_just_below_a_power_of_two_rounds_up_to_it() {
        let below = |v: f32, steps: u32| f32::from_bits(v.to_bits() - steps);
        assert_eq!(floor_log2(below(2f32.powi(100), 44)), 100);
        assert_eq!(floor_log2(below(2f32.powi(100), 45)), 99);
        assert_eq!(floor_log2(below(1.0, 1)), -1);
    }

    #[test]
    fn half_scale_is_the_power_of_two_for_every_code() {
        for e in 0..=255u8 {
            assert_eq!(f64::from(half_scale(e)), 2f64.powi(i32::from(e) - 128), "{e}");
        }
    }
}
