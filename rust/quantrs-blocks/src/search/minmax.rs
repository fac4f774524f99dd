//! The search for a scale and a minimum: w ~ scale * level - minus_min, level in 0..=nmax.
//!
//! Minimises    sum of weight * (scale * level + min - x)^2 (`mad`: absolute instead of squared error), min <= 0
//! Search       levels from a plain min-max fit, then `nstep + 1` other inverse scales; for each the least-squares scale and
//!              minimum of its levels. A better candidate replaces the minimum that later candidates start from
//! Exact        equals `make_qkx2_quants` and `make_qkx3_quants`, ggml `src/ggml-quants.c`, FP contraction off

use crate::lanes::{get_lane, set_lane};
use quantrs_simd::{Simd, nearest_int_ggml};

/// What distinguishes the formats that use this search.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MinMax {
    /// Largest level.
    pub(crate) nmax: i32,
    /// First offset of the inverse scale's numerator from `nmax`.
    pub(crate) rmin: f32,
    /// Step of that offset.
    pub(crate) rdelta: f32,
    /// Number of steps; `nstep + 1` candidates are tried.
    pub(crate) nstep: i32,
    /// Whether the error is absolute instead of squared.
    pub(crate) mad: bool,
}

impl MinMax {
    #[inline(always)]
    fn numerator(&self, step: i32) -> f32 {
        (self.rmin + self.rdelta * step as f32) + self.nmax as f32
    }
}

/// Result of a search: of one sub-block (`f32`) or of one per lane (`S::F`).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MinMaxFit<F = f32> {
    /// Scale, >= 0 unless the input is degenerate.
    pub(crate) scale: F,
    /// The minimum, negated: >= 0.
    pub(crate) minus_min: F,
    /// The levels are `clamp(nearest_int(iscale * (x - level_min)), 0, nmax)`.
    pub(crate) iscale: F,
    /// See `iscale`; not the final minimum.
    pub(crate) level_min: F,
}

impl MinMaxFit {
    /// The level that the search left for `x`.
    #[inline(always)]
    pub(crate) fn level(&self, x: f32, nmax: i32) -> u8 {
        nearest_int_ggml(self.iscale * (x - self.level_min)).clamp(0, nmax) as u8
    }
}

/// The search over one sub-block, as ggml writes it.
pub(crate) fn minmax_ref(p: &MinMax, x: &[f32], weights: &[f32]) -> MinMaxFit {
    let nmax = p.nmax as f32;
    let (mut min, mut max) = (x[0], x[0]);
    let mut sum_w = weights[0];
    let mut sum_x = sum_w * x[0];
    for (&x, &w) in x.iter().zip(weights).skip(1) {
        if x < min {
            min = x;
        }
        if x > max {
            max = x;
        }
        sum_w += w;
        sum_x += w * x;
    }
    if min > 0.0 {
        min = 0.0;
    }
    if max == min {
        return MinMaxFit { scale: 0.0, minus_min: -min, iscale: 0.0, level_min: min };
    }
    let error = |scale: f32, min: f32, level: &dyn Fn(f32) -> f32| {
        let mut sum = 0.0;
        for (&x, &w) in x.iter().zip(weights) {
            let diff = scale * level(x) + min - x;
            sum += w * if p.mad { diff.abs() } else { diff * diff };
        }
        sum
    };
    let level_at = |iscale: f32, min: f32| move |x: f32| nearest_int_ggml(iscale * (x - min)).clamp(0, p.nmax) as f32;

    let iscale = nmax / (max - min);
    let mut fit = MinMaxFit { scale: 1.0 / iscale, minus_min: 0.0, iscale, level_min: min };
    let mut best = error(fit.scale, min, &level_at(iscale, min));
    for step in 0..=p.nstep {
        let iscale = p.numerator(step) / (max - min);
        let level = level_at(iscale, min);
        let (mut sum_l, mut sum_l2, mut sum_xl) = (0.0, 0.0, 0.0);
        for (&x, &w) in x.iter().zip(weights) {
            let l = level(x);
            sum_l += w * l;
            sum_l2 += w * l * l;
            sum_xl += w * l * x;
        }
        let d = sum_w * sum_l2 - sum_l * sum_l;
        if d > 0.0 {
            let mut this_scale = (sum_w * sum_xl - sum_x * sum_l) / d;
            let mut this_min = (sum_l2 * sum_x - sum_l * sum_xl) / d;
            if this_min > 0.0 {
                this_min = 0.0;
                this_scale = sum_xl / sum_l2;
            }
            let e = error(this_scale, this_min, &level);
            if e < best {
                best = e;
                fit = MinMaxFit { scale: this_scale, minus_min: 0.0, iscale, level_min: min };
                min = this_min;
            }
        }
    }
    fit.minus_min = -min;
    fit
}

/// The same search with one sub-block per lane.
#[inline(always)]
pub(crate) fn minmax<S: Simd, const N: usize>(s: S, p: &MinMax, x: &[S::F; N], weights: &[S::F; N]) -> MinMaxFit<S::F> {
    let zero = s.splat(0.0);
    let (mut smallest, mut max) = (x[0], x[0]);
    let mut sum_w = weights[0];
    let mut sum_x = s.mul(sum_w, x[0]);
    for i in 1..N {
        smallest = s.min(x[i], smallest);
        max = s.max(x[i], max);
        sum_w = s.add(sum_w, weights[i]);
        sum_x = s.add(sum_x, s.mul(weights[i], x[i]));
    }
    let first_min = s.select(s.gt(smallest, zero), zero, smallest);
    let flat = s.eq(max, first_min);
    let mut min = first_min;
    let mut iscale = s.div(s.splat(p.nmax as f32), s.sub(max, min));
    let mut scale = s.div(s.splat(1.0), iscale);
    let mut level_min = min;
    let mut best = zero;
    let mut exact = s.either(flat, in_range(s, iscale, min, smallest, max));
    for i in 0..N {
        let l = level(s, p, iscale, min, x[i]);
        best = s.add(best, error(s, p, scale, min, l, x[i], weights[i]));
    }
    let mut levels = [zero; N];
    for step in 0..=p.nstep {
        let this_iscale = s.div(s.splat(p.numerator(step)), s.sub(max, min));
        exact = s.both(exact, s.either(flat, in_range(s, this_iscale, min, smallest, max)));
        let (mut sum_l, mut sum_l2, mut sum_xl) = (zero, zero, zero);
        for i in 0..N {
            let l = level(s, p, this_iscale, min, x[i]);
            levels[i] = l;
            let wl = s.mul(weights[i], l);
            sum_l = s.add(sum_l, wl);
            sum_l2 = s.add(sum_l2, s.mul(wl, l));
            sum_xl = s.add(sum_xl, s.mul(wl, x[i]));
        }
        let d = s.sub(s.mul(sum_w, sum_l2), s.mul(sum_l, sum_l));
        let solvable = s.gt(d, zero);
        let this_scale = s.div(s.sub(s.mul(sum_w, sum_xl), s.mul(sum_x, sum_l)), d);
        let this_min = s.div(s.sub(s.mul(sum_l2, sum_x), s.mul(sum_l, sum_xl)), d);
        let positive = s.gt(this_min, zero);
        let this_scale = s.select(positive, s.div(sum_xl, sum_l2), this_scale);
        let this_min = s.select(positive, zero, this_min);
        let mut e = zero;
        for i in 0..N {
            e = s.add(e, error(s, p, this_scale, this_min, levels[i], x[i], weights[i]));
        }
        let better = s.both(solvable, s.lt(e, best));
        best = s.select(better, e, best);
        scale = s.select(better, this_scale, scale);
        iscale = s.select(better, this_iscale, iscale);
        level_min = s.select(better, min, level_min);
        min = s.select(better, this_min, min);
    }

    let mut fit = MinMaxFit {
        scale: s.select(flat, zero, scale),
        minus_min: s.neg(s.select(flat, first_min, min)),
        iscale: s.select(flat, zero, iscale),
        level_min: s.select(flat, first_min, level_min),
    };
    // Values that are tiny, or far from zero and close to each other, leave the range: they are searched again by the book.
    let inexact = s.bitmask(s.and_not(s.eq(zero, zero), exact));
    for j in (0..S::LANES).filter(|j| inexact >> j & 1 != 0) {
        let again = minmax_ref(p, &get_lane(s, x, j), &get_lane(s, weights, j));
        fit.scale = set_lane(s, fit.scale, j, again.scale);
        fit.minus_min = set_lane(s, fit.minus_min, j, again.minus_min);
        fit.iscale = set_lane(s, fit.iscale, j, again.iscale);
        fit.level_min = set_lane(s, fit.level_min, j, again.level_min);
    }
    fit
}

/// The level of `x`, given [`in_range`].
#[inline(always)]
fn level<S: Simd>(s: S, p: &MinMax, iscale: S::F, min: S::F, x: S::F) -> S::F {
    s.nearest_clamped_in_range(s.mul(iscale, s.sub(x, min)), 0, p.nmax)
}

/// Where the fast rounding of the levels is exact. Before rounding they are monotone in x, so their ends tell.
#[inline(always)]
fn in_range<S: Simd>(s: S, iscale: S::F, min: S::F, smallest: S::F, largest: S::F) -> S::M {
    let limit = s.splat(2_097_152.0);
    let low = s.abs(s.mul(iscale, s.sub(smallest, min)));
    let high = s.abs(s.mul(iscale, s.sub(largest, min)));
    s.both(s.lt(low, limit), s.lt(high, limit))
}

/// The weighted error of `x` at level `l`.
#[inline(always)]
fn error<S: Simd>(s: S, p: &MinMax, scale: S::F, min: S::F, l: S::F, x: S::F, weight: S::F) -> S::F {
    let diff = s.sub(s.add(s.mul(scale, l), min), x);
    s.mul(weight, if p.mad { s.abs(diff) } else { s.mul(diff, diff) })
}
