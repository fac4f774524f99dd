//! What matrix products need beyond a level: fused multiply-add and the dot products of bytes (VNNI).
//!
//! The quantizers must not fuse, so the levels' own tokens do not turn these on; products ask the token for more.

use crate::{Avx2, Avx512};

/// Proof that this CPU has AVX2, F16C and FMA.
#[derive(Clone, Copy, Debug)]
pub struct Avx2Fma(());

/// Proof that this CPU has AVX2, F16C, FMA and AVX-VNNI.
#[derive(Clone, Copy, Debug)]
pub struct Avx2Vnni(());

/// Proof that this CPU has AVX-512 F, BW, DQ, VL and VNNI.
#[derive(Clone, Copy, Debug)]
pub struct Avx512Vnni(());

impl Avx2 {
    /// The token with fused multiply-add, if the CPU has it; all CPUs in use that have AVX2 do.
    pub fn fma(self) -> Option<Avx2Fma> {
        is_x86_feature_detected!("fma").then_some(Avx2Fma(()))
    }
}

impl Avx512 {
    /// As [`Avx2::fma`]: AVX-512 includes it.
    pub fn fma(self) -> Option<Avx2Fma> {
        is_x86_feature_detected!("fma").then_some(Avx2Fma(()))
    }

    /// The token with the dot products of bytes, if the CPU has them.
    pub fn vnni(self) -> Option<Avx512Vnni> {
        let has = is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("fma");
        has.then_some(Avx512Vnni(()))
    }
}

impl Avx2Fma {
    /// The token with the dot products of bytes in their AVX encoding, if the CPU has them.
    pub fn vnni(self) -> Option<Avx2Vnni> {
        is_x86_feature_detected!("avxvnni").then_some(Avx2Vnni(()))
    }
}

/// `vectorize` of a token: call a closure compiled with its features.
macro_rules! vectorize {
    ($($token:ident: $features:literal),*) => {$(
        impl $token {
            /// Call `f` compiled with these instructions.
            #[inline(always)]
            pub fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
                #[target_feature(enable = $features)]
                fn with_features<R>(f: impl FnOnce() -> R) -> R {
                    f()
                }
                // SAFETY: a value of this type exists only where detection found these features.
                unsafe { with_features(f) }
            }
        }
    )*};
}

vectorize! {
    Avx2Fma: "avx2,f16c,fma",
    Avx2Vnni: "avx2,f16c,fma,avxvnni",
    Avx512Vnni: "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,f16c,fma"
}
