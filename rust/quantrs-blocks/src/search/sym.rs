//! The search for a signed scale: x ~ scale * (level - nmax), level in 0..=2 * nmax - 1.
//!
//! Minimises    sum of weight * (scale * l - x)^2, l = level - nmax
//! Search       levels at the inverse scale -nmax / max, where max is the value of largest magnitude (the first of equals), and
//!              at 18 others around it; for each the least-squares scale of its levels. A later candidate wins only when better
//! Exact        equals `make_qx_quants` with rmse_type 1, ggml `src/ggml-quants.c`, FP contraction off

use quantrs_simd::{Simd, nearest_int_ggml};

/// Magnitudes below this count as zero.
pub(crate) const EPS: f32 = 1e-15;

/// Result of a search: of one sub-block (`f32`) or of one per lane (`S::F`).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SymFit<F = f32> {
    /// Scale, of either sign.
    pub(crate) scale: F,
    /// The levels are `clamp(nearest_int(iscale * x), -nmax, nmax - 1) + nmax`; 0 marks a sub-block that counts as zero.
    pub(crate) iscale: F,
}

impl SymFit {
    /// The level that the search left for `x`, in `0..=2 * nmax - 1`. A sub-block that counts as zero has level 0, not `nmax`.
    #[inline(always)]
    pub(crate) fn level(&self, x: f32, nmax: i32) -> u8 {
        if self.iscale == 0.0 {
            return 0;
        }
        (nearest_int_ggml(self.iscale * x).clamp(-nmax, nmax - 1) + nmax) as u8
    }
}

/// The steps of the inverse scale that are tried after the first, in ggml's order.
fn steps() -> impl Iterator<Item = f32> {
    (-9..=9).filter(|&step| step != 0).map(|step| step as f32)
}

/// The value of largest magnitude, sign kept; the first of equals.
#[inline(always)]
pub(crate) fn signed_max(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |max: f32, &x| if x.abs() > max.abs() { x } else { max })
}

/// The search over one sub-block, as ggml writes it. Where ggml's weights are null, pass `x * x`.
pub(crate) fn sym_ref(nmax: i32, x: &[f32], weights: &[f32]) -> SymFit {
    let max = signed_max(x);
    if max.abs() < EPS {
        return SymFit::default();
    }
    let sums = |iscale: f32| {
        let (mut sumlx, mut suml2) = (0.0, 0.0);
        for (&x, &w) in x.iter().zip(weights) {
            let l = nearest_int_ggml(iscale * x).clamp(-nmax, nmax - 1) as f32;
            sumlx += w * x * l;
            suml2 += w * l * l;
        }
        (sumlx, suml2)
    };
    let iscale = -(nmax as f32) / max;
    let (sumlx, suml2) = sums(iscale);
    let scale = if suml2 != 0.0 { sumlx / suml2 } else { 0.0 };
    let mut fit = SymFit { scale, iscale };
    let mut best = scale * sumlx;
    for step in steps() {
        let iscale = -(nmax as f32 + 0.1 * step) / max;
        let (sumlx, suml2) = sums(iscale);
        if suml2 > 0.0 && sumlx * sumlx > best * suml2 {
            fit = SymFit { scale: sumlx / suml2, iscale };
            best = fit.scale * sumlx;
        }
    }
    fit
}

/// The same search with one sub-block per lane.
#[inline(always)]
pub(crate) fn sym<S: Simd, const N: usize>(s: S, nmax: i32, x: &[S::F; N], weights: &[S::F; N]) -> SymFit<S::F> {
    let zero = s.splat(0.0);
    let (mut max, mut amax) = (zero, zero);
    for &x in x {
        let larger = s.gt(s.abs(x), amax);
        amax = s.select(larger, s.abs(x), amax);
        max = s.select(larger, x, max);
    }
    // Lanes that count as zero compute along and are overwritten at the end.
    let is_zero = s.lt(amax, s.splat(EPS));
    let weighted: [S::F; N] = std::array::from_fn(|i| s.mul(weights[i], x[i]));
    let mut iscale = s.div(s.splat(-(nmax as f32)), max);
    let (sumlx, suml2) = level_sums(s, nmax, iscale, x, weights, &weighted);
    let mut scale = s.select(s.eq(suml2, zero), zero, s.div(sumlx, suml2));
    let mut best = s.mul(scale, sumlx);
    for step in steps() {
        let this_iscale = s.div(s.splat(-(nmax as f32 + 0.1 * step)), max);
        let (sumlx, suml2) = level_sums(s, nmax, this_iscale, x, weights, &weighted);
        let better = s.both(s.gt(suml2, zero), s.gt(s.mul(sumlx, sumlx), s.mul(best, suml2)));
        let this_scale = s.div(sumlx, suml2);
        scale = s.select(better, this_scale, scale);
        best = s.select(better, s.mul(this_scale, sumlx), best);
        iscale = s.select(better, this_iscale, iscale);
    }
    SymFit { scale: s.select(is_zero, zero, scale), iscale: s.select(is_zero, zero, iscale) }
}

/// Sums of weight * x * l and weight * l^2 over the levels l at `iscale`; `weighted` is weights * x.
///
/// |iscale * x| is at most about nmax + 1, so the levels never leave the range of the fast rounding; in lanes that count as zero
/// they may, but nobody looks at those.
#[inline(always)]
fn level_sums<S: Simd, const N: usize>(
    s: S,
    nmax: i32,
    iscale: S::F,
    x: &[S::F; N],
    weights: &[S::F; N],
    weighted: &[S::F; N],
) -> (S::F, S::F) {
    let zero = s.splat(0.0);
    let (mut sumlx, mut suml2) = (zero, zero);
    for i in 0..N {
        let l = s.nearest_clamped_in_range(s.mul(iscale, x[i]), -nmax, nmax - 1);
        sumlx = s.add(sumlx, s.mul(weighted[i], l));
        suml2 = s.add(suml2, s.mul(s.mul(weights[i], l), l));
    }
    (sumlx, suml2)
}
