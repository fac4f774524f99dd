//! SmoothQuant: how far to move outliers of activations into the weights, so that both can be of 8 bits.

use crate::SolverError;
use crate::error::check_finite;
use quantrs_simd::Level;
use rayon::prelude::*;

/// The least that a scale, and the weights of a channel, count for.
const FLOOR: f32 = 1e-5;
/// Rows whose largest weights are found in one go.
const CHUNK_ROWS: usize = 256;

/// `s = x_max^alpha / w_max^(1 - alpha)` of every input channel, with w_max over the rows of all weights that share the input.
///
/// Weights are multiplied by s, inputs divided by it. Floors as in Neural Compressor: w_max and s are at least 1e-5, and s is 1 where
/// `x_max^alpha` is 0: in a channel without input, unless alpha is 0.
///
/// `x_max: [in_features]`, the largest |x|; each of `weights: [out_features, in_features]`.
///
/// Source: Xiao et al. 2022, "SmoothQuant", arXiv 2211.10438, equation 4.
///
/// # Errors
/// Shapes that do not fit, alpha outside 0..=1, and values that are not finite, or negative in x_max.
pub fn smooth_scales(level: Level, x_max: &[f32], weights: &[&[f32]], alpha: f32) -> Result<Vec<f32>, SolverError> {
    let wrong = |what, found: String, expected: String| Err(SolverError::Argument { what, found, expected });
    let n = x_max.len();
    if !(0.0..=1.0).contains(&alpha) {
        return wrong("alpha", alpha.to_string(), "0 to 1".to_owned());
    }
    if let Some(i) = x_max.iter().position(|x| !(x.is_finite() && *x >= 0.0)) {
        return wrong("x_max", format!("{} in channel {i}", x_max[i]), "finite magnitudes".to_owned());
    }
    for w in weights {
        if n == 0 || w.is_empty() || !w.len().is_multiple_of(n) {
            return wrong("weights", format!("{} values", w.len()), format!("rows of in_features {n}, as x_max has"));
        }
        check_finite("weights", w, n)?;
    }
    if weights.is_empty() {
        return wrong("weights", "none".to_owned(), "at least one".to_owned());
    }
    let w_max = column_maxima(level, weights, n);
    let scale = |(x, w): (&f32, f32)| match x.powf(alpha) {
        0.0 => 1.0,
        x => (x / w.max(FLOOR).powf(1.0 - alpha)).max(FLOOR),
    };
    Ok(x_max.iter().zip(w_max).map(scale).collect())
}

/// The largest |w| of every column.
fn column_maxima(level: Level, weights: &[&[f32]], n: usize) -> Vec<f32> {
    #[inline(always)]
    fn widen(maxima: &mut [f32], values: &[f32]) {
        for (m, v) in maxima.iter_mut().zip(values) {
            *m = if v.abs() > *m { v.abs() } else { *m };
        }
    }
    let chunks: Vec<&[f32]> = weights.iter().flat_map(|w| w.chunks(CHUNK_ROWS * n)).collect();
    let of_rows = |rows: &&[f32]| {
        let mut maxima = vec![0.0; n];
        level.run(
            #[inline(always)]
            || rows.chunks_exact(n).for_each(|row| widen(&mut maxima, row)),
        );
        maxima
    };
    let merge = |mut a: Vec<f32>, b: Vec<f32>| {
        widen(&mut a, &b);
        a
    };
    chunks.par_iter().map(of_rows).reduce(|| vec![0.0; n], merge)
}
