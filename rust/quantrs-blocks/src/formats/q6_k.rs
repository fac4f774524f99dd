//! Q6_K: super-blocks of 256 in sixteen sub-blocks of 16, each with a signed 8-bit scale.

use super::k_batches::{
    BLOCK_LEN, MAX_BATCH, Weighting, block_weights_ref, for_batches, repeat_each, requantize, requantize_ref,
};
use crate::format::Rows;
use crate::pack::{get_f16, put_f16};
use crate::search::{EPS, SymFit, signed_max, sym, sym_ref};
use quantrs_simd::{Level, Simd, Twice, dispatch, nearest_int_ggml};
use std::array::from_fn;

const BLOCK_BYTES: usize = 210;
/// Values per sub-block.
const SUB: usize = 16;
const N_SUB: usize = 16;
const NMAX: i32 = 32;
/// Smallest and largest level before the bias.
const LEVELS: (i32, i32) = (-NMAX, NMAX - 1);

/// Format    256 values -> 210 bytes: ql[128], qh[64], scales[16] (i8), d (f16); 6.5625 bpw. Of element 128n + 32p + l: the low
///           four bits are a nibble of ql[64n + 32 (p % 2) + l], low for p < 2, else high; the high two are bits 2p of qh[32n + l]
/// Value     w ~ (d * sc) * (q - 32), q in 0..=63, sc in -128..=127
/// Search    `search::sym` per sub-block, weights x^2; with importance w
/// Rounding  sc = min(127, nearest_int(-128 / scale of largest magnitude * scale)); then q anew from the stored d * sc
/// Edges     stored scale 0: the levels that the search left; largest scale below 1e-15: 210 zero bytes
/// Shapes    rows: f32[n], n % 256 == 0; out: u8[n / 256 * 210]
/// Exact     bytes equal `quantize_row_q6_K_ref` and `quantize_q6_K`, ggml 0.25.3, FP contraction off
/// Source    ggml `src/ggml-quants.c` at llama.cpp 0c1e57098
pub(crate) fn quantize_ref(rows: Rows<'_>, out: &mut [u8]) {
    for (i, out) in out.chunks_exact_mut(BLOCK_BYTES).enumerate() {
        let x = rows.block(i, BLOCK_LEN);
        let weights = match rows.block_importance(i, BLOCK_LEN) {
            Some(importance) => block_weights_ref(Weighting::Plain, x, importance),
            None => from_fn(|i| x[i] * x[i]),
        };
        let (mut scales, mut iscales) = ([0.0; N_SUB], [0.0; N_SUB]);
        for (j, (x, weights)) in x.chunks_exact(SUB).zip(weights.chunks_exact(SUB)).enumerate() {
            let fit = sym_ref(NMAX, x, weights);
            (scales[j], iscales[j]) = (fit.scale, fit.iscale);
        }
        encode(x, &scales, &iscales, |scales| requantize_ref(x, scales, &[0.0; N_SUB], LEVELS), out);
    }
}

/// As [`quantize_ref`], one sub-block per lane.
pub(crate) fn quantize(level: Level, rows: Rows<'_>, out: &mut [u8]) {
    dispatch!(level, s => quantize_lanes(s, rows, out), scalar => quantize_ref(rows, out));
}

#[inline(always)]
fn quantize_lanes<S: Simd>(s: S, rows: Rows<'_>, out: &mut [u8]) {
    let twice = Twice(s);
    let n_blocks = out.len() / BLOCK_BYTES;
    for_batches(
        twice,
        rows,
        n_blocks,
        Weighting::Plain,
        &mut SymFit { scale: [0.0; MAX_BATCH], iscale: [0.0; MAX_BATCH] },
        #[inline(always)]
        |fits, at, x: &[_; SUB], weights| {
            let fit = if let Some(weights) = weights {
                sym(twice, NMAX, x, weights)
            } else {
                let mut weights = *x;
                for w in &mut weights {
                    *w = twice.mul(*w, *w);
                }
                sym(twice, NMAX, x, &weights)
            };
            twice.store(fit.scale, &mut fits.scale[at..]);
            twice.store(fit.iscale, &mut fits.iscale[at..]);
        },
        #[inline(always)]
        |fits, first, n| {
            for (b, out) in out[first * BLOCK_BYTES..].chunks_exact_mut(BLOCK_BYTES).take(n).enumerate() {
                let x = rows.block(first + b, BLOCK_LEN);
                let scales = fits.scale[b * N_SUB..].first_chunk().expect("a table holds a batch");
                let iscales = fits.iscale[b * N_SUB..].first_chunk().expect("a table holds a batch");
                encode(
                    x,
                    scales,
                    iscales,
                    #[inline(always)]
                    |scales| requantize(s, x, scales, &[0.0; N_SUB], LEVELS),
                    out,
                );
            }
        },
    );
}

/// Quantize the scales, then the values against the stored scales with `requantize(scales)`, and pack.
#[inline(always)]
fn encode(
    x: &[f32],
    fit_scales: &[f32; N_SUB],
    iscales: &[f32; N_SUB],
    requantize: impl Fn(&[f32; N_SUB]) -> [u8; BLOCK_LEN],
    out: &mut [u8],
) {
    let max_scale = signed_max(fit_scales);
    if max_scale.abs() < EPS {
        out.fill(0);
        return;
    }
    let inverse = -128.0 / max_scale;
    for (code, scale) in out[192..].iter_mut().zip(fit_scales) {
        *code = nearest_int_ggml(inverse * scale).min(127) as u8;
    }
    put_f16(&mut out[208..], 1.0 / inverse);
    let scales = get_scales(out);
    let mut q = requantize(&scales);
    for j in (0..N_SUB).filter(|&j| scales[j] == 0.0) {
        let fit = SymFit { scale: fit_scales[j], iscale: iscales[j] };
        for (q, &x) in q[j * SUB..][..SUB].iter_mut().zip(&x[j * SUB..]) {
            *q = fit.level(x, NMAX);
        }
    }
    let (ql, qh) = out.split_at_mut(128);
    for (half, q) in q.chunks_exact(128).enumerate() {
        let (ql, qh) = (&mut ql[64 * half..][..64], &mut qh[32 * half..][..32]);
        for l in 0..32 {
            let (a, b, c, d) = (q[l], q[l + 32], q[l + 64], q[l + 96]);
            ql[l] = (a & 15) | c << 4;
            ql[l + 32] = (b & 15) | d << 4;
            qh[l] = a >> 4 | (b >> 4) << 2 | (c >> 4) << 4 | (d >> 4) << 6;
        }
    }
}

/// d * scale of every sub-block, as stored.
#[inline(always)]
fn get_scales(block: &[u8]) -> [f32; N_SUB] {
    let d = get_f16(&block[208..]);
    from_fn(|j| d * f32::from(block[192 + j].cast_signed()))
}

/// Inverse of [`quantize`].
pub(crate) fn dequantize(level: Level, packed: &[u8], out: &mut [f32]) {
    level.run(
        #[inline(always)]
        || {
            for (b, out) in packed.chunks_exact(BLOCK_BYTES).zip(out.chunks_exact_mut(BLOCK_LEN)) {
                let scales = get_scales(b);
                for (i, out) in out.chunks_exact_mut(32).enumerate() {
                    let (half, plane) = (i / 4, i % 4);
                    let ql: &[u8; 32] = b[64 * half + 32 * (plane % 2)..].first_chunk().expect("32 bytes");
                    let qh: &[u8; 32] = b[128 + 32 * half..].first_chunk().expect("32 bytes");
                    let scales = repeat_each(scales[2 * i], scales[2 * i + 1]);
                    for l in 0..32 {
                        let low = i32::from(ql[l]) >> (4 * (plane / 2)) & 15;
                        let high = i32::from(qh[l]) >> (2 * plane) & 3;
                        out[l] = scales[l] * ((low | high << 4) - 32) as f32;
                    }
                }
            }
        },
    );
}
