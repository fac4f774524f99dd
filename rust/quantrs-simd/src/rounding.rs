//! The roundings that formats ask for, by name.

/// Round to an integer as ggml's `nearest_int` does: add 1.5 * 2^23, keep the low 23 bits of the result.
///
/// Half to even for |v| <= 4194303; outside that it is what the formula gives (NaN: 0, infinities: -4194304), which the
/// tiny-value blocks of real files do reach. Source: `nearest_int`, ggml `src/ggml-quants.c`.
#[inline(always)]
pub fn nearest_int_ggml(v: f32) -> i32 {
    (((v + 12_582_912.0).to_bits() & 0x007f_ffff) as i32) - 0x0040_0000
}

/// C's `roundf`: half away from zero.
#[inline(always)]
pub fn round_half_away(v: f32) -> f32 {
    v.round()
}

/// The float to integer cast of x86: toward zero; NaN and everything outside `i32` give `i32::MIN`.
#[inline(always)]
pub fn trunc_i32(v: f32) -> i32 {
    if (-2_147_483_648.0..2_147_483_648.0).contains(&v) { v as i32 } else { i32::MIN }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_int_rounds_half_to_even_and_follows_the_formula_outside() {
        for (v, want) in [(0.5, 0), (1.5, 2), (2.5, 2), (-0.5, 0), (-1.5, -2), (4_194_303.0, 4_194_303)] {
            assert_eq!(nearest_int_ggml(v), want, "{v}");
        }
        assert_eq!(nearest_int_ggml(f32::INFINITY), -0x40_0000);
        assert_eq!(nearest_int_ggml(f32::NEG_INFINITY), -0x40_0000);
        assert_eq!(nearest_int_ggml(f32::NAN), 0);
    }

    #[test]
    fn trunc_gives_the_x86_indefinite_value_out_of_range() {
        for v in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 2_147_483_648.0, -2_147_483_904.0] {
            assert_eq!(trunc_i32(v), i32::MIN, "{v}");
        }
        assert_eq!(trunc_i32(-2_147_483_648.0), i32::MIN);
        assert_eq!(trunc_i32(-1.9), -1);
        assert_eq!(trunc_i32(1.9), 1);
    }
}
