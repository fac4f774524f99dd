//! The table of formats: one row each, by ggml type id.

use crate::format::{BlockFormat, Importance, Scales};
use crate::formats::*;

const fn row(
    name: &'static str,
    id: u32,
    block_len: usize,
    block_bytes: usize,
    importance: Importance,
    scales: Scales,
) -> BlockFormat {
    BlockFormat {
        name,
        id,
        block_len,
        block_bytes,
        importance,
        scales,
        quantize_ref: None,
        quantize: None,
        dequantize: None,
        clip_above: None,
    }
}

/// Every type id of ggml that is in use, ascending.
#[rustfmt::skip]
pub static FORMATS: &[BlockFormat] = &[
    BlockFormat { quantize_ref: Some(float::quantize_f32_ref), quantize: Some(float::quantize_f32), dequantize: Some(float::dequantize_f32), ..row("F32", 0, 1, 4, Importance::Ignored, Scales::F32) },
    BlockFormat { quantize_ref: Some(float::quantize_f16_ref), quantize: Some(float::quantize_f16), dequantize: Some(float::dequantize_f16), ..row("F16", 1, 1, 2, Importance::Ignored, Scales::F16(&[0])) },
    BlockFormat { quantize_ref: Some(q4_0::quantize_ref), quantize: Some(q4_0::quantize), dequantize: Some(q4_0::dequantize), ..row("Q4_0", 2, 32, 18, Importance::Used, Scales::F16(&[0])) },
    BlockFormat { quantize_ref: Some(q4_1::quantize_ref), quantize: Some(q4_1::quantize), dequantize: Some(q4_1::dequantize), ..row("Q4_1", 3, 32, 20, Importance::Used, Scales::F16(&[0, 2])) },
    BlockFormat { quantize_ref: Some(q5_0::quantize_ref), quantize: Some(q5_0::quantize), dequantize: Some(q5_0::dequantize), ..row("Q5_0", 6, 32, 22, Importance::Used, Scales::F16(&[0])) },
    BlockFormat { quantize_ref: Some(q5_1::quantize_ref), quantize: Some(q5_1::quantize), dequantize: Some(q5_1::dequantize), ..row("Q5_1", 7, 32, 24, Importance::Used, Scales::F16(&[0, 2])) },
    BlockFormat { quantize_ref: Some(q8_0::quantize_ref), quantize: Some(q8_0::quantize), dequantize: Some(q8_0::dequantize), ..row("Q8_0", 8, 32, 34, Importance::Ignored, Scales::F16(&[0])) },
    BlockFormat { quantize_ref: Some(q8_1::quantize_ref), quantize: Some(q8_1::quantize), dequantize: Some(q8_1::dequantize), ..row("Q8_1", 9, 32, 36, Importance::Ignored, Scales::F16(&[0])) },
    BlockFormat { quantize_ref: Some(q2_k::quantize_ref), quantize: Some(q2_k::quantize), dequantize: Some(q2_k::dequantize), ..row("Q2_K", 10, 256, 84, Importance::Used, Scales::F16(&[80, 82])) },
    BlockFormat { quantize_ref: Some(q3_k::quantize_ref), quantize: Some(q3_k::quantize), dequantize: Some(q3_k::dequantize), ..row("Q3_K", 11, 256, 110, Importance::Used, Scales::F16(&[108])) },
    BlockFormat { quantize_ref: Some(q4_k::quantize_ref), quantize: Some(q4_k::quantize), dequantize: Some(q4_k::dequantize), ..row("Q4_K", 12, 256, 144, Importance::Used, Scales::F16(&[0, 2])) },
    BlockFormat { quantize_ref: Some(q5_k::quantize_ref), quantize: Some(q5_k::quantize), dequantize: Some(q5_k::dequantize), ..row("Q5_K", 13, 256, 176, Importance::Used, Scales::F16(&[0, 2])) },
    BlockFormat { quantize_ref: Some(q6_k::quantize_ref), quantize: Some(q6_k::quantize), dequantize: Some(q6_k::dequantize), ..row("Q6_K", 14, 256, 210, Importance::Used, Scales::F16(&[208])) },
    BlockFormat { quantize_ref: Some(q8_k::quantize_ref), quantize: Some(q8_k::quantize), dequantize: Some(q8_k::dequantize), ..row("Q8_K", 15, 256, 292, Importance::Ignored, Scales::F32) },
    BlockFormat { dequantize: Some(iq2_xxs::dequantize), ..row("IQ2_XXS", 16, 256, 66, Importance::Required, Scales::F16(&[0])) },
    BlockFormat { dequantize: Some(iq2_xs::dequantize), ..row("IQ2_XS", 17, 256, 74, Importance::Required, Scales::F16(&[0])) },
    BlockFormat { dequantize: Some(iq3_xxs::dequantize), ..row("IQ3_XXS", 18, 256, 98, Importance::Used, Scales::F16(&[0])) },
    BlockFormat { dequantize: Some(iq1_s::dequantize), ..row("IQ1_S", 19, 256, 50, Importance::Required, Scales::F16(&[0])) },
    BlockFormat { quantize_ref: Some(iq4_nl::quantize_ref), quantize: Some(iq4_nl::quantize), dequantize: Some(iq4_nl::dequantize), ..row("IQ4_NL", 20, 32, 18, Importance::Used, Scales::F16(&[0])) },
    BlockFormat { dequantize: Some(iq3_s::dequantize), ..row("IQ3_S", 21, 256, 110, Importance::Used, Scales::F16(&[0])) },
    BlockFormat { dequantize: Some(iq2_s::dequantize), ..row("IQ2_S", 22, 256, 82, Importance::Used, Scales::F16(&[0])) },
    BlockFormat { quantize_ref: Some(iq4_xs::quantize_ref), quantize: Some(iq4_xs::quantize), dequantize: Some(iq4_xs::dequantize), ..row("IQ4_XS", 23, 256, 136, Importance::Used, Scales::F16(&[0])) },
    row("I8", 24, 1, 1, Importance::Ignored, Scales::None),
    row("I16", 25, 1, 2, Importance::Ignored, Scales::None),
    row("I32", 26, 1, 4, Importance::Ignored, Scales::None),
    row("I64", 27, 1, 8, Importance::Ignored, Scales::None),
    row("F64", 28, 1, 8, Importance::Ignored, Scales::None),
    BlockFormat { dequantize: Some(iq1_m::dequantize), ..row("IQ1_M", 29, 256, 56, Importance::Used, Scales::Iq1M) },
    BlockFormat { quantize_ref: Some(float::quantize_bf16_ref), quantize: Some(float::quantize_bf16), dequantize: Some(float::dequantize_bf16), ..row("BF16", 30, 1, 2, Importance::Ignored, Scales::Bf16) },
    BlockFormat { quantize_ref: Some(tq1_0::quantize_ref), quantize: Some(tq1_0::quantize), dequantize: Some(tq1_0::dequantize), ..row("TQ1_0", 34, 256, 54, Importance::Ignored, Scales::F16(&[52])) },
    BlockFormat { quantize_ref: Some(tq2_0::quantize_ref), quantize: Some(tq2_0::quantize), dequantize: Some(tq2_0::dequantize), ..row("TQ2_0", 35, 256, 66, Importance::Ignored, Scales::F16(&[64])) },
    BlockFormat { quantize_ref: Some(mxfp4::quantize_ref), quantize: Some(mxfp4::quantize), dequantize: Some(mxfp4::dequantize), ..row("MXFP4", 39, 32, 17, Importance::Ignored, Scales::E8M0) },
    BlockFormat { quantize_ref: Some(nvfp4::quantize_ref), quantize: Some(nvfp4::quantize), dequantize: Some(nvfp4::dequantize), clip_above: Some(2688.0), ..row("NVFP4", 40, 64, 36, Importance::Ignored, Scales::None) },
    BlockFormat { quantize_ref: Some(q1_0::quantize_ref), quantize: Some(q1_0::quantize), dequantize: Some(q1_0::dequantize), ..row("Q1_0", 41, 128, 18, Importance::Ignored, Scales::F16(&[0])) },
    BlockFormat { quantize_ref: Some(q2_0::quantize_ref), quantize: Some(q2_0::quantize), dequantize: Some(q2_0::dequantize), ..row("Q2_0", 42, 64, 18, Importance::Ignored, Scales::F16(&[0])) },
];

/// The format with this ggml type id.
pub fn by_id(id: u32) -> Option<&'static BlockFormat> {
    FORMATS.iter().find(|f| f.id == id)
}

/// The format with this name, in any letter case.
pub fn by_name(name: &str) -> Option<&'static BlockFormat> {
    FORMATS.iter().find(|f| f.name.eq_ignore_ascii_case(name))
}
