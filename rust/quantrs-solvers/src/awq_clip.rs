//! AWQ's second search: the largest weights of a group clipped, so that all others lie on a finer grid.

use crate::SolverError;
use crate::column_major::add_product;
use crate::error::check_finite;
use crate::grid::Grid;
use crate::lanes::{ROWS, largest, limited, transpose};
use quantrs_simd::Level;
use rayon::prelude::*;

/// Rows whose thresholds are searched together.
const BLOCK_ROWS: usize = 4 * ROWS;

/// Search for the magnitude that weights are clipped to, per row and group.
///
/// Minimised the squared error of the group's share of the output, `d h d^T` with the group's block h of `2/T X^T X`
/// Ordering  thresholds `(1 - i / n_grid) max |w|` for i in `0..max_shrink * n_grid`; the smallest error wins, the first one on a tie
/// Cost      `n_steps` quantizations of w and `2 * n_steps * out * in * group_size` flops
/// Dead      a group of zeros has the threshold 0
/// Source    AutoAWQ 0.2.9, `awq/quantize/quantizer.py`, `_compute_best_clip`, there with tokens instead of h
#[derive(Clone, Copy, Debug)]
pub struct AwqClip {
    /// Where quantized weights may lie.
    pub grid: Grid,
    /// Columns that share a threshold; divides `in_features`.
    pub group_size: usize,
    /// Steps that the whole range would take.
    pub n_grid: usize,
    /// Steps tried.
    pub n_steps: usize,
}

/// The blocks on the diagonal of `X^T X / tokens`, `[n_groups, group_size, group_size]`, of x: `[tokens, in_features]`.
pub fn group_grams(x: &[f32], in_features: usize, group_size: usize) -> Vec<f32> {
    let n_tokens = x.len() / in_features;
    let mut grams = vec![0.0; in_features * group_size];
    grams.par_chunks_mut(group_size * group_size).enumerate().for_each_init(
        || (Vec::new(), Vec::new()),
        |(columns, rows), (group, gram)| {
            // The group's columns, end to end, and its rows.
            rows.clear();
            for token in x.chunks_exact(in_features) {
                rows.extend_from_slice(&token[group * group_size..(group + 1) * group_size]);
            }
            columns.resize(rows.len(), 0.0);
            for (t, row) in rows.chunks_exact(group_size).enumerate() {
                for (i, v) in row.iter().enumerate() {
                    columns[i * n_tokens + t] = *v;
                }
            }
            add_product(gram, group_size, rows, columns, n_tokens, n_tokens, group_size, 1.0 / n_tokens as f32);
        },
    );
    grams
}

/// The blocks on the diagonal of a matrix, `[in_features, in_features]`: `[n_groups, group_size, group_size]`.
pub fn diagonal_blocks(h: &[f32], in_features: usize, group_size: usize) -> Vec<f32> {
    let rows = h.chunks_exact(in_features).enumerate();
    let in_block = |(i, row): (usize, &[f32])| row[i / group_size * group_size..][..group_size].to_vec();
    rows.flat_map(in_block).collect()
}

impl AwqClip {
    /// `[out_features, n_groups]`: the threshold of every group of w, `[out_features, in_features]`.
    ///
    /// `grams: [n_groups, group_size, group_size]`, symmetric, in any unit.
    ///
    /// # Errors
    /// Shapes that do not fit, and NaN or infinite values.
    pub fn run(&self, level: Level, w: &[f32], in_features: usize, grams: &[f32]) -> Result<Vec<f32>, SolverError> {
        self.check(w, in_features, grams)?;
        let n_groups = in_features / self.group_size;
        let mut thresholds = vec![0.0; w.len() / self.group_size];
        thresholds.par_chunks_mut(BLOCK_ROWS * n_groups).zip(w.par_chunks(BLOCK_ROWS * in_features)).for_each_init(
            || Scratch::new(self),
            |scratch, (thresholds, w)| {
                for (group, gram) in grams.chunks_exact(self.group_size * self.group_size).enumerate() {
                    scratch.search(level, self, w, in_features, group, gram);
                    let of_group = thresholds.iter_mut().skip(group).step_by(n_groups);
                    of_group.zip(&scratch.best).for_each(|(threshold, best)| *threshold = *best);
                }
            },
        );
        Ok(thresholds)
    }

    fn check(&self, w: &[f32], in_features: usize, grams: &[f32]) -> Result<(), SolverError> {
        let wrong = |what, found: String, expected: String| Err(SolverError::Argument { what, found, expected });
        let group_size = self.group_size;
        self.grid.check()?;
        if in_features == 0 || group_size == 0 || !in_features.is_multiple_of(group_size) {
            let expected = format!("a divisor of in_features {in_features}, or -1 for one group per row");
            return wrong("group_size", group_size.to_string(), expected);
        }
        if w.is_empty() || !w.len().is_multiple_of(in_features) {
            return wrong("w", format!("{} values", w.len()), format!("rows of in_features {in_features}"));
        }
        if self.n_steps == 0 || self.n_steps > self.n_grid {
            return wrong(
                "max_shrink",
                format!("{} of {} steps", self.n_steps, self.n_grid),
                "at least one, at most all".to_owned(),
            );
        }
        if grams.len() != in_features * group_size {
            let expected = format!("in_features {in_features} times group_size {group_size}");
            return wrong("grams", format!("{} values", grams.len()), expected);
        }
        check_finite("w", w, in_features)?;
        check_finite("x", grams, group_size)
    }
}

/// Buffers of a thread.
struct Scratch {
    columns: Vec<[f32; ROWS]>,
    clipped: Vec<[f32; ROWS]>,
    /// `[group_size, n_steps * BLOCK_ROWS]`: for every column the differences under all thresholds.
    d: Vec<f32>,
    products: Vec<f32>,
    errors: Vec<f32>,
    largest: [f32; BLOCK_ROWS],
    best: [f32; BLOCK_ROWS],
}

impl Scratch {
    fn new(clip: &AwqClip) -> Scratch {
        let height = clip.n_steps * BLOCK_ROWS;
        Scratch {
            columns: vec![[0.0; ROWS]; clip.group_size],
            clipped: vec![[0.0; ROWS]; clip.group_size],
            d: vec![0.0; height * clip.group_size],
            products: vec![0.0; height * clip.group_size],
            errors: vec![0.0; height],
            largest: [0.0; BLOCK_ROWS],
            best: [0.0; BLOCK_ROWS],
        }
    }

    /// The best thresholds of one group of the rows w.
    fn search(&mut self, level: Level, clip: &AwqClip, w: &[f32], in_features: usize, group: usize, gram: &[f32]) {
        level.run(
            #[inline(always)]
            || self.stack(clip, w, in_features, group * clip.group_size),
        );
        let height = self.errors.len();
        self.products.fill(0.0);
        add_product(&mut self.products, height, &self.d, gram, clip.group_size, clip.group_size, clip.group_size, 1.0);
        level.run(
            #[inline(always)]
            || self.choose(clip.n_grid),
        );
    }

    #[inline(always)]
    fn stack(&mut self, clip: &AwqClip, w: &[f32], in_features: usize, first: usize) {
        let height = self.errors.len();
        for tile in 0..BLOCK_ROWS / ROWS {
            transpose(w.get(tile * ROWS * in_features..).unwrap_or(&[]), in_features, first, &mut self.columns);
            let mut m = [0.0; ROWS];
            for column in &self.columns {
                for r in 0..ROWS {
                    m[r] = largest(column[r].abs(), m[r]);
                }
            }
            self.largest[tile * ROWS..][..ROWS].copy_from_slice(&m);
            for step in 0..clip.n_steps {
                let limit = thresholds_at(&m, step, clip.n_grid);
                for (clipped, column) in self.clipped.iter_mut().zip(&self.columns) {
                    for r in 0..ROWS {
                        clipped[r] = limited(column[r], -limit[r], limit[r]);
                    }
                }
                let params = clip.grid.params(&self.clipped);
                for (i, (clipped, column)) in self.clipped.iter().zip(&self.columns).enumerate() {
                    let value = Grid::value(&clip.grid.code(clipped, &params), &params);
                    let out = &mut self.d[i * height + step * BLOCK_ROWS + tile * ROWS..][..ROWS];
                    for r in 0..ROWS {
                        out[r] = column[r] - value[r];
                    }
                }
            }
        }
    }

    /// Errors are `sum over columns of products * d`.
    #[inline(always)]
    fn choose(&mut self, n_grid: usize) {
        let height = self.errors.len();
        self.errors.fill(0.0);
        for (products, d) in self.products.chunks_exact(height).zip(self.d.chunks_exact(height)) {
            for ((error, product), d) in self.errors.iter_mut().zip(products).zip(d) {
                *error += product * d;
            }
        }
        let mut least = [f32::INFINITY; BLOCK_ROWS];
        for (step, errors) in self.errors.chunks_exact(BLOCK_ROWS).enumerate() {
            let limit = thresholds_at(&self.largest, step, n_grid);
            for r in 0..BLOCK_ROWS {
                let better = errors[r] < least[r];
                least[r] = if better { errors[r] } else { least[r] };
                self.best[r] = if better { limit[r] } else { self.best[r] };
            }
        }
    }
}

/// `(1 - step / n_grid) m`
#[inline(always)]
fn thresholds_at<const N: usize>(m: &[f32; N], step: usize, n_grid: usize) -> [f32; N] {
    let kept = (1.0 - step as f64 / n_grid as f64) as f32;
    let mut limit = *m;
    for limit in &mut limit {
        *limit *= kept;
    }
    limit
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grid::{Rule, ScaleType};

    /// Whole numbers between -8 and 8, so that sums are exact in any order.
    fn numbers(n: usize, factor: u32) -> Vec<f32> {
        (0..n as u32).map(|i| ((i.wrapping_mul(factor) >> 7) % 17) as f32 - 8.0).collect()
    }

    #[test]
    fn tokens_and_their_gram_matrix_give_the_same_thresholds_at_every_level() {
        let (n, group_size, n_tokens) = (96, 32, 10);
        let (w, x) = (numbers(70 * n, 2_654_435_761), numbers(n_tokens * n, 2_246_822_519));
        let mut h = vec![0.0; n * n];
        for token in x.chunks(n) {
            for (row, xi) in h.chunks_mut(n).zip(token) {
                row.iter_mut().zip(token).for_each(|(h, xj)| *h += xi * xj);
            }
        }
        let of_tokens = group_grams(&x, n, group_size);
        let of_matrix: Vec<f32> = diagonal_blocks(&h, n, group_size).iter().map(|h| h / n_tokens as f32).collect();
        for (a, b) in of_tokens.iter().zip(&of_matrix) {
            assert!((a - b).abs() <= 1e-5 * b.abs(), "{a} {b}");
        }
        let grid = Grid {
            bits: 2,
            symmetric: true,
            rule: Rule::Awq,
            scale_type: ScaleType::F32,
            mse: None,
            min_zero: 0,
            stepwise: false,
        };
        let clip = AwqClip { grid, group_size, n_grid: 20, n_steps: 10 };
        let thresholds: Vec<_> =
            Level::all().into_iter().map(|level| clip.run(level, &w, n, &of_matrix).unwrap()).collect();
        assert!(thresholds.iter().all(|t| *t == thresholds[0]));
        let largest = w.chunks(group_size).map(|group| group.iter().fold(0.0f32, |m, w| m.max(w.abs())));
        let kept: Vec<f32> = thresholds[0].iter().zip(largest).map(|(t, m)| t / m).collect();
        assert!(kept.iter().all(|kept| (0.5499..=1.0).contains(kept)));
        assert!(kept.iter().any(|kept| *kept < 1.0));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let grid = Grid {
            bits: 4,
            symmetric: true,
            rule: Rule::Awq,
            scale_type: ScaleType::F32,
            mse: None,
            min_zero: 0,
            stepwise: false,
        };
        let clip = AwqClip { grid, group_size: 4, n_grid: 20, n_steps: 10 };
        let error =
            |clip: AwqClip, w: &[f32], grams: &[f32]| clip.run(Level::Scalar, w, 8, grams).unwrap_err().to_string();
        assert!(error(clip, &[0.0; 9], &[0.0; 32]).starts_with("w: found 9 values"));
        assert!(error(clip, &[0.0; 8], &[0.0; 31]).starts_with("grams: found 31 values"));
        assert!(error(clip, &[f32::NAN; 8], &[0.0; 32]).starts_with("w: found NaN in row 0, column 0"));
        assert!(error(AwqClip { group_size: 3, ..clip }, &[0.0; 8], &[0.0; 24]).starts_with("group_size: found 3"));
        assert!(error(AwqClip { n_steps: 21, ..clip }, &[0.0; 8], &[0.0; 32]).starts_with("max_shrink"));
    }
}
