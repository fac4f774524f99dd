//! F32, F16, BF16

use crate::format::Rows;
use quantrs_simd::Level;

pub(crate) fn quantize_f32_ref(_rows: Rows<'_>, _out: &mut [u8]) {}
pub(crate) fn quantize_f32(_level: Level, _rows: Rows<'_>, _out: &mut [u8]) {}
pub(crate) fn dequantize_f32(_level: Level, _packed: &[u8], _out: &mut [f32]) {}
pub(crate) fn quantize_f16_ref(_rows: Rows<'_>, _out: &mut [u8]) {}
pub(crate) fn quantize_f16(_level: Level, _rows: Rows<'_>, _out: &mut [u8]) {}
pub(crate) fn dequantize_f16(_level: Level, _packed: &[u8], _out: &mut [f32]) {}
pub(crate) fn quantize_bf16_ref(_rows: Rows<'_>, _out: &mut [u8]) {}
pub(crate) fn quantize_bf16(_level: Level, _rows: Rows<'_>, _out: &mut [u8]) {}
pub(crate) fn dequantize_bf16(_level: Level, _packed: &[u8], _out: &mut [f32]) {}
