//! Integer weights from calibration statistics: no files, no models.
//!
//! `w` is `[out_features, in_features]`, row-major, quantized along `in_features`. Results never depend on the number of threads.

mod awq;
mod awq_clip;
mod awq_loss;
mod cholesky;
mod column_major;
mod error;
mod gptq;
mod grid;
mod grid_search;
mod hessian;
mod lanes;
mod product;
mod round_to_nearest;
mod smoothquant;

pub use awq::{AwqProblem, AwqScales, AwqSearch};
pub use awq_clip::{AwqClip, diagonal_blocks, group_grams};
pub use awq_loss::Outputs;
pub use cholesky::{Factor, Order};
pub use error::{SolverError, check_finite};
pub use gptq::{Gptq, Solution};
pub use grid::{Grid, Params, Rule, ScaleType};
pub use hessian::Hessian;
pub use lanes::ROWS;
pub use round_to_nearest::{GroupCodes, quantize_groups};
pub use smoothquant::smooth_scales;
