//! The CPU levels, their detection and the environment variable that forces one.

use crate::Lanes4;
#[cfg(target_arch = "x86_64")]
use crate::{Avx2, Avx512};
use std::sync::OnceLock;

/// An instruction set that this CPU has, lowest first.
#[derive(Clone, Copy, Debug)]
pub enum Level {
    /// The plain reference code.
    Scalar,
    /// Four lanes with what every CPU of this architecture has: SSE2 or NEON.
    Baseline(Lanes4),
    /// Eight lanes: AVX2 and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// Sixteen lanes: AVX-512 F, BW, DQ and VL.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
}

/// `QUANTRS_LEVEL` names a level that does not exist or that this CPU lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LevelError {
    /// What was asked for.
    pub asked: String,
    /// The names that this CPU offers.
    pub available: Vec<&'static str>,
}

impl std::fmt::Display for LevelError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "QUANTRS_LEVEL={}: this CPU offers {}; set one of these or unset the variable",
            self.asked,
            self.available.join(", ")
        )
    }
}

impl std::error::Error for LevelError {}

const BASELINE: &str = if cfg!(target_arch = "x86_64") {
    "sse2"
} else if cfg!(target_arch = "aarch64") {
    "neon"
} else {
    "lanes4"
};

impl Level {
    /// Every level that this CPU can run, lowest first.
    pub fn all() -> Vec<Level> {
        #[allow(unused_mut, reason = "levels are pushed on x86-64 only")]
        let mut levels = vec![Level::Scalar, Level::Baseline(Lanes4::new())];
        #[cfg(target_arch = "x86_64")]
        {
            levels.extend(Avx2::detect().map(Level::Avx2));
            levels.extend(Avx512::detect().map(Level::Avx512));
        }
        levels
    }

    /// `scalar`, `sse2` or `neon`, `avx2`, `avx512`.
    pub fn name(self) -> &'static str {
        match self {
            Level::Scalar => "scalar",
            Level::Baseline(_) => BASELINE,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512(_) => "avx512",
        }
    }

    /// The level called `name`, if this CPU has it.
    pub fn from_name(name: &str) -> Result<Level, LevelError> {
        let all = Level::all();
        all.iter()
            .copied()
            .find(|l| l.name() == name)
            .ok_or_else(|| LevelError { asked: name.to_owned(), available: all.iter().map(|l| l.name()).collect() })
    }

    /// The level to use: what `QUANTRS_LEVEL` names, or else the highest. Read once per process.
    pub fn from_env() -> Result<Level, LevelError> {
        static CHOICE: OnceLock<Result<Level, LevelError>> = OnceLock::new();
        CHOICE
            .get_or_init(|| match std::env::var("QUANTRS_LEVEL") {
                Ok(name) if !name.is_empty() => Level::from_name(&name),
                _ => Ok(Level::detect()),
            })
            .clone()
    }

    /// The highest level of this CPU.
    pub fn detect() -> Level {
        *Level::all().last().expect("scalar is always there")
    }

    /// Run plain code compiled for this level, so that the compiler may vectorize it with all that the CPU has.
    #[inline(always)]
    pub fn run<R>(self, f: impl FnOnce() -> R) -> R {
        match self {
            Level::Scalar | Level::Baseline(_) => f(),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2(s) => crate::Simd::vectorize(s, f),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512(s) => crate::Simd::vectorize(s, f),
        }
    }
}

/// Choose the instance of a generic algorithm for a level: `dispatch!(level, s => generic(s, ..), scalar => plain(..))`.
///
/// The expression after `s =>` is compiled once per level with that level's instructions enabled; everything it calls has to
/// be `#[inline(always)]` for that to reach it.
#[macro_export]
macro_rules! dispatch {
    ($level:expr, $s:ident => $lanes:expr, scalar => $scalar:expr) => {
        match $level {
            $crate::Level::Scalar => $scalar,
            $crate::Level::Baseline($s) => $lanes,
            #[cfg(target_arch = "x86_64")]
            $crate::Level::Avx2($s) => $crate::Simd::vectorize(
                $s,
                #[inline(always)]
                || $lanes,
            ),
            #[cfg(target_arch = "x86_64")]
            $crate::Level::Avx512($s) => $crate::Simd::vectorize(
                $s,
                #[inline(always)]
                || $lanes,
            ),
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_is_found_by_its_name_and_others_are_refused() {
        for level in Level::all() {
            assert_eq!(Level::from_name(level.name()).unwrap().name(), level.name());
        }
        let error = Level::from_name("nonesuch").unwrap_err();
        assert!(error.to_string().contains("scalar"), "{error}");
    }
}
