//! Integer weights from calibration statistics: no files, no models.
//!
//! `w` is `[out_features, in_features]`, row-major, quantized along `in_features`. Results never depend on the number of threads.

mod error;
mod grid;
mod grid_search;
mod lanes;
mod round_to_nearest;

pub use error::{SolverError, check_finite};
pub use grid::{Grid, Params, Rule, ScaleType};
pub use lanes::ROWS;
pub use round_to_nearest::{GroupCodes, quantize_groups};
