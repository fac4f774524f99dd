//! The search for a scale of non-negative values: x ~ scale * level, level in 0..=nmax.
//!
//! Minimises    sum of weight * (x - scale * level)^2
//! Search       nine inverse scales around nmax / max, then up to five rounds that move single levels
//! Exact        equals `make_qp_quants`, ggml `src/ggml-quants.c`, FP contraction off

use quantrs_simd::{Simd, nearest_int_ggml};

/// Values below this count as zero.
const EPS: f32 = 1e-15;

/// The search as ggml writes it: returns the scale and writes the levels (8 bits of each are kept; a negative x wraps).
pub(crate) fn pos_ref(nmax: i32, x: &[f32], weights: &[f32], levels: &mut [u8]) -> f32 {
    let max = x.iter().fold(0.0, |max, &x| if x > max { x } else { max });
    if max < EPS {
        levels.fill(0);
        return 0.0;
    }
    let mut iscale = nmax as f32 / max;
    for (l, &x) in levels.iter_mut().zip(x) {
        *l = nearest_int_ggml(iscale * x) as u8;
    }
    let scale = 1.0 / iscale;
    let mut best = 0.0;
    for ((&l, &x), &w) in levels.iter().zip(x).zip(weights) {
        let diff = x - scale * f32::from(l);
        best += w * diff * diff;
    }
    for step in (-4..=4).filter(|&step| step != 0) {
        let this_iscale = (0.1 * step as f32 + nmax as f32) / max;
        let this_scale = 1.0 / this_iscale;
        let mut error = 0.0;
        for (&x, &w) in x.iter().zip(weights) {
            let l = nearest_int_ggml(this_iscale * x).min(nmax);
            let diff = x - this_scale * l as f32;
            error += w * diff * diff;
        }
        if error < best {
            best = error;
            iscale = this_iscale;
        }
    }
    let (mut sumlx, mut suml2) = (0.0, 0.0);
    for ((level, &x), &w) in levels.iter_mut().zip(x).zip(weights) {
        let l = nearest_int_ggml(iscale * x).min(nmax);
        *level = l as u8;
        sumlx += w * x * l as f32;
        suml2 += w * l as f32 * l as f32;
    }
    for _ in 0..5 {
        let mut changed = false;
        for ((level, &x), &w) in levels.iter_mut().zip(x).zip(weights) {
            let l = f32::from(*level);
            let mut slx = sumlx - w * x * l;
            let mut sl2 = suml2 - w * l * l;
            if slx > 0.0 && sl2 > 0.0 {
                let new = nearest_int_ggml(x * sl2 / slx).min(nmax);
                if new != i32::from(*level) {
                    slx += w * x * new as f32;
                    sl2 += w * new as f32 * new as f32;
                    if slx * slx * suml2 > sumlx * sumlx * sl2 {
                        *level = new as u8;
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

/// The same search with one set of values per lane: returns the scales and the levels, 0..=255.
#[inline(always)]
pub(crate) fn pos<S: Simd, const N: usize>(s: S, nmax: i32, x: &[S::F; N], weights: &[S::F; N]) -> (S::F, [S::I; N]) {
    let zero = s.splat(0.0);
    let mut max = zero;
    for &x in x {
        max = s.max(x, max);
    }
    // Lanes that count as zero compute along and are overwritten at the end.
    let is_zero = s.lt(max, s.splat(EPS));
    let mut iscale = s.div(s.splat(nmax as f32), max);
    let scale = s.div(s.splat(1.0), iscale);
    let mut best = zero;
    for i in 0..N {
        let l = s.iand(s.nearest_int(s.mul(iscale, x[i])), s.isplat(255));
        best = s.add(best, error(s, scale, l, x[i], weights[i]));
    }
    for step in (-4..=4).filter(|&step| step != 0) {
        let this_iscale = s.div(s.splat(0.1 * step as f32 + nmax as f32), max);
        let this_scale = s.div(s.splat(1.0), this_iscale);
        let mut sum = zero;
        for i in 0..N {
            let l = nearest_up_to(s, s.mul(this_iscale, x[i]), nmax);
            sum = s.add(sum, error(s, this_scale, l, x[i], weights[i]));
        }
        let better = s.lt(sum, best);
        best = s.select(better, sum, best);
        iscale = s.select(better, this_iscale, iscale);
    }
    let (mut sumlx, mut suml2) = (zero, zero);
    let mut levels = [s.isplat(0); N];
    for i in 0..N {
        let l = nearest_up_to(s, s.mul(iscale, x[i]), nmax);
        levels[i] = s.iand(l, s.isplat(255));
        let l = s.to_f32(l);
        sumlx = s.add(sumlx, s.mul(s.mul(weights[i], x[i]), l));
        suml2 = s.add(suml2, s.mul(s.mul(weights[i], l), l));
    }
    for _ in 0..5 {
        // A lane without change in a round repeats that round, so it may go on until all lanes are still.
        let mut any_changed = s.lt(zero, zero);
        for i in 0..N {
            let weighted = s.mul(weights[i], x[i]);
            let l = s.to_f32(levels[i]);
            let slx = s.sub(sumlx, s.mul(weighted, l));
            let sl2 = s.sub(suml2, s.mul(s.mul(weights[i], l), l));
            let new = nearest_up_to(s, s.div(s.mul(x[i], sl2), slx), nmax);
            let l = s.to_f32(new);
            let new_slx = s.add(slx, s.mul(weighted, l));
            let new_sl2 = s.add(sl2, s.mul(s.mul(weights[i], l), l));
            let better = s.gt(s.mul(s.mul(new_slx, new_slx), suml2), s.mul(s.mul(sumlx, sumlx), new_sl2));
            let moved = s.both(s.both(s.gt(slx, zero), s.gt(sl2, zero)), better);
            let moved = s.and_not(moved, s.ieq(new, levels[i]));
            levels[i] = s.iselect(moved, s.iand(new, s.isplat(255)), levels[i]);
            sumlx = s.select(moved, new_slx, sumlx);
            suml2 = s.select(moved, new_sl2, suml2);
            any_changed = s.either(any_changed, moved);
        }
        if !s.any(any_changed) {
            break;
        }
    }
    for level in &mut levels {
        *level = s.iselect(is_zero, s.isplat(0), *level);
    }
    let solved = s.and_not(s.gt(suml2, zero), is_zero);
    (s.select(solved, s.div(sumlx, suml2), zero), levels)
}

#[inline(always)]
fn nearest_up_to<S: Simd>(s: S, v: S::F, nmax: i32) -> S::I {
    s.imin(s.nearest_int(v), s.isplat(nmax))
}

/// The weighted squared error of `x` at level `l`.
#[inline(always)]
fn error<S: Simd>(s: S, scale: S::F, l: S::I, x: S::F, weight: S::F) -> S::F {
    let diff = s.sub(x, s.mul(scale, s.to_f32(l)));
    s.mul(s.mul(weight, diff), diff)
}
