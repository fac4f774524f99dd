//! NVFP4: blocks of 64 four-bit floats (E2M1), each 16 with an unsigned eight-bit float (UE4M3) as scale.

use super::fp4::{DOUBLED_F32, Limits, nearest_ref};
use crate::along::{GROUP, abs_max, abs_max_along};
use crate::format::Rows;
use quantrs_simd::{Level, Simd, dispatch, trunc_i32};

const BLOCK_LEN: usize = 64;
const BLOCK_BYTES: usize = 36;
/// Values per scale.
const SUB: usize = 16;
/// The scales come first.
const QS: usize = 4;

/// Format    64 values -> 36 bytes: scales[4] (UE4M3), qs[32]; 4.5 bpw. Byte j of sub-block s is element 16s + j (low nibble) and
///           16s + 8 + j (high)
/// Value     w ~ (scale / 2) * doubled E2M1 value of q
/// Search    scale = the UE4M3 number of the sub-block's largest magnitude / 6
/// Rounding  scale: half up, in its own function; q: the nearest code, the lowest of equals
/// Edges     scale 0 (largest magnitude below 6 * 2^-10): all q = 0. Magnitudes above 6 * 448 are clipped; far above, where the
///           errors of all codes round to the same float, q = 0
/// Shapes    rows: f32[n], n % 64 == 0; out: u8[n / 64 * 36]
/// Exact     bytes equal `quantize_row_nvfp4_ref`, ggml 0.25.3, FP contraction off
/// Source    ggml `src/ggml-quants.c` at llama.cpp 0c1e57098
pub(crate) fn quantize_ref(rows: Rows<'_>, out: &mut [u8]) {
    for (x, out) in rows.x.chunks_exact(BLOCK_LEN).zip(out.chunks_exact_mut(BLOCK_BYTES)) {
        let (scales, qs) = out.split_at_mut(QS);
        for ((x, scale), qs) in x.chunks_exact(SUB).zip(scales).zip(qs.chunks_exact_mut(SUB / 2)) {
            *scale = encode_scale(abs_max(x) / 6.0);
            let half_scale = decode_half_scale(*scale);
            for j in 0..8 {
                qs[j] = nearest_ref(x[j], half_scale) | nearest_ref(x[j + 8], half_scale) << 4;
            }
        }
    }
}

/// As [`quantize_ref`], along the sub-blocks, their scales one per lane: nothing but the largest magnitude crosses elements.
pub(crate) fn quantize(level: Level, rows: Rows<'_>, out: &mut [u8]) {
    dispatch!(level, s => quantize_along(s, rows, out), scalar => quantize_ref(rows, out));
}

#[inline(always)]
fn quantize_along<S: Simd>(s: S, rows: Rows<'_>, out: &mut [u8]) {
    const GROUP_BLOCKS: usize = GROUP / QS;
    for (x, out) in rows.x.chunks(GROUP_BLOCKS * BLOCK_LEN).zip(out.chunks_mut(GROUP_BLOCKS * BLOCK_BYTES)) {
        let mut largest = [0.0; GROUP];
        for (largest, x) in largest.iter_mut().zip(x.chunks_exact(SUB)) {
            *largest = abs_max_along(s, x);
        }
        let (codes, half_scales) = group_scales(s, &largest);
        for (b, (x, out)) in x.chunks_exact(BLOCK_LEN).zip(out.chunks_exact_mut(BLOCK_BYTES)).enumerate() {
            let (scales, qs) = out.split_at_mut(QS);
            scales.copy_from_slice(&codes[QS * b..][..QS]);
            for (i, (x, qs)) in x.chunks_exact(SUB).zip(qs.chunks_exact_mut(SUB / 2)).enumerate() {
                let half_scale = half_scales[QS * b + i];
                let mut q = [0; SUB];
                if largest[QS * b + i] <= 65536.0 * half_scale {
                    let limits = Limits::new(s, half_scale);
                    for (x, q) in x.chunks_exact(S::LANES).zip(q.chunks_exact_mut(S::LANES)) {
                        s.store_bytes(limits.nearest(s, s.load(x)), q);
                    }
                } else {
                    q = nearest_16_ref(x, half_scale);
                }
                let q = u128::from_le_bytes(q);
                // Four bits each: the shift moves none into a neighbour.
                qs.copy_from_slice(&(q as u64 | ((q >> 64) as u64) << 4).to_le_bytes());
            }
        }
    }
}

/// The scale codes of a group of sub-blocks with these largest magnitudes, one per lane, and half the scales: [`encode_scale`]
/// and [`decode_half_scale`].
#[inline(always)]
fn group_scales<S: Simd>(s: S, largest: &[f32; GROUP]) -> ([u8; GROUP], [f32; GROUP]) {
    let (mut codes, mut half_scales) = ([0; GROUP], [0.0; GROUP]);
    for i in (0..GROUP).step_by(S::LANES) {
        let v = s.div(s.load(&largest[i..]), s.splat(6.0));
        let below_normal = s.lt(v, s.splat(1.0 / 64.0));
        let subnormal = s.imin(s.trunc(s.add(s.mul(v, s.splat(512.0)), s.splat(0.5))), s.isplat(7));
        let rounded = s.ishr(s.iadd(s.ishr(s.to_bits(v), 19), s.isplat(1)), 1);
        let normal = s.isub(rounded, s.isplat((127 - 7) << 3));
        let code = s.iselect(below_normal, subnormal, normal);
        // From here on the rounded exponent is 15 or more.
        let code = s.iselect(s.ge(v, s.splat(248.0)), s.isplat(0x7e), code);
        s.store_bytes(code, &mut codes[i..]);
        let normal = s.from_bits(s.ishl(s.iadd(code, s.isplat((127 - 8) << 3)), 20));
        let subnormal = s.mul(s.to_f32(code), s.splat(1.0 / 1024.0));
        s.store(s.select(s.lt(s.to_f32(code), s.splat(8.0)), subnormal, normal), &mut half_scales[i..]);
    }
    (codes, half_scales)
}

/// The rare sub-blocks outside the range of [`Limits::nearest`]: scale 0, or values far above the largest scale.
#[cold]
fn nearest_16_ref(x: &[f32], half_scale: f32) -> [u8; SUB] {
    let mut codes = [0; SUB];
    for (code, &x) in codes.iter_mut().zip(x) {
        *code = nearest_ref(x, half_scale);
    }
    codes
}

/// The UE4M3 code of v: four exponent bits with bias 7, three mantissa bits, rounded half up; at most 0x7e = 448, which is also
/// what 256 and above become.
fn encode_scale(v: f32) -> u8 {
    let exponent = (v.to_bits() >> 23) as i32 - 127 + 7;
    if v <= 0.0 {
        0
    } else if exponent >= 15 {
        0x7e
    } else if exponent <= 0 {
        trunc_i32(v * 512.0 + 0.5).min(7) as u8
    } else {
        // A carry out of the mantissa raises the exponent by itself.
        let mantissa = ((v.to_bits() >> 19) & 15) as i32;
        let code = (exponent << 3) + ((mantissa + 1) >> 1);
        (if code >= 15 << 3 { 0x7e } else { code }) as u8
    }
}

/// Half the UE4M3 number, because the E2M1 values are doubled; 0 for 0x7f, its NaN, and the top bit is not looked at.
#[inline(always)]
fn decode_half_scale(code: u8) -> f32 {
    let (exponent, mantissa) = (u32::from(code >> 3) & 15, u32::from(code & 7));
    if code == 0x7f {
        0.0
    } else if exponent == 0 {
        mantissa as f32 * (1.0 / 1024.0)
    } else {
        f32::from_bits((exponent + 127 - 8) << 23 | mantissa << 20)
    }
}

/// Inverse of [`quantize`].
pub(crate) fn dequantize(level: Level, packed: &[u8], out: &mut [f32]) {
    dispatch!(level, s => dequantize_along(s, packed, out), scalar => dequantize_ref(packed, out));
}

#[inline(always)]
fn dequantize_along<S: Simd>(s: S, packed: &[u8], out: &mut [f32]) {
    for (b, out) in packed.chunks_exact(BLOCK_BYTES).zip(out.chunks_exact_mut(BLOCK_LEN)) {
        let (scales, qs) = b.split_at(QS);
        for ((scale, qs), out) in scales.iter().zip(qs.chunks_exact(SUB / 2)).zip(out.chunks_exact_mut(SUB)) {
            let scale = s.splat(decode_half_scale(*scale));
            let q = codes(qs);
            for i in (0..SUB).step_by(S::LANES) {
                s.store(s.mul(s.lookup32(&DOUBLED_F32, s.load_u8(&q[i..])), scale), &mut out[i..]);
            }
        }
    }
}

fn dequantize_ref(packed: &[u8], out: &mut [f32]) {
    for (b, out) in packed.chunks_exact(BLOCK_BYTES).zip(out.chunks_exact_mut(BLOCK_LEN)) {
        let (scales, qs) = b.split_at(QS);
        for ((scale, qs), out) in scales.iter().zip(qs.chunks_exact(SUB / 2)).zip(out.chunks_exact_mut(SUB)) {
            for (out, q) in out.iter_mut().zip(codes(qs)) {
                *out = DOUBLED_F32[usize::from(q)] * decode_half_scale(*scale);
            }
        }
    }
}

/// The 16 codes of a sub-block in the order of its elements.
#[inline(always)]
fn codes(qs: &[u8]) -> [u8; SUB] {
    const LOW: u64 = 0x0f0f_0f0f_0f0f_0f0f;
    let q = u64::from_le_bytes(qs.try_into().expect("8 bytes"));
    (u128::from(q & LOW) | u128::from(q >> 4 & LOW) << 64).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scale_below_256_comes_back() {
        for code in 0..0x78 {
            assert_eq!(encode_scale(2.0 * decode_half_scale(code)), code, "{code:#x}");
        }
        assert_eq!(encode_scale(256.0), 0x7e);
    }

    #[test]
    fn scales_of_a_group_equal_those_of_each() {
        for bits in (0..0x5e80_0000u32).step_by(0x0002_0000 - 1).collect::<Vec<_>>().chunks_exact(GROUP) {
            let largest: [f32; GROUP] = std::array::from_fn(|i| f32::from_bits(bits[i]));
            let want = largest.map(|v| encode_scale(v / 6.0));
            for level in Level::all() {
                let (codes, half_scales) =
                    dispatch!(level, s => group_scales(s, &largest), scalar => (want, want.map(decode_half_scale)));
                assert_eq!(codes, want, "at {} from {:e}", level.name(), largest[0]);
                assert_eq!(half_scales, want.map(decode_half_scale), "at {}", level.name());
            }
        }
    }

    #[test]
    fn scales_round_half_up() {
        assert_eq!(encode_scale(1.0625), encode_scale(1.125));
        assert_eq!(encode_scale(1.9375), encode_scale(2.0));
        assert_eq!(encode_scale(f32::from_bits(1.0625f32.to_bits() - 1)), encode_scale(1.0));
    }
}
