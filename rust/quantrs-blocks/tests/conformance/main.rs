//! What holds for every row of the registry: levels agree, edges are harmless, errors stay within the grid's step.

mod edges;
mod inputs;
mod levels;
mod properties;

use quantrs_blocks::{BlockFormat, FORMATS, Importance, Rows};
use quantrs_simd::Level;

/// The formats that have a quantizer.
fn writable() -> impl Iterator<Item = &'static BlockFormat> {
    FORMATS.iter().filter(|f| f.quantize.is_some())
}

/// The formats that have a decoder.
fn readable() -> impl Iterator<Item = &'static BlockFormat> {
    FORMATS.iter().filter(|f| f.dequantize.is_some())
}

/// The kinds of importance that a format can be quantized with.
fn importances<'a>(format: &BlockFormat, weights: &'a [f32]) -> Vec<Option<&'a [f32]>> {
    match format.importance {
        Importance::Ignored => vec![None],
        Importance::Used => vec![None, Some(weights)],
        Importance::Required => vec![Some(weights)],
    }
}

/// Bytes of all rows, at one level.
fn quantize(format: &BlockFormat, level: Level, rows: Rows<'_>) -> Vec<u8> {
    let mut packed = vec![0xa5; rows.x.len() / format.block_len * format.block_bytes];
    format.quantize.expect("a writable format")(level, rows, &mut packed);
    packed
}

/// Bytes of all rows, by the reference.
fn quantize_ref(format: &BlockFormat, rows: Rows<'_>) -> Vec<u8> {
    let mut packed = vec![0x5a; rows.x.len() / format.block_len * format.block_bytes];
    format.quantize_ref.expect("a writable format")(rows, &mut packed);
    packed
}

/// Values of packed blocks, at one level.
fn dequantize(format: &BlockFormat, level: Level, packed: &[u8]) -> Vec<f32> {
    let mut values = vec![-1.0; packed.len() / format.block_bytes * format.block_len];
    format.dequantize.expect("a readable format")(level, packed, &mut values);
    values
}

/// The values that come back from one row, and its bytes.
fn round_trip(format: &BlockFormat, x: &[f32], importance: Option<&[f32]>) -> (Vec<u8>, Vec<f32>) {
    let packed = quantize(format, Level::detect(), Rows { x, n_cols: x.len(), importance });
    let values = dequantize(format, Level::detect(), &packed);
    (packed, values)
}

/// The largest magnitude.
fn amax(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |max, x| max.max(x.abs()))
}
