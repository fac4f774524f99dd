//! The search for the signed scale of Q3_K without importance: x ~ scale * (level - nmax), level in 0..=2 * nmax - 1.
//!
//! Minimises    sum of x^2 * (scale * l - x)^2, l = level - nmax
//! Search       levels at the inverse scale -nmax / max, then up to five rounds over the values: each moves to the level that is
//!              nearest under the scale that fits all others, when that improves the fit
//! Exact        equals `make_q3_quants` with do_rmse, ggml `src/ggml-quants.c`, FP contraction off

use super::sym::{EPS, signed_max};
use quantrs_simd::{Simd, nearest_int_ggml};

/// Rounds at most.
const ROUNDS: usize = 5;

/// The search over one sub-block, as ggml writes it: returns the scale and writes the levels.
pub(crate) fn q3iter_ref(nmax: i32, x: &[f32], levels: &mut [u8]) -> f32 {
    let max = signed_max(x);
    if max.abs() < EPS {
        levels.fill(0);
        return 0.0;
    }
    let nearest = |v: f32| nearest_int_ggml(v).clamp(-nmax, nmax - 1);
    let iscale = -(nmax as f32) / max;
    let (mut sumlx, mut suml2) = (0.0, 0.0);
    for (level, &x) in levels.iter_mut().zip(x) {
        let (l, w) = (nearest(iscale * x), x * x);
        *level = (l + nmax) as u8;
        sumlx += w * x * l as f32;
        suml2 += w * l as f32 * l as f32;
    }
    for _ in 0..ROUNDS {
        let mut changed = false;
        for (level, &x) in levels.iter_mut().zip(x) {
            let (l, w) = ((i32::from(*level) - nmax) as f32, x * x);
            let mut slx = sumlx - w * x * l;
            if slx > 0.0 {
                let mut sl2 = suml2 - w * l * l;
                let new = nearest(x * sl2 / slx);
                if new as f32 != l {
                    slx += w * x * new as f32;
                    sl2 += w * new as f32 * new as f32;
                    if sl2 > 0.0 && slx * slx * suml2 > sumlx * sumlx * sl2 {
                        *level = (new + nmax) as u8;
                        sumlx = slx;
                        suml2 = sl2;
                        changed = true;
                    }
                }
            }
        }
        if !changed {
            break;
        }
    }
    if suml2 > 0.0 { sumlx / suml2 } else { 0.0 }
}

/// The same search with one sub-block per lane: returns the scales only. The levels are seldom wanted: call [`q3iter_ref`].
#[inline(always)]
pub(crate) fn q3iter<S: Simd, const N: usize>(s: S, nmax: i32, x: &[S::F; N]) -> S::F {
    let zero = s.splat(0.0);
    let (mut max, mut amax) = (zero, zero);
    for &x in x {
        let larger = s.gt(s.abs(x), amax);
        amax = s.select(larger, s.abs(x), amax);
        max = s.select(larger, x, max);
    }
    // Lanes that count as zero compute along and are overwritten at the end.
    let is_zero = s.lt(amax, s.splat(EPS));
    let iscale = s.div(s.splat(-(nmax as f32)), max);
    let (mut sumlx, mut suml2) = (zero, zero);
    let (mut levels, mut weights, mut weighted) = ([zero; N], [zero; N], [zero; N]);
    for i in 0..N {
        let w = s.mul(x[i], x[i]);
        let wx = s.mul(w, x[i]);
        let l = s.nearest_clamped_in_range(s.mul(iscale, x[i]), -nmax, nmax - 1);
        sumlx = s.add(sumlx, s.mul(wx, l));
        suml2 = s.add(suml2, s.mul(s.mul(w, l), l));
        (levels[i], weights[i], weighted[i]) = (l, w, wx);
    }
    for _ in 0..ROUNDS {
        // A lane without change in a round repeats that round, so it may go on until all lanes are still. The changes are
        // gathered in a float vector: masks would have to leave the mask registers in every step.
        let mut changed = zero;
        for i in 0..N {
            let (l, w, wx) = (levels[i], weights[i], weighted[i]);
            let slx = s.sub(sumlx, s.mul(wx, l));
            let sl2 = s.sub(suml2, s.mul(s.mul(w, l), l));
            let new = s.nearest_clamped(s.div(s.mul(x[i], sl2), slx), -nmax, nmax - 1);
            let new_slx = s.add(slx, s.mul(wx, new));
            let new_sl2 = s.add(sl2, s.mul(s.mul(w, new), new));
            let better = s.gt(s.mul(s.mul(new_slx, new_slx), suml2), s.mul(s.mul(sumlx, sumlx), new_sl2));
            let allowed = s.both(s.both(s.gt(slx, zero), s.gt(new_sl2, zero)), s.ne(new, l));
            let moved = s.both(allowed, better);
            levels[i] = s.select(moved, new, l);
            sumlx = s.select(moved, new_slx, sumlx);
            suml2 = s.select(moved, new_sl2, suml2);
            changed = s.select(moved, s.splat(1.0), changed);
        }
        if !s.any(s.gt(changed, zero)) {
            break;
        }
    }
    let solved = s.and_not(s.gt(suml2, zero), is_zero);
    s.select(solved, s.div(sumlx, suml2), zero)
}
