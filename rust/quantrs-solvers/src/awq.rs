//! AWQ: which input channels of some linears to magnify before they are quantized, so that what matters most is rounded least.

use crate::SolverError;
use crate::awq_loss::{Outputs, mean_square_losses};
use crate::error::check_finite;
use crate::grid::Grid;
use quantrs_simd::Level;
use rayon::prelude::*;

/// Rows whose |w| are summed in one go.
const STATISTIC_ROWS: usize = 256;

/// Search for the scale s of every input channel of linears that share an input: `y = W x = (W s) (x / s)`, with `W s` quantized.
///
/// Minimised `|f(W X) - f(Q(W s) / s X)|^2` over one number, the ratio r of `s = x_mean^r / w_mean^(1 - r)`, on a grid of `n_grid` points
/// Ordering  the smallest loss wins, the first one on a tie; losses are f32 products summed in f64, in an order that no thread count changes
/// Cost      `n_grid` quantizations of W and, with `Outputs::Gram`, `n_grid * out * in^2` flops; otherwise `2 * n_grid * out * in * tokens`
/// Memory    some 16 MB per thread
/// Dead      a channel whose s is not a positive finite number keeps s = 1
/// Source    Lin et al. 2023, "AWQ: Activation-aware Weight Quantization", arXiv 2306.00978, section 3.2; the formula of s with w_mean
///           ("duo scaling") is that of AutoAWQ 0.2.9, `awq/quantize/quantizer.py`
#[derive(Clone, Copy, Debug)]
pub struct AwqSearch {
    /// Where quantized weights may lie.
    pub grid: Grid,
    /// Columns that share a scale and a zero point; divides `in_features`.
    pub group_size: usize,
    /// Whether `w_mean` takes part in s.
    pub duo_scaling: bool,
    /// Ratios tried: `k / n_grid` for k in `0..n_grid`.
    pub n_grid: usize,
}

/// What the search found.
#[derive(Clone, Debug, PartialEq)]
pub struct AwqScales {
    /// Index of the ratio that won.
    pub best_index: usize,
    /// `[in_features]`: what columns are multiplied with.
    pub scales: Vec<f32>,
    /// `[n_grid]`: mean square error of the outputs.
    pub losses: Vec<f64>,
}

/// Linears and what they read.
#[derive(Clone, Copy, Debug)]
pub struct AwqProblem<'a> {
    /// Each `[out_features, in_features]`.
    pub weights: &'a [&'a [f32]],
    /// Columns of every weight.
    pub in_features: usize,
    /// `[in_features]`: mean of |x|.
    pub x_mean: &'a [f32],
    /// `[in_features]`: which scale a channel has, where several have to share one (attention outputs of query heads with the same values).
    pub scale_of: Option<&'a [u32]>,
    /// What outputs are compared, on what inputs.
    pub outputs: Outputs<'a>,
}

impl AwqProblem<'_> {
    fn check(&self, search: &AwqSearch) -> Result<(), SolverError> {
        let wrong = |what, found: String, expected: String| Err(SolverError::Argument { what, found, expected });
        let (n, group_size) = (self.in_features, search.group_size);
        search.grid.check()?;
        if search.n_grid == 0 {
            return wrong("n_grid", "0".to_owned(), "at least 1".to_owned());
        }
        if n == 0 || group_size == 0 || !n.is_multiple_of(group_size) {
            let expected = format!("a divisor of in_features {n}, or -1 for one group per row");
            return wrong("group_size", group_size.to_string(), expected);
        }
        for w in self.weights {
            if w.is_empty() || !w.len().is_multiple_of(n) {
                return wrong("weights", format!("{} values", w.len()), format!("rows of in_features {n}"));
            }
            check_finite("weights", w, n)?;
        }
        if self.weights.is_empty() {
            return wrong("weights", "none".to_owned(), "at least one".to_owned());
        }
        if self.x_mean.len() != n {
            return wrong("x_mean", format!("{} values", self.x_mean.len()), format!("in_features {n}"));
        }
        check_finite("x_mean", self.x_mean, n)?;
        if let Some(scale_of) = self.scale_of
            && (scale_of.len() != n || scale_of.iter().any(|&i| i as usize >= n))
        {
            let found = format!("{} numbers up to {}", scale_of.len(), scale_of.iter().max().copied().unwrap_or(0));
            return wrong("scale_of", found, format!("in_features {n} numbers below that"));
        }
        self.outputs.check(self.weights, n)
    }
}

impl AwqSearch {
    /// Try every ratio.
    ///
    /// # Errors
    /// Shapes that do not fit, and NaN or infinite values.
    pub fn run(&self, level: Level, problem: &AwqProblem<'_>) -> Result<AwqScales, SolverError> {
        problem.check(self)?;
        let n = problem.in_features;
        let w_mean = self.duo_scaling.then(|| mean_of_normalised(level, problem.weights, n, self.group_size));
        let average =
            |values: &[f32]| problem.scale_of.map_or(values.to_vec(), |scale_of| shared_mean(values, scale_of));
        let (x_mean, w_mean) = (average(problem.x_mean), w_mean.map(|w_mean| average(&w_mean)));
        let candidate = |k| candidate(&x_mean, w_mean.as_deref(), k as f32 / self.n_grid as f32);
        let candidates: Vec<Vec<f32>> = (0..self.n_grid).map(candidate).collect();
        let losses = mean_square_losses(level, problem, self, &candidates);
        let best_index = (0..self.n_grid).fold(0, |best, k| if losses[k] < losses[best] { k } else { best });
        Ok(AwqScales { best_index, scales: candidates[best_index].clone(), losses })
    }
}

/// `s = max(x_mean^r / (w_mean^(1 - r) + 1e-4), 1e-4)`, divided by the root of its largest times its smallest value.
fn candidate(x_mean: &[f32], w_mean: Option<&[f32]>, ratio: f32) -> Vec<f32> {
    let of = |i: usize| {
        let s = x_mean[i].powf(ratio);
        let s = w_mean.map_or(s, |w_mean| s / (w_mean[i].powf(1.0 - ratio) + 1e-4));
        s.max(1e-4)
    };
    let mut s: Vec<f32> = (0..x_mean.len()).map(of).collect();
    let (lo, hi) = s.iter().fold((f32::INFINITY, 0.0f32), |(lo, hi), &s| (lo.min(s), hi.max(s)));
    let middle = (lo * hi).sqrt();
    for s in &mut s {
        let scaled = *s / middle;
        *s = if scaled.is_finite() && scaled > 0.0 { scaled } else { 1.0 };
    }
    s
}

/// The mean of the values whose channels have the same scale, for every channel.
fn shared_mean(values: &[f32], scale_of: &[u32]) -> Vec<f32> {
    let mut sums = vec![(0.0f64, 0u32); values.len()];
    for (v, &i) in values.iter().zip(scale_of) {
        let (sum, n) = &mut sums[i as usize];
        *sum += f64::from(*v);
        *n += 1;
    }
    scale_of.iter().map(|&i| sums[i as usize]).map(|(sum, n)| (sum / f64::from(n)) as f32).collect()
}

/// Mean over all rows of `|w| / (max |w| of its group + 1e-6)`, `[in_features]`.
fn mean_of_normalised(level: Level, weights: &[&[f32]], in_features: usize, group_size: usize) -> Vec<f32> {
    #[inline(always)]
    fn add_rows(rows: &[f32], in_features: usize, group_size: usize, sums: &mut [f32]) {
        for row in rows.chunks_exact(in_features) {
            for (group, sums) in row.chunks_exact(group_size).zip(sums.chunks_exact_mut(group_size)) {
                let divisor = largest_magnitude(group) + 1e-6;
                for (sum, w) in sums.iter_mut().zip(group) {
                    *sum += w.abs() / divisor;
                }
            }
        }
    }
    let chunks: Vec<&[f32]> = weights.iter().flat_map(|w| w.chunks(STATISTIC_ROWS * in_features)).collect();
    let n_rows: usize = weights.iter().map(|w| w.len() / in_features).sum();
    let parts: Vec<Vec<f32>> = chunks
        .par_iter()
        .map(|rows| {
            let mut sums = vec![0.0; in_features];
            level.run(
                #[inline(always)]
                || add_rows(rows, in_features, group_size, &mut sums),
            );
            sums
        })
        .collect();
    let mean = |i| (parts.iter().map(|sums: &Vec<f32>| f64::from(sums[i])).sum::<f64>() / n_rows as f64) as f32;
    (0..in_features).map(mean).collect()
}

/// The largest |v|, in sixteen lanes.
#[inline(always)]
fn largest_magnitude(values: &[f32]) -> f32 {
    let (whole, rest) = values.as_chunks::<16>();
    let mut lanes = [0.0f32; 16];
    for sixteen in whole {
        for (lane, v) in lanes.iter_mut().zip(sixteen) {
            *lane = if v.abs() > *lane { v.abs() } else { *lane };
        }
    }
    lanes.iter().chain(rest).fold(0.0, |m: f32, v| m.max(v.abs()))
}
