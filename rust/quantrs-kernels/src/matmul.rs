//! The product of packed weights and activations.

use crate::{Activations, Disjoint, Matrix, Pool};
use quantrs_simd::Level;

/// Rows of a task.
const PANEL: usize = 32;

/// `y[i, r] = sum over k of w[r, k] * x[i, k]`; y: `[n, n_rows]` row-major.
///
/// The result is the same for any number of threads. Panics when the shapes do not belong together.
pub fn matmul(pool: &Pool, level: Level, w: &Matrix<'_>, x: &Activations, y: &mut [f32]) {
    let (n, n_rows, n_cols) = (x.n(), w.n_rows(), w.n_cols());
    assert_eq!(x.n_cols(), n_cols, "weights and activations differ in their columns");
    assert_eq!(y.len(), n * n_rows, "the result has {n} rows of {n_rows}");
    let dequantize = w.format().dequantize.expect("checked by Matrix::new");
    let y = Disjoint::new(y);
    pool.run(n_rows.div_ceil(PANEL), |panel| {
        let mut weights = vec![0.0; n_cols];
        for r in panel * PANEL..n_rows.min((panel + 1) * PANEL) {
            dequantize(level, w.row(r), &mut weights);
            for (i, x) in x.x.chunks_exact(n_cols).enumerate() {
                let dot = weights.iter().zip(x).fold(0.0, |sum, (w, x)| sum + w * x);
                // SAFETY: row `r` belongs to this task alone.
                let y = unsafe { y.range(i * n_rows + r, 1) };
                y[0] = dot;
            }
        }
    });
}
