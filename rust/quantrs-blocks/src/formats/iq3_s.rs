//! IQ3_S

use quantrs_simd::Level;

pub(crate) fn dequantize(_level: Level, _packed: &[u8], _out: &mut [f32]) {}
