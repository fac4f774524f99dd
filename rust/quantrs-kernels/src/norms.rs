//! RMSNorm and LayerNorm over rows.
//!
//! Sums are taken in sixteen partial sums that are then added in order: the same bits at every level.

use quantrs_simd::Level;

const PARTS: usize = 16;

/// The sum of `f(x)`, in [`PARTS`] partial sums.
#[inline(always)]
fn sum(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let (chunks, rest) = x.as_chunks::<PARTS>();
    let mut parts = [0.0; PARTS];
    for chunk in chunks {
        for (part, x) in parts.iter_mut().zip(chunk) {
            *part += f(*x);
        }
    }
    for (part, x) in parts.iter_mut().zip(rest) {
        *part += f(*x);
    }
    parts.iter().sum()
}

/// `out = x / sqrt(mean(x^2) + eps) * weight` for every row of `weight.len()` values.
pub fn rms_norm(level: Level, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    level.run(
        #[inline(always)]
        || {
            for (x, out) in x.chunks_exact(weight.len()).zip(out.chunks_exact_mut(weight.len())) {
                let factor = rms_factor(x, eps);
                for ((x, w), out) in x.iter().zip(weight).zip(out) {
                    *out = x * factor * w;
                }
            }
        },
    );
}

/// [`rms_norm`] in place.
pub fn rms_norm_in_place(level: Level, x: &mut [f32], weight: &[f32], eps: f32) {
    level.run(
        #[inline(always)]
        || {
            for x in x.chunks_exact_mut(weight.len()) {
                let factor = rms_factor(x, eps);
                for (x, w) in x.iter_mut().zip(weight) {
                    *x = *x * factor * w;
                }
            }
        },
    );
}

#[inline(always)]
fn rms_factor(x: &[f32], eps: f32) -> f32 {
    1.0 / (sum(x, |x| x * x) / x.len() as f32 + eps).sqrt()
}

/// `out = (x - mean) / sqrt(variance + eps) * weight + bias` for every row of `weight.len()` values.
pub fn layer_norm(level: Level, x: &[f32], weight: &[f32], bias: Option<&[f32]>, eps: f32, out: &mut [f32]) {
    level.run(
        #[inline(always)]
        || {
            for (x, out) in x.chunks_exact(weight.len()).zip(out.chunks_exact_mut(weight.len())) {
                let mean = sum(x, |x| x) / x.len() as f32;
                let variance = sum(x, |x| (x - mean) * (x - mean)) / x.len() as f32;
                let factor = 1.0 / (variance + eps).sqrt();
                for ((x, w), out) in x.iter().zip(weight).zip(&mut *out) {
                    *out = (x - mean) * factor * w;
                }
                if let Some(bias) = bias {
                    for (out, b) in out.iter_mut().zip(bias) {
                        *out += b;
                    }
                }
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(n: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7919 % 101) as f32 - 40.0) * 0.03).collect()
    }

    #[test]
    fn norms_agree_with_double_precision_for_any_length() {
        for n in [1, 3, 15, 16, 17, 48, 100, 576] {
            let (x, w, b) = (row(n), row(n), row(n));
            let x64: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
            let mean = x64.iter().sum::<f64>() / n as f64;
            let square = x64.iter().map(|x| x * x).sum::<f64>() / n as f64;
            let variance = x64.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64;
            for level in Level::all() {
                let (mut rms, mut layer) = (vec![0.0; n], vec![0.0; n]);
                rms_norm(level, &x, &w, 1e-5, &mut rms);
                layer_norm(level, &x, &w, Some(&b), 1e-5, &mut layer);
                for i in 0..n {
                    let want = x64[i] / (square + 1e-5).sqrt() * f64::from(w[i]);
                    assert!((f64::from(rms[i]) - want).abs() < 1e-5, "rms, n {n}, value {i}: {} not {want}", rms[i]);
                    let want = (x64[i] - mean) / (variance + 1e-5).sqrt() * f64::from(w[i]) + f64::from(b[i]);
                    assert!(
                        (f64::from(layer[i]) - want).abs() < 1e-5,
                        "layer, n {n}, value {i}: {} not {want}",
                        layer[i]
                    );
                }
            }
        }
    }

    #[test]
    fn the_norm_in_place_is_the_norm() {
        let (x, w) = (row(300), row(100));
        for level in Level::all() {
            let (mut out, mut in_place) = (vec![0.0; 300], x.clone());
            rms_norm(level, &x, &w, 1e-6, &mut out);
            rms_norm_in_place(level, &mut in_place, &w, 1e-6);
            assert_eq!(out, in_place);
        }
    }
}
