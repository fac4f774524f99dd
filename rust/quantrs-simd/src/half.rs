//! The 16-bit floats as plain code without branches, which compilers vectorize where the CPU has no instruction for them.

/// `v` rounded to the nearest IEEE binary16, half to even; subnormals are kept, |v| >= 65520 gives infinity, and a NaN gives
/// 0x7e00 with the sign of `v`.
#[inline(always)]
pub fn f16_bits(v: f32) -> u16 {
    let bits = v.to_bits();
    let sign = (bits >> 16) & 0x8000;
    let magnitude = bits & 0x7fff_ffff;
    // Below 2^-14 the result is a multiple of 2^-24, which is the spacing of f32 just above one half: adding one half rounds.
    let subnormal = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
    // Above: rebias the exponent by 15 - 127 and round away the low 13 bits; a carry may run into the exponent.
    let odd = (magnitude >> 13) & 1;
    let normal = magnitude.wrapping_sub(112 << 23).wrapping_add(0xfff + odd) >> 13;
    let finite = if magnitude < 0x3880_0000 { subnormal } else { normal };
    let special = if magnitude > 0x7f80_0000 { 0x7e00 } else { 0x7c00 };
    let magnitude = if magnitude < 0x4780_0000 { finite } else { special };
    (sign | magnitude) as u16
}

/// The f32 equal to the IEEE binary16 with these bits; a NaN stays a NaN.
#[inline(always)]
pub fn f16_value(bits: u16) -> f32 {
    let bits = u32::from(bits);
    let magnitude = (bits & 0x7fff) << 13;
    // Read as f32 the exponent is 127 - 15 too small; the product is exact, also where the operand is subnormal.
    let finite = (f32::from_bits(magnitude) * f32::from_bits((127 + 112) << 23)).to_bits();
    let value = if magnitude < 0x0f80_0000 { finite } else { magnitude | 0x7f80_0000 };
    f32::from_bits((bits & 0x8000) << 16 | value)
}

/// `v` rounded to the nearest bfloat16, half to even; a NaN keeps its upper bits and becomes quiet.
#[inline(always)]
pub fn bf16_bits(v: f32) -> u16 {
    let bits = v.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    let nan = (bits >> 16) | 0x40;
    (if bits & 0x7fff_ffff > 0x7f80_0000 { nan } else { rounded }) as u16
}

/// The f32 equal to the bfloat16 with these bits.
#[inline(always)]
pub fn bf16_value(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Level, Simd, dispatch};
    use half::{bf16, f16};

    #[test]
    fn every_f16_and_bf16_widens_to_what_the_half_crate_says() {
        for bits in 0..=u16::MAX {
            let (got, want) = (f16_value(bits), f16::from_bits(bits).to_f32());
            assert!(
                got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan()),
                "f16 {bits:#06x}: {got}, not {want}"
            );
            let (got, want) = (bf16_value(bits), bf16::from_bits(bits).to_f32());
            assert!(
                got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan()),
                "bf16 {bits:#06x}: {got}, not {want}"
            );
        }
    }

    /// Every f16 and bf16, the floats half-way between neighbours, and the floats next to all of these.
    fn hard_values() -> Vec<f32> {
        let mut values = Vec::new();
        for bits in 0..=u16::MAX {
            for shift in [13, 16] {
                let value = if shift == 13 { f16_value(bits) } else { bf16_value(bits) }.to_bits();
                let half_way = value.wrapping_add(1 << (shift - 1));
                values.extend([value, half_way].iter().flat_map(|v| [v.wrapping_sub(1), *v, v.wrapping_add(1)]));
            }
        }
        values.into_iter().map(f32::from_bits).collect()
    }

    #[test]
    fn rounding_to_16_bits_is_what_the_half_crate_does() {
        for v in hard_values() {
            if v.is_nan() {
                assert_eq!(f16_bits(v) & 0x7fff, 0x7e00, "{:#010x}", v.to_bits());
                assert!(bf16::from_bits(bf16_bits(v)).is_nan(), "{:#010x}", v.to_bits());
            } else {
                assert_eq!(f16_bits(v), f16::from_f32(v).to_bits(), "f16 of {v:e}");
                assert_eq!(bf16_bits(v), bf16::from_f32(v).to_bits(), "bf16 of {v:e}");
            }
        }
    }

    fn to_f16_and_back<S: Simd>(s: S, x: &[f32], bits: &mut [u8], back: &mut [f32]) {
        for i in (0..x.len()).step_by(S::LANES) {
            s.store_f16(s.load(&x[i..]), &mut bits[2 * i..]);
            s.store(s.load_f16(&bits[2 * i..]), &mut back[i..]);
        }
    }

    #[test]
    fn every_level_converts_f16_alike() {
        let mut x = hard_values();
        x.retain(|v| !v.is_nan());
        x.resize(x.len().next_multiple_of(16), 0.0);
        for level in Level::all() {
            let (mut bits, mut back) = (vec![0; 2 * x.len()], vec![0.0; x.len()]);
            dispatch!(level, s => to_f16_and_back(s, &x, &mut bits, &mut back), scalar => continue);
            for ((v, bits), back) in x.iter().zip(bits.chunks_exact(2)).zip(back) {
                let bits = u16::from_le_bytes([bits[0], bits[1]]);
                assert_eq!(bits, f16_bits(*v), "{v:e} at {}", level.name());
                assert_eq!(back.to_bits(), f16_value(bits).to_bits(), "{bits:#06x} at {}", level.name());
            }
        }
    }
}
