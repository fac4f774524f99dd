//! The search for a scale of non-negative values: x ~ scale * level, level in 0..=nmax.
//!
//! Minimises    sum of weight * (x - scale * level)^2
//! Search       nine inverse scales around nmax / max, then up to five rounds that move single levels
//! Exact        equals `make_qp_quants`, ggml `src/ggml-quants.c`, FP contraction off

use quantrs_simd::nearest_int_ggml;

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
