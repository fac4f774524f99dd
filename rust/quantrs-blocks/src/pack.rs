//! Bit orders shared by several formats.

use quantrs_simd::{f16_bits, f16_value};

/// `v` rounded to f16, little-endian.
#[inline(always)]
pub(crate) fn put_f16(out: &mut [u8], v: f32) {
    out[..2].copy_from_slice(&f16_bits(v).to_le_bytes());
}

/// The f16 at the start of `b`, widened.
#[inline(always)]
pub(crate) fn get_f16(b: &[u8]) -> f32 {
    f16_value(u16::from_le_bytes([b[0], b[1]]))
}

/// Eight 6-bit scales and eight 6-bit mins in 12 bytes (Q4_K, Q5_K).
///
/// Sub-blocks 0..4 have their six bits in bytes 0..4 (scale) and 4..8 (min); sub-blocks 4..8 have four bits of each in bytes
/// 8..12 and the upper two bits on top of the bytes of sub-block - 4.
pub(crate) fn pack_scales_mins(scales: &[u8; 8], mins: &[u8; 8]) -> [u8; 12] {
    let mut out = [0; 12];
    for j in 0..4 {
        out[j] = (scales[j] & 63) | (scales[j + 4] >> 4) << 6;
        out[j + 4] = (mins[j] & 63) | (mins[j + 4] >> 4) << 6;
        out[j + 8] = (scales[j + 4] & 15) | mins[j + 4] << 4;
    }
    out
}

/// Inverse of [`pack_scales_mins`].
#[inline(always)]
pub(crate) fn unpack_scales_mins(packed: &[u8]) -> ([u8; 8], [u8; 8]) {
    let s: &[u8; 12] = packed[..12].try_into().expect("12 bytes");
    let (mut scales, mut mins) = ([0; 8], [0; 8]);
    for j in 0..4 {
        scales[j] = s[j] & 63;
        mins[j] = s[j + 4] & 63;
        scales[j + 4] = (s[j + 8] & 15) | (s[j] >> 6) << 4;
        mins[j + 4] = (s[j + 8] >> 4) | (s[j + 4] >> 6) << 4;
    }
    (scales, mins)
}

/// Two bits of each of 256 levels in 64 bytes (Q2_K, Q3_K): bits 2p of byte 32n + l are element 128n + 32p + l.
#[inline(always)]
pub(crate) fn put_two_bit_planes(q: &[u8; 256], out: &mut [u8]) {
    for (out, q) in out[..64].chunks_exact_mut(32).zip(q.chunks_exact(128)) {
        for l in 0..32 {
            out[l] = (q[l] & 3) | (q[l + 32] & 3) << 2 | (q[l + 64] & 3) << 4 | q[l + 96] << 6;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_and_mins_come_back() {
        for seed in 0..64u8 {
            let scales = std::array::from_fn(|j| (seed.wrapping_mul(7).wrapping_add(j as u8 * 11)) & 63);
            let mins = std::array::from_fn(|j| (seed.wrapping_mul(5).wrapping_add(j as u8 * 29)) & 63);
            assert_eq!(unpack_scales_mins(&pack_scales_mins(&scales, &mins)), (scales, mins));
        }
    }
}
