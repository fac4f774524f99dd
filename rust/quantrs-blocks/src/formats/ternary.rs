//! What the ternary formats share: the scale is the largest magnitude, the levels are -1, 0 and 1.

use quantrs_simd::round_half_away;

/// Largest |x| of finite values: a maximum of bit patterns, which is the order of magnitudes and has no order of evaluation.
#[inline(always)]
pub(crate) fn largest_magnitude(x: &[f32]) -> f32 {
    f32::from_bits(x.iter().fold(0, |max, x| max.max(x.to_bits() & 0x7fff_ffff)))
}

/// Largest |x|, as ggml finds it.
pub(crate) fn largest_magnitude_ref(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |max, x| if x.abs() > max { x.abs() } else { max })
}

/// 1 / d, or 0 for a zero block. Infinite for d below 2^-128.
#[inline(always)]
pub(crate) fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// `lround(v) + 1` narrowed to an int: half away from zero, and 1 for v infinite or NaN, whose `long` has zero low bits.
pub(crate) fn trit_ref(v: f32) -> u8 {
    let rounded = round_half_away(v);
    let low = if rounded.abs() < 9.223_372e18 { rounded as i64 as i32 } else { 0 };
    (low + 1) as u8
}

/// As [`trit_ref`] for |v| < 2, infinities and NaN: all that x / largest magnitude can be.
#[inline(always)]
pub(crate) fn trit(v: f32) -> u8 {
    let up = (0.5..2.0).contains(&v);
    let down = (0.5..2.0).contains(&-v);
    (1 + i32::from(up) - i32::from(down)) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trit_equals_its_reference_next_to_every_tie_and_for_non_finite_quotients() {
        let below_half = f32::from_bits(0.5f32.to_bits() - 1);
        for v in [0.0, below_half, 0.5, 0.75, 1.0, 1.0 + f32::EPSILON, f32::INFINITY, f32::NAN] {
            for v in [v, -v] {
                assert_eq!(trit(v), trit_ref(v), "{v}");
            }
        }
        assert_eq!([-1.0, -0.5, -below_half, 0.5, f32::INFINITY].map(trit), [0, 0, 1, 2, 1]);
    }
}
