//! Q8_0

use crate::format::Rows;
use quantrs_simd::Level;

pub(crate) fn quantize_ref(_rows: Rows<'_>, _out: &mut [u8]) {}

pub(crate) fn quantize(_level: Level, _rows: Rows<'_>, _out: &mut [u8]) {}

pub(crate) fn dequantize(_level: Level, _packed: &[u8], _out: &mut [f32]) {}
