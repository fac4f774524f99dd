//! CPU levels as proofs, and the vector operations that quantrs uses.
//!
//! A [`Level`] names the best instruction set that a computation may use. Levels above scalar carry a token, and a token is only
//! made by detection: whoever holds an [`Avx2`] runs on a CPU that has AVX2, so the operations of [`Simd`] need no further check.
//!
//! An algorithm is written once, generic over [`Simd`], and [`dispatch!`] instantiates it per level:
//!
//! ```
//! use quantrs_simd::{Level, Simd, dispatch};
//!
//! #[inline(always)]
//! fn double<S: Simd>(s: S, x: &[f32], out: &mut [f32]) {
//!     for (x, out) in x.chunks_exact(S::LANES).zip(out.chunks_exact_mut(S::LANES)) {
//!         let v = s.load(x);
//!         s.store(s.add(v, v), out);
//!     }
//! }
//!
//! let (x, mut out) = ([1.5; 16], [0.0; 16]);
//! dispatch!(Level::detect(), s => double(s, &x, &mut out), scalar => {
//!     for (x, out) in x.iter().zip(&mut out) {
//!         *out = x + x;
//!     }
//! });
//! assert_eq!(out, [3.0; 16]);
//! ```
//!
//! Every operation is one correctly rounded IEEE operation and gives the same bits on all levels; none is contracted into a
//! fused multiply-add, and none is reassociated. That is what lets a lane repeat a scalar algorithm exactly.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod fused;
mod half;
mod lanes4;
mod level;
#[cfg(target_arch = "x86_64")]
mod products;
mod rounding;
mod twice;
mod vector;

#[cfg(target_arch = "x86_64")]
pub use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub use avx512::Avx512;
pub use fused::Fused;
pub use half::{bf16_bits, bf16_value, f16_bits, f16_value};
pub use lanes4::Lanes4;
pub use level::{Level, LevelError};
#[cfg(target_arch = "x86_64")]
pub use products::{Avx2Fma, Avx2Vnni, Avx512Vnni};
pub use rounding::{nearest_int_ggml, round_half_away, trunc_i32};
pub use twice::Twice;
pub use vector::Simd;
