//! What the ternary formats share: the scale is the largest magnitude, the levels are -1, 0 and 1.

use quantrs_simd::{Simd, round_half_away};

/// `lround(v) + 1` narrowed to an int: half away from zero, and 1 for v infinite or NaN, whose `long` has zero low bits.
pub(crate) fn trit_ref(v: f32) -> u8 {
    let rounded = round_half_away(v);
    let low = if rounded.abs() < 9.223_372e18 { rounded as i64 as i32 } else { 0 };
    (low + 1) as u8
}

/// The trits of a whole number of vectors, `round_half_away(x * id) + 1` with `id` the inverse of a magnitude that no |x|
/// exceeds. An infinite `id` makes every product infinite or NaN: all trits become `lost`.
///
/// Products lie within a rounding of -1..=1, so comparisons with the two ties decide.
#[inline(always)]
pub(crate) fn store_trits<S: Simd>(s: S, x: &[f32], id: f32, lost: u8, trits: &mut [u8]) {
    if id.is_infinite() {
        trits.fill(lost);
        return;
    }
    let (zero, one, two) = (s.isplat(0), s.isplat(1), s.isplat(2));
    for (x, trits) in x.chunks_exact(S::LANES).zip(trits.chunks_exact_mut(S::LANES)) {
        let v = s.mul(s.load(x), s.splat(id));
        let up = s.iselect(s.ge(v, s.splat(0.5)), two, one);
        s.store_bytes(s.iselect(s.le(v, s.splat(-0.5)), zero, up), trits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quantrs_simd::{Level, dispatch};

    #[test]
    fn trits_equal_their_reference_next_to_every_tie() {
        let below_half = f32::from_bits(0.5f32.to_bits() - 1);
        let x: Vec<f32> = [0.0, below_half, 0.5, 0.75, 1.0, 1.0 + f32::EPSILON, 1e-30, f32::MIN_POSITIVE]
            .into_iter()
            .flat_map(|v| [v, -v])
            .collect();
        for level in Level::all() {
            let mut trits = [9; 16];
            dispatch!(level, s => store_trits(s, &x, 1.0, 1, &mut trits), scalar => {
                for (t, &x) in trits.iter_mut().zip(&x) {
                    *t = trit_ref(x);
                }
            });
            assert_eq!(trits, [1, 1, 1, 1, 2, 0, 2, 0, 2, 0, 2, 0, 1, 1, 1, 1], "{}", level.name());
        }
    }

    #[test]
    fn infinite_and_nan_quotients_become_zero() {
        assert_eq!([f32::INFINITY, f32::NEG_INFINITY, f32::NAN].map(trit_ref), [1; 3]);
    }
}
