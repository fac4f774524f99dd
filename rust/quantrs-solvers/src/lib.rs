//! Integer weights from calibration statistics: no files, no models.
//!
//! `w` is `[out_features, in_features]`, row-major, quantized along `in_features`. Results never depend on the number of threads.

mod error;

pub use error::SolverError;
