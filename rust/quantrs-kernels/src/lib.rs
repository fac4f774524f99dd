//! Matrix products of packed weights, and the thread pool they run on.
//!
//! Weights stay as they lie in the file. [`Activations`] are packed once per input and used by several matrices; [`matmul`]
//! unpacks a panel of weight rows into bytes and multiplies it with all columns in integers, or decodes it to float32 where the
//! weights are floats or exactness was asked for. Results never depend on the number of threads.

mod activations;
mod attention;
mod bandwidth;
mod disjoint;
pub mod elementwise;
mod error;
mod float;
mod gemm;
mod gemv;
mod isa;
mod isa_plain;
#[cfg(target_arch = "x86_64")]
mod isa_x86;
mod kv_cache;
mod matmul;
mod matmul_i8;
mod matrix;
pub mod norms;
mod output;
mod panel;
mod pool;
mod rope;
mod rows;
mod scores;
mod tasks;
mod unpack;

pub use activations::{Activations, Form, Precision};
pub use attention::Attention;
pub use bandwidth::read_bandwidth;
pub use disjoint::Disjoint;
pub use error::KernelError;
pub use kv_cache::{KvCache, KvShape, KvType};
pub use matmul::{matmul, matmul_each};
pub use matmul_i8::matmul_i8;
pub use matrix::Matrix;
pub use pool::Pool;
pub use rope::{Rope, RopeScaling, RopeStyle, RopeTable};
pub use rows::for_rows;
pub use scores::{Divergence, Softmax};
