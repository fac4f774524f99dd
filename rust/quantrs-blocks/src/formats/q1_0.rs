//! Q1_0: blocks of 128 signs and one scale.

use crate::format::Rows;
use crate::lanes::{MAX_LANES, load_lanes};
use crate::pack::{get_f16, put_f16};
use quantrs_simd::{Level, Simd, dispatch};

const BLOCK_LEN: usize = 128;
const BLOCK_BYTES: usize = 18;

/// Format    128 values -> 18 bytes: d (f16), qs[16]; 1.125 bpw. Bit k of byte j is element 8j + k
/// Value     w ~ d where the bit is set, else -d
/// Search    d = mean of |w|, summed in index order
/// Rounding  bit = w >= 0
/// Edges     zero block: d = 0; -0 has its bit set
/// Shapes    rows: f32[n], n % 128 == 0; out: u8[n / 128 * 18]
/// Exact     bytes equal `quantize_row_q1_0_ref`, ggml 0.25.3, FP contraction off
/// Source    ggml `src/ggml-quants.c` at llama.cpp 0c1e57098
pub(crate) fn quantize_ref(rows: Rows<'_>, out: &mut [u8]) {
    for (x, out) in rows.x.chunks_exact(BLOCK_LEN).zip(out.chunks_exact_mut(BLOCK_BYTES)) {
        let sum = x.iter().fold(0.0, |sum, x| sum + x.abs());
        put_f16(out, sum / BLOCK_LEN as f32);
        for (x, byte) in x.chunks_exact(8).zip(&mut out[2..]) {
            *byte = x.iter().enumerate().fold(0, |byte, (k, &x)| byte | u8::from(x >= 0.0) << k);
        }
    }
}

/// As [`quantize_ref`]: the sums with one block per lane, the signs along the block.
pub(crate) fn quantize(level: Level, rows: Rows<'_>, out: &mut [u8]) {
    dispatch!(level, s => quantize_lanes(s, rows, out), scalar => quantize_ref(rows, out));
}

#[inline(always)]
fn quantize_lanes<S: Simd>(s: S, rows: Rows<'_>, out: &mut [u8]) {
    for (x, out) in rows.x.chunks(S::LANES * BLOCK_LEN).zip(out.chunks_mut(S::LANES * BLOCK_BYTES)) {
        let n = x.len() / BLOCK_LEN;
        let mut sum = s.splat(0.0);
        for at in (0..BLOCK_LEN).step_by(16) {
            // Lanes past the last block repeat it.
            for v in load_lanes::<S, 16>(s, |j| &x[j.min(n - 1) * BLOCK_LEN + at..]) {
                sum = s.add(sum, s.abs(v));
            }
        }
        let mut sums = [0.0; MAX_LANES];
        s.store(sum, &mut sums);
        for ((x, out), sum) in x.chunks_exact(BLOCK_LEN).zip(out.chunks_exact_mut(BLOCK_BYTES)).zip(sums) {
            put_f16(out, sum / BLOCK_LEN as f32);
            let mut bits = 0u128;
            for (i, x) in x.chunks_exact(S::LANES).enumerate() {
                bits |= u128::from(s.bitmask(s.ge(s.load(x), s.splat(0.0)))) << (i * S::LANES);
            }
            out[2..].copy_from_slice(&bits.to_le_bytes());
        }
    }
}

/// Inverse of [`quantize`].
pub(crate) fn dequantize(level: Level, packed: &[u8], out: &mut [f32]) {
    level.run(
        #[inline(always)]
        || {
            for (b, out) in packed.chunks_exact(BLOCK_BYTES).zip(out.chunks_exact_mut(BLOCK_LEN)) {
                let d = get_f16(b);
                for (q, out) in b[2..].iter().zip(out.chunks_exact_mut(8)) {
                    for (k, out) in out.iter_mut().enumerate() {
                        *out = if q & (1 << k) != 0 { d } else { -d };
                    }
                }
            }
        },
    );
}
