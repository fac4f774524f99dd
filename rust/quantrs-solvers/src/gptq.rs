//! GPTQ: column after column is rounded, and the columns that are left take over its error.

#![expect(
    clippy::needless_range_loop,
    reason = "indices over lanes and registers are plainer than zipped iterators, and always unrolled"
)]

use crate::cholesky::{COLUMNS, Factor, Order};
use crate::grid::{Grid, Params};
use crate::lanes::{byte, transpose};
use crate::product::{PANEL, tile};
use crate::round_to_nearest::{GroupCodes, check_shape};
use crate::{SolverError, check_finite};
use quantrs_simd::{Fused, Level, dispatch_fused};
use rayon::prelude::*;

/// Minimised  `tr((W - Q) H (W - Q)^T)`, the error of the layer's outputs on the calibration inputs, greedily by columns
/// Damping    by [`Factor::new`]
/// Ordering   of the [`Factor`]
/// Grid       any [`Grid`]; a group's parameters are found when its first column is reached, from its columns as they stand before
///            the block's own corrections, as the reference code has it, or from w itself (`static_groups`)
/// Dead       columns without inputs become 0, after a scale for the whole row was found
/// Cost       `out * in^2 / 2` multiply-adds and the factor; the factor's `2 in^2` bytes are read once per 48 rows
/// Shapes     w: `[out_features, in_features]`
/// Exact      bounded: multiply-adds are fused where the CPU can; the same for any number of threads
/// Source     Frantar et al., arXiv 2210.17323, and github.com/IST-DASLab/gptq `gptq.py`
#[derive(Clone, Copy, Debug)]
pub struct Gptq {
    /// How codes are chosen.
    pub grid: Grid,
    /// Columns in a group; divides `in_features`.
    pub group_size: usize,
    /// Columns whose corrections reach the columns behind them together.
    pub block_size: usize,
    /// The order that the factor was made for.
    pub order: Order,
    /// Groups are runs of w's columns, with parameters from w.
    pub static_groups: bool,
}

/// What the solver found.
#[derive(Clone, Debug, PartialEq)]
pub struct Solution {
    /// Codes in the column order of w.
    pub codes: GroupCodes,
    /// Group of every column of w.
    pub g_idx: Vec<i32>,
    /// The minimised error, with the damping counted in.
    pub loss: f64,
}

/// Whatever the rows share.
struct Job<'a> {
    options: &'a Gptq,
    factor: &'a Factor,
    /// Group of the column at every position.
    groups: Vec<usize>,
    /// Position of every column.
    positions: Vec<usize>,
}

/// The memory of a task.
struct Scratch {
    /// `[in_features]`, by position: the weights, corrected so far.
    columns: Vec<[f32; PANEL]>,
    /// `[block_size]`: errors over the factor's diagonal.
    errors: Vec<[f32; PANEL]>,
    /// `[n_groups]`
    params: Vec<Params<PANEL>>,
    /// `[group_size]`
    group: Vec<[f32; PANEL]>,
    /// A row of the factor.
    row: Vec<f32>,
}

/// The rows of a task in the result.
struct Output<'a> {
    codes: &'a mut [u8],
    scales: &'a mut [f32],
    zeros: &'a mut [u8],
}

impl Gptq {
    /// Quantize w with the factor of its inputs' Hessian.
    pub fn solve(&self, level: Level, w: &[f32], factor: &Factor) -> Result<Solution, SolverError> {
        let n = factor.n();
        self.grid.check()?;
        check_shape(w, n, self.group_size)?;
        if self.block_size == 0 {
            let expected = "1 or more; 128 is usual".to_owned();
            return Err(SolverError::Argument { what: "block_size", found: "0".to_owned(), expected });
        }
        check_finite("w", w, n)?;
        // The grid works on exact quotients: the weights here are no longer those of the model's type.
        let options = Gptq { grid: Grid { stepwise: false, ..self.grid }, block_size: self.block_size.min(n), ..*self };
        let by_position = self.order == Order::Activation && !self.static_groups;
        let group_of =
            |(position, column): (usize, &usize)| (if by_position { position } else { *column }) / self.group_size;
        let groups: Vec<usize> = factor.order.iter().enumerate().map(group_of).collect();
        let (mut positions, mut g_idx) = (vec![0; n], vec![0; n]);
        for (position, column) in factor.order.iter().enumerate() {
            positions[*column] = position;
            g_idx[*column] = groups[position] as i32;
        }
        let job = Job { options: &options, factor, groups, positions };
        let n_groups = n / self.group_size;
        let mut codes = GroupCodes::zeroed(w.len() / n, n, n_groups);
        let losses: Vec<f64> = codes
            .codes
            .par_chunks_mut(PANEL * n)
            .zip(codes.scales.par_chunks_mut(PANEL * n_groups))
            .zip(codes.zeros.par_chunks_mut(PANEL * n_groups))
            .zip(w.par_chunks(PANEL * n))
            .map_init(
                || Scratch::new(&options, n),
                |scratch, (((codes, scales), zeros), w)| {
                    let out = Output { codes, scales, zeros };
                    dispatch_fused!(level, s => solve_rows(s, &job, w, scratch, out))
                },
            )
            .collect();
        codes.check_scales(&self.grid, n_groups)?;
        Ok(Solution { codes, g_idx, loss: losses.iter().sum() })
    }
}

impl Scratch {
    fn new(options: &Gptq, n: usize) -> Scratch {
        let zero = [0.0; PANEL];
        Scratch {
            columns: vec![zero; n],
            errors: vec![zero; options.block_size],
            params: vec![Params { scale: [1.0; PANEL], zero }; n / options.group_size],
            group: vec![zero; options.group_size],
            row: vec![0.0; options.block_size],
        }
    }
}

/// Up to 48 rows; their loss.
#[inline(always)]
fn solve_rows<S: Fused>(s: S, job: &Job<'_>, w: &[f32], scratch: &mut Scratch, out: Output<'_>) -> f64 {
    let (options, n) = (job.options, job.factor.n());
    let n_rows = w.len() / n;
    load(job, w, scratch);
    let mut loss = 0.0;
    for first in (0..n).step_by(options.block_size) {
        let end = n.min(first + options.block_size);
        if !options.static_groups && options.group_size < n {
            for at in (first.next_multiple_of(options.group_size)..end).step_by(options.group_size) {
                scratch.params[job.groups[at]] = options.grid.params(&scratch.columns[at..at + options.group_size]);
            }
        }
        for at in first..end {
            let params = &scratch.params[job.groups[at]];
            let column = &scratch.columns[at];
            let code = options.grid.code(column, params);
            let value = Grid::value(&code, params);
            let inverse = 1.0 / job.factor.entry(at, at);
            let error = &mut scratch.errors[at - first];
            let mut squares = 0.0f64;
            for r in 0..PANEL {
                error[r] = (column[r] - value[r]) * inverse;
            }
            for r in 0..n_rows {
                squares += f64::from(error[r]) * f64::from(error[r]);
                out.codes[r * n + job.factor.order[at]] = byte(code[r]);
            }
            loss += squares;
            correct_block(s, job.factor, at, end, scratch, first);
        }
        correct_rest(s, job.factor, first..end, scratch);
    }
    let n_groups = n / options.group_size;
    for (group, params) in scratch.params.iter().enumerate() {
        for r in 0..n_rows {
            out.scales[r * n_groups + group] = params.scale[r];
            out.zeros[r * n_groups + group] = byte(params.zero[r]);
        }
    }
    loss
}

/// The weights by position, and the parameters that come from w itself.
#[inline(always)]
fn load(job: &Job<'_>, w: &[f32], scratch: &mut Scratch) {
    let (options, n) = (job.options, job.factor.n());
    if options.order == Order::Natural {
        transpose(w, n, 0, &mut scratch.columns);
    } else {
        for r in 0..PANEL {
            let row = w.get(r * n..(r + 1) * n);
            for (to, column) in scratch.columns.iter_mut().zip(&job.factor.order) {
                to[r] = row.map_or(0.0, |row| row[*column]);
            }
        }
    }
    if options.group_size == n {
        scratch.params[0] = options.grid.params(&scratch.columns);
    }
    for (column, dead) in job.factor.dead.iter().enumerate() {
        if *dead {
            scratch.columns[job.positions[column]] = [0.0; PANEL];
        }
    }
    if options.static_groups && options.group_size < n {
        for (positions, params) in job.positions.chunks_exact(options.group_size).zip(&mut scratch.params) {
            for (to, position) in scratch.group.iter_mut().zip(positions) {
                *to = scratch.columns[*position];
            }
            *params = options.grid.params(&scratch.group);
        }
    }
}

/// Take the error of the column at `at` out of the columns behind it, up to `end`.
#[inline(always)]
fn correct_block<S: Fused>(s: S, factor: &Factor, at: usize, end: usize, scratch: &mut Scratch, first: usize) {
    let row = &mut scratch.row[..end - at - 1];
    for (i, v) in row.iter_mut().enumerate() {
        *v = -factor.entry(at, at + 1 + i);
    }
    let error = &scratch.errors[at - first];
    for (v, column) in row.iter().zip(&mut scratch.columns[at + 1..end]) {
        let v = s.splat(*v);
        for i in (0..PANEL).step_by(S::LANES) {
            let values = &mut column[i..];
            s.store(s.mul_add(s.load(&error[i..]), v, s.load(values)), values);
        }
    }
}

/// Take the errors of a block out of all columns behind it: `columns -= errors^T U[block, behind]`.
#[inline(always)]
fn correct_rest<S: Fused>(s: S, factor: &Factor, block: std::ops::Range<usize>, scratch: &mut Scratch) {
    let n = factor.n();
    let errors = scratch.errors[..block.len()].as_flattened();
    for p in block.end / COLUMNS..n.div_ceil(COLUMNS) {
        let u = factor.panel(p, block.start);
        let columns = p * COLUMNS..n.min((p + 1) * COLUMNS);
        if S::LANES == 16 {
            subtract::<S, 3, 8>(s, errors, block.clone(), u, columns, &mut scratch.columns);
        } else {
            subtract::<S, 2, 4>(s, errors, block.clone(), u, columns, &mut scratch.columns);
        }
    }
}

/// One panel of the factor. Its first columns may belong to the block, its last ones may not exist: both stay.
#[inline(always)]
fn subtract<S: Fused, const M: usize, const N: usize>(
    s: S,
    errors: &[f32],
    block: std::ops::Range<usize>,
    u: &[f32],
    columns: std::ops::Range<usize>,
    weights: &mut [[f32; PANEL]],
) {
    let minus_one = s.splat(-1.0);
    for left in (0..PANEL).step_by(M * S::LANES) {
        for part in (0..COLUMNS).step_by(N) {
            let sums = tile::<S, M, N>(s, block.len(), &errors[left..], &u[part..], COLUMNS);
            for j in 0..N {
                let column = columns.start + part + j;
                if column >= block.end && column < columns.end {
                    for i in 0..M {
                        let values = &mut weights[column][left + i * S::LANES..];
                        s.store(s.mul_add(sums[j][i], minus_one, s.load(values)), values);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Rule, ScaleType};

    fn options(group_size: usize, scale_type: ScaleType) -> Gptq {
        let grid =
            Grid { bits: 4, symmetric: false, rule: Rule::Gptq, scale_type, mse: None, min_zero: 1, stepwise: false };
        Gptq { grid, group_size, block_size: 8, order: Order::Natural, static_groups: false }
    }

    /// Inputs whose neighbours are alike.
    fn matrix(n: usize) -> Vec<f32> {
        (0..n * n).map(|i| 0.8f32.powi((i / n).abs_diff(i % n) as i32)).collect()
    }

    #[test]
    fn the_largest_and_smallest_finite_weights_give_an_error_or_finite_codes() {
        let n = 32;
        let factor = Factor::new(matrix(n), n, Order::Natural, 0.01).unwrap();
        for size in [f32::MAX, 1e38, 1e30, 1e-30, f32::MIN_POSITIVE, 1e-45, 0.0] {
            let w: Vec<f32> = (0..5 * n).map(|i| if i % 3 == 0 { -size } else { size }).collect();
            for scale_type in [ScaleType::F32, ScaleType::F16, ScaleType::Bf16] {
                for level in Level::all() {
                    match options(16, scale_type).solve(level, &w, &factor) {
                        Ok(found) => assert!(found.codes.scales.iter().all(|s| s.is_finite() && *s > 0.0), "{size}"),
                        Err(error) => {
                            assert!(matches!(error, SolverError::ScaleOverflow { .. }) && size > 1e4, "{error}")
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn levels_agree_but_for_a_few_roundings() {
        let (n, n_rows) = (64, 100);
        let factor = Factor::new(matrix(n), n, Order::Natural, 0.01).unwrap();
        let w: Vec<f32> = (0..n_rows * n).map(|i| ((i * 7919) % 1009) as f32 / 500.0 - 1.0).collect();
        let solve = |level| options(32, ScaleType::F16).solve(level, &w, &factor).unwrap();
        let best = solve(Level::detect());
        for level in Level::all() {
            let found = solve(level);
            let steps = best.codes.codes.iter().zip(&found.codes.codes).map(|(a, b)| a.abs_diff(*b));
            let off = steps.filter(|step| *step > 0).count();
            assert!(off * 200 < w.len(), "{off} of {} codes differ at {}", w.len(), level.name());
            assert!((found.loss / best.loss - 1.0).abs() < 1e-3, "{} and {}", found.loss, best.loss);
        }
    }
}
