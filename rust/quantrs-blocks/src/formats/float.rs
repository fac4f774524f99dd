//! F32, F16 and BF16: blocks of one value.

use crate::format::Rows;
use quantrs_simd::{Level, Simd, bf16_bits, bf16_value, dispatch, f16_bits, f16_value};

/// Format    1 value -> 4 bytes, little-endian. 32 bpw
/// Value     the same
/// Shapes    rows: f32[n]; out: u8[4n]
/// Exact     a copy
pub(crate) fn quantize_f32_ref(rows: Rows<'_>, out: &mut [u8]) {
    for (x, out) in rows.x.iter().zip(out.chunks_exact_mut(4)) {
        out.copy_from_slice(&x.to_le_bytes());
    }
}

/// As [`quantize_f32_ref`]: the plain loop is a copy at every level.
pub(crate) fn quantize_f32(_: Level, rows: Rows<'_>, out: &mut [u8]) {
    quantize_f32_ref(rows, out);
}

/// Inverse of [`quantize_f32`].
pub(crate) fn dequantize_f32(_: Level, packed: &[u8], out: &mut [f32]) {
    for (b, out) in packed.chunks_exact(4).zip(out) {
        *out = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
    }
}

/// Format    1 value -> 2 bytes, IEEE binary16, little-endian. 16 bpw
/// Value     the same
/// Rounding  to nearest, half to even; subnormals are kept
/// Edges     |w| >= 65520 becomes infinite: refused by the caller's check
/// Shapes    rows: f32[n]; out: u8[2n]
/// Exact     bytes equal `ggml_fp32_to_fp16_row`, ggml 0.25.3
/// Source    ggml `src/ggml.c` at llama.cpp 0c1e57098
pub(crate) fn quantize_f16_ref(rows: Rows<'_>, out: &mut [u8]) {
    for (&x, out) in rows.x.iter().zip(out.chunks_exact_mut(2)) {
        out.copy_from_slice(&f16_bits(x).to_le_bytes());
    }
}

/// As [`quantize_f16_ref`].
pub(crate) fn quantize_f16(level: Level, rows: Rows<'_>, out: &mut [u8]) {
    dispatch!(level, s => quantize_f16_lanes(s, rows, out), scalar => quantize_f16_ref(rows, out));
}

#[inline(always)]
fn quantize_f16_lanes<S: Simd>(s: S, rows: Rows<'_>, out: &mut [u8]) {
    let whole = rows.x.len() / S::LANES * S::LANES;
    let (x, x_tail) = rows.x.split_at(whole);
    let (out, out_tail) = out.split_at_mut(2 * whole);
    for (x, out) in x.chunks_exact(S::LANES).zip(out.chunks_exact_mut(2 * S::LANES)) {
        s.store_f16(s.load(x), out);
    }
    quantize_f16_ref(Rows { x: x_tail, ..rows }, out_tail);
}

fn dequantize_f16_ref(packed: &[u8], out: &mut [f32]) {
    for (b, out) in packed.chunks_exact(2).zip(out) {
        *out = f16_value(u16::from_le_bytes([b[0], b[1]]));
    }
}

/// Inverse of [`quantize_f16`].
pub(crate) fn dequantize_f16(level: Level, packed: &[u8], out: &mut [f32]) {
    dispatch!(level, s => dequantize_f16_lanes(s, packed, out), scalar => dequantize_f16_ref(packed, out));
}

#[inline(always)]
fn dequantize_f16_lanes<S: Simd>(s: S, packed: &[u8], out: &mut [f32]) {
    let whole = out.len() / S::LANES * S::LANES;
    let (packed, packed_tail) = packed.split_at(2 * whole);
    let (out, out_tail) = out.split_at_mut(whole);
    for (b, out) in packed.chunks_exact(2 * S::LANES).zip(out.chunks_exact_mut(S::LANES)) {
        s.store(s.load_f16(b), out);
    }
    dequantize_f16_ref(packed_tail, out_tail);
}

/// Format    1 value -> 2 bytes, the upper half of binary32, little-endian. 16 bpw
/// Value     the same
/// Rounding  to nearest, half to even; subnormals are kept
/// Edges     |w| above the largest bfloat16 by half a step becomes infinite: refused by the caller's check
/// Shapes    rows: f32[n]; out: u8[2n]
/// Exact     bytes equal `ggml_fp32_to_bf16_row_ref`, ggml 0.25.3
/// Source    ggml `src/ggml.c` at llama.cpp 0c1e57098
pub(crate) fn quantize_bf16_ref(rows: Rows<'_>, out: &mut [u8]) {
    quantize_bf16_plain(rows, out);
}

#[inline(always)]
fn quantize_bf16_plain(rows: Rows<'_>, out: &mut [u8]) {
    for (&x, out) in rows.x.iter().zip(out.chunks_exact_mut(2)) {
        out.copy_from_slice(&bf16_bits(x).to_le_bytes());
    }
}

/// As [`quantize_bf16_ref`]: integer arithmetic, which the compiler vectorizes.
pub(crate) fn quantize_bf16(level: Level, rows: Rows<'_>, out: &mut [u8]) {
    level.run(
        #[inline(always)]
        || quantize_bf16_plain(rows, out),
    );
}

/// Inverse of [`quantize_bf16`].
pub(crate) fn dequantize_bf16(level: Level, packed: &[u8], out: &mut [f32]) {
    level.run(
        #[inline(always)]
        || {
            for (b, out) in packed.chunks_exact(2).zip(out) {
                *out = bf16_value(u16::from_le_bytes([b[0], b[1]]));
            }
        },
    );
}
