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
}
