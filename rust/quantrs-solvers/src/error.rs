//! What can be wrong with what a solver is given.

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
pub enum SolverError {
    /// An argument does not fit the others.
    #[error("{what}: found {found}, expected {expected}")]
    Argument {
        /// Which one.
        what: &'static str,
        /// What it is.
        found: String,
        /// What it has to be.
        expected: String,
    },
    /// A NaN or an infinity where there must be none.
    #[error("{what}: found {value} in row {row}, column {column}, expected finite numbers")]
    NotFinite {
        /// Which array.
        what: &'static str,
        /// Its row.
        row: usize,
        /// Its column.
        column: usize,
        /// What is there.
        value: f32,
    },
    /// A scale that its type cannot hold.
    #[error("w: row {row}, group {group} needs a scale beyond {scale_type}; use a wider type of scales")]
    ScaleOverflow {
        /// Row of w.
        row: usize,
        /// Group of the row.
        group: usize,
        /// Type of the scale.
        scale_type: &'static str,
    },
    /// No damping up to the mean of the diagonal makes the Hessian positive definite.
    #[error("hessian: not positive definite even with damp_percent 1; is it a sum of products of inputs?")]
    NotPositiveDefinite,
}

/// Whether every value of `values`, rows of `n_columns`, is finite; else where the first one is that is not.
pub fn check_finite(what: &'static str, values: &[f32], n_columns: usize) -> Result<(), SolverError> {
    use rayon::prelude::*;
    const CHUNK: usize = 1 << 14;
    // 0 * x is 0 for finite x, else NaN; sixteen sums hide the latency of the additions.
    let finite = |chunk: &[f32]| {
        let mut sums = [0.0f32; 16];
        let (whole, rest) = chunk.as_chunks::<16>();
        for sixteen in whole {
            for (sum, v) in sums.iter_mut().zip(sixteen) {
                *sum += v * 0.0;
            }
        }
        sums.iter().sum::<f32>() == 0.0 && rest.iter().all(|v| v.is_finite())
    };
    let bad = values.par_chunks(CHUNK).enumerate().find_first(|(_, chunk)| !finite(chunk));
    let Some((chunk, values)) = bad else { return Ok(()) };
    let Some(i) = values.iter().position(|v| !v.is_finite()) else { return Ok(()) };
    let at = chunk * CHUNK + i;
    Err(SolverError::NotFinite { what, row: at / n_columns, column: at % n_columns, value: values[i] })
}
