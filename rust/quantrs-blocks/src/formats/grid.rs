//! What the grid formats (IQ1, IQ2, IQ3) share: a block unpacked to small integers and scales, and those to floats.

use quantrs_simd::{Level, Simd, dispatch};

const BLOCK_LEN: usize = 256;

/// A block of 256 values: value i is `scales[i / 16] * q`, q the signed byte i % 8 of `groups[i / 8]`, from the low end.
#[derive(Clone, Copy, Debug)]
pub struct Unpacked {
    /// Eight signed bytes each, within -64..=63.
    pub groups: [u64; 32],
    /// One per 16 values.
    pub scales: [f32; 16],
}

/// Decode packed blocks; `unpack` is always inlined, so that it is compiled for the level.
#[inline(always)]
pub(super) fn dequantize(
    level: Level,
    packed: &[u8],
    block_bytes: usize,
    out: &mut [f32],
    unpack: impl Fn(&[u8]) -> Unpacked,
) {
    let blocks = packed.chunks_exact(block_bytes).zip(out.chunks_exact_mut(BLOCK_LEN));
    dispatch!(level, s => {
        for (b, out) in blocks {
            put_values(s, &unpack(b), out);
        }
    }, scalar => {
        for (b, out) in blocks {
            put_values_ref(&unpack(b), out);
        }
    });
}

#[inline(always)]
fn put_values<S: Simd>(s: S, unpacked: &Unpacked, out: &mut [f32]) {
    let pairs = unpacked.groups.chunks_exact(2).zip(unpacked.scales);
    for ((pair, scale), out) in pairs.zip(out.chunks_exact_mut(16)) {
        // One store of 16 bytes, so that vector loads can be served from it.
        let q = (u128::from(pair[0]) | u128::from(pair[1]) << 64).to_le_bytes();
        for i in (0..16).step_by(S::LANES) {
            s.store(s.mul(s.splat(scale), s.to_f32(s.load_i8(&q[i..]))), &mut out[i..]);
        }
    }
}

fn put_values_ref(unpacked: &Unpacked, out: &mut [f32]) {
    for (i, out) in out.chunks_exact_mut(8).enumerate() {
        for (out, q) in out.iter_mut().zip(unpacked.groups[i].to_le_bytes()) {
            *out = unpacked.scales[i / 2] * f32::from(q.cast_signed());
        }
    }
}
