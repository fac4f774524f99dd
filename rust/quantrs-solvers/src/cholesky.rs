//! The factor of a damped inverse Hessian that GPTQ walks along.

use crate::{SolverError, check_finite};
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt::factor::{LltRegularization, cholesky_in_place, cholesky_in_place_scratch};
use faer::linalg::triangular_inverse::invert_lower_triangular;
use faer::{MatMut, MatRef, Par};
use rayon::prelude::*;

/// Columns in a packed panel of the factor.
pub(crate) const COLUMNS: usize = 8;
/// What damping grows by when a matrix is not positive definite.
const MORE_DAMPING: f64 = 0.01;

/// In which order columns are quantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As they are.
    Natural,
    /// Largest diagonal entry of the Hessian first.
    Activation,
    /// Groups of this many columns by their largest diagonal entry, and the columns in a group by theirs.
    GroupAware(usize),
}

/// `U` with `U^T U = (H + damping)^-1`, upper triangular, for columns in some order.
///
/// With J the matrix that reverses the order, `J H J = L L^T` gives `U = J L^-1 J`: one Cholesky factorisation and one triangular
/// inverse, n^3 / 3 multiply-adds, where factor, inverse and factor take n^3 * 2 / 3; and the inverse, whose condition is that of H,
/// is never formed. In float32 through faer, on the current rayon threads.
#[derive(Clone, Debug)]
pub struct Factor {
    n: usize,
    /// Column of w at every position.
    pub(crate) order: Vec<usize>,
    /// Columns whose inputs are always 0, of w.
    pub(crate) dead: Vec<bool>,
    /// Panel p has columns `8 p..` and the rows above its end: `[8 (p + 1), 8]`; 0 below the diagonal.
    panels: Vec<f32>,
    /// Damping that was used, in units of the mean of the diagonal.
    pub damp_percent: f64,
}

/// Where panel p starts.
fn start_of_panel(p: usize) -> usize {
    COLUMNS * COLUMNS / 2 * p * (p + 1)
}

impl Factor {
    /// Of h: `[n, n]`, symmetric; only its upper triangle is read. Its memory is used again for the inverse.
    ///
    /// A column with a diagonal entry of 0 is dead: it gets the entry 1 and its weights become 0. If the matrix is not positive
    /// definite, damping grows by 0.01 until it is, up to 1.
    pub fn new(h: Vec<f32>, n: usize, order: Order, damp_percent: f64) -> Result<Factor, SolverError> {
        if n == 0 || n.checked_mul(n) != Some(h.len()) {
            let expected = format!("{n} x {n} values");
            return Err(SolverError::Argument { what: "hessian", found: format!("{} values", h.len()), expected });
        }
        check_finite("hessian", &h, n)?;
        let mut diagonal: Vec<f32> = (0..n).map(|i| h[i * n + i]).collect();
        if let Some(i) = diagonal.iter().position(|d| *d < 0.0) {
            let (found, expected) = (format!("{} in row {i}", diagonal[i]), "no negative entry".to_owned());
            return Err(SolverError::Argument { what: "diagonal of the hessian", found, expected });
        }
        if !(0.0..=1.0).contains(&damp_percent) {
            let expected = "0 to 1; 0.01 is usual".to_owned();
            return Err(SolverError::Argument { what: "damp_percent", found: damp_percent.to_string(), expected });
        }
        let dead: Vec<bool> = diagonal.iter().map(|d| *d == 0.0).collect();
        if dead.iter().all(|dead| *dead) {
            let (found, expected) = ("nothing but zeros".to_owned(), "sums over at least one token".to_owned());
            return Err(SolverError::Argument { what: "hessian", found, expected });
        }
        for (d, dead) in diagonal.iter_mut().zip(&dead) {
            *d = if *dead { 1.0 } else { *d };
        }
        let order = ordered(&diagonal, order);
        let mean = diagonal.iter().map(|d| f64::from(*d)).sum::<f64>() / n as f64;
        let mut damp_percent = damp_percent;
        let mut lower = vec![0.0; n * n];
        loop {
            reversed(&h, &diagonal, &order, (damp_percent * mean) as f32, &mut lower);
            if factorize(&mut lower, n) {
                break;
            }
            damp_percent += MORE_DAMPING;
            if damp_percent > 1.0 {
                return Err(SolverError::NotPositiveDefinite);
            }
        }
        let mut inverse = h;
        invert_lower_triangular(
            MatMut::from_column_major_slice_mut(&mut inverse, n, n),
            MatRef::from_column_major_slice(&lower, n, n),
            Par::rayon(0),
        );
        drop(lower);
        Ok(Factor { n, order, dead, panels: packed(&inverse, n), damp_percent })
    }

    /// Rows and columns.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Entry (row, column); `row <= column`.
    #[inline(always)]
    pub(crate) fn entry(&self, row: usize, column: usize) -> f32 {
        self.panels[start_of_panel(column / COLUMNS) + row * COLUMNS + column % COLUMNS]
    }

    /// Rows `first..` of panel p: `[.., 8]`.
    #[inline(always)]
    pub(crate) fn panel(&self, p: usize, first: usize) -> &[f32] {
        &self.panels[start_of_panel(p) + first * COLUMNS..start_of_panel(p + 1)]
    }
}

/// Column at every position. Equal entries keep their order.
fn ordered(diagonal: &[f32], order: Order) -> Vec<usize> {
    let mut columns: Vec<usize> = (0..diagonal.len()).collect();
    let by_entry = |a: &usize, b: &usize| diagonal[*b].total_cmp(&diagonal[*a]);
    match order {
        Order::Natural => {}
        Order::Activation => columns.sort_by(by_entry),
        Order::GroupAware(group_size) => {
            let mut groups: Vec<&mut [usize]> = columns.chunks_mut(group_size.max(1)).collect();
            for group in &mut groups {
                group.sort_by(by_entry);
            }
            groups.sort_by(|a, b| by_entry(&a[0], &b[0]));
            return groups.into_iter().flat_map(|group| group.iter().copied()).collect();
        }
    }
    columns
}

/// The lower triangle, by columns, of h in reversed order, with the damped diagonal.
fn reversed(h: &[f32], diagonal: &[f32], order: &[usize], damping: f32, out: &mut [f32]) {
    let n = order.len();
    out.par_chunks_mut(n).enumerate().for_each(|(column, out)| {
        let c = order[n - 1 - column];
        out[..column].fill(0.0);
        out[column] = diagonal[c] + damping;
        for (row, v) in out.iter_mut().enumerate().skip(column + 1) {
            let r = order[n - 1 - row];
            *v = h[r.min(c) * n + r.max(c)];
        }
    });
}

/// Cholesky factor of the lower triangle in place; false where there is none.
fn factorize(lower: &mut [f32], n: usize) -> bool {
    let (params, par) = (Default::default(), Par::rayon(0));
    let mut memory = MemBuffer::new(cholesky_in_place_scratch::<f32>(n, par, params));
    let matrix = MatMut::from_column_major_slice_mut(lower, n, n);
    let done = cholesky_in_place(matrix, LltRegularization::default(), par, MemStack::new(&mut memory), params);
    // A pivot that is lost in rounding may come out tiny or NaN instead of negative.
    done.is_ok() && (0..n).all(|i| lower[i * n + i].is_finite() && lower[i * n + i] > 0.0)
}

/// The inverse, by columns, in the order before the reversal, cut into panels.
fn packed(inverse: &[f32], n: usize) -> Vec<f32> {
    let n_panels = n.div_ceil(COLUMNS);
    let mut panels = vec![0.0; start_of_panel(n_panels)];
    let mut tasks = Vec::with_capacity(n_panels);
    let mut rest = panels.as_mut_slice();
    for p in 0..n_panels {
        let (panel, later) = rest.split_at_mut(start_of_panel(p + 1) - start_of_panel(p));
        tasks.push((p, panel));
        rest = later;
    }
    tasks.into_par_iter().for_each(|(p, panel)| {
        for column in p * COLUMNS..n.min((p + 1) * COLUMNS) {
            let from = &inverse[(n - 1 - column) * n..][..n];
            for row in 0..=column {
                panel[row * COLUMNS + column % COLUMNS] = from[n - 1 - row];
            }
        }
    });
    panels
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Symmetric, positive definite, with decaying correlations.
    fn matrix(n: usize) -> Vec<f32> {
        let entry = |i: usize, j: usize| 0.9f32.powi(i.abs_diff(j) as i32) * ((1 + i % 7) * (1 + j % 7)) as f32;
        (0..n * n).map(|k| entry(k / n, k % n)).collect()
    }

    fn dense(f: &Factor) -> Vec<f64> {
        let entry = |i: usize, j: usize| if i <= j { f64::from(f.entry(i, j)) } else { 0.0 };
        (0..f.n * f.n).map(|k| entry(k / f.n, k % f.n)).collect()
    }

    #[test]
    fn the_factor_squared_is_the_inverse_in_every_order() {
        for n in [1, 7, 8, 30, 65] {
            let h = matrix(n);
            for order in [Order::Natural, Order::Activation, Order::GroupAware(5)] {
                let f = Factor::new(h.clone(), n, order, 0.01).unwrap();
                let mean = (0..n).map(|i| f64::from(h[i * n + i])).sum::<f64>() / n as f64;
                let u = dense(&f);
                // U (H + damping) U^T = 1.
                for i in 0..n {
                    for j in 0..n {
                        let mut sum = 0.0;
                        for (k, a) in f.order.iter().enumerate() {
                            for (l, b) in f.order.iter().enumerate() {
                                let damping = if k == l { 0.01 * mean } else { 0.0 };
                                sum += u[i * n + k] * (f64::from(h[a * n + b]) + damping) * u[j * n + l];
                            }
                        }
                        let want = if i == j { 1.0 } else { 0.0 };
                        assert!((sum - want).abs() < 2e-4, "({i}, {j}) of {n}, {order:?}: {sum}");
                    }
                }
            }
        }
    }

    #[test]
    fn orders_are_by_the_diagonal_and_ties_stay() {
        let diagonal = [1.0, 3.0, 3.0, 2.0, 9.0, 0.5];
        assert_eq!(ordered(&diagonal, Order::Activation), [4, 1, 2, 3, 0, 5]);
        assert_eq!(ordered(&diagonal, Order::GroupAware(2)), [4, 5, 1, 0, 2, 3]);
        assert_eq!(ordered(&diagonal, Order::GroupAware(3)), [4, 3, 5, 1, 2, 0]);
    }

    #[test]
    fn damping_grows_until_the_matrix_is_positive_definite() {
        // Eigenvalues 1.03 and -0.03: positive from damping 0.04 on.
        let f = Factor::new(vec![0.5, 0.53, 0.53, 0.5], 2, Order::Natural, 0.01).unwrap();
        assert!((0.06..0.075).contains(&f.damp_percent), "{}", f.damp_percent);
        let error = Factor::new(vec![0.5, 5.0, 5.0, 0.5], 2, Order::Natural, 0.01).unwrap_err();
        assert!(error.to_string().contains("positive definite"), "{error}");
    }

    #[test]
    fn what_no_gram_matrix_has_is_refused() {
        assert!(Factor::new(vec![0.0; 4], 2, Order::Natural, 0.01).is_err(), "all dead");
        assert!(Factor::new(vec![1.0, 0.0, 0.0, -1.0], 2, Order::Natural, 0.01).is_err(), "negative");
        assert!(Factor::new(vec![1.0, f32::NAN, 0.0, 1.0], 2, Order::Natural, 0.01).is_err(), "NaN");
        assert!(Factor::new(vec![1.0; 3], 2, Order::Natural, 0.01).is_err(), "shape");
        assert!(Factor::new(vec![1.0, 0.0, 0.0, 1.0], 2, Order::Natural, -0.5).is_err(), "damping");
        let f = Factor::new(vec![4.0, 0.0, 0.0, 0.0], 2, Order::Natural, 0.0).unwrap();
        assert_eq!((f.dead.as_slice(), f.entry(0, 0), f.entry(1, 1)), ([false, true].as_slice(), 0.5, 1.0));
    }

    #[test]
    fn threads_change_no_bit() {
        let (n, mut all) = (300, Vec::new());
        for threads in [1, 2, 3] {
            let f = quantrs_blocks::with_threads(Some(threads), || Factor::new(matrix(n), n, Order::Natural, 0.01));
            all.push(f.unwrap().panels);
        }
        assert!(all.iter().all(|panels| *panels == all[0]));
    }
}
