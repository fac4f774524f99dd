//! What MXFP4 and NVFP4 share: the E2M1 codes and the choice of the nearest one.
//!
//! A code is a sign and a magnitude of 0, 0.5, 1, 1.5, 2, 3, 4 or 6. Both formats keep twice these as integers and halve the
//! scale instead.

use quantrs_simd::Simd;

/// Twice the value of each code. Code 8 is -0, which no quantizer writes.
pub(crate) const DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// Midpoints of neighbouring doubled magnitudes.
const MIDPOINTS: [f32; 7] = [0.5, 1.5, 2.5, 3.5, 5.0, 7.0, 10.0];

/// The code whose value under `scale` is nearest to x, the lowest of equals, as ggml searches for it.
pub(crate) fn nearest_ref(x: f32, scale: f32) -> u8 {
    let error = |code: usize| (f32::from(DOUBLED[code]) * scale - x).abs();
    (1..16).fold(0, |best, code| if error(code) < error(best) { code } else { best }) as u8
}

/// [`DOUBLED`] as floats, for every index of five bits.
pub(crate) static DOUBLED_F32: [f32; 32] = {
    let mut values = [0.0; 32];
    let mut i = 0;
    while i < 32 {
        values[i] = DOUBLED[i % 16] as f32;
        i += 1;
    }
    values
};

/// What separates the codes under one scale: the midpoints of neighbouring magnitudes.
#[derive(Clone, Copy)]
pub(crate) struct Limits<S: Simd>([S::F; 7]);

impl<S: Simd> Limits<S> {
    /// `scale` is a number of at most 8 significant bits, so that the products are exact.
    #[inline(always)]
    pub(crate) fn new(s: S, scale: f32) -> Self {
        let mut limits = [s.splat(scale); 7];
        for (limit, midpoint) in limits.iter_mut().zip(MIDPOINTS) {
            *limit = s.mul(*limit, s.splat(midpoint));
        }
        Limits(limits)
    }

    /// [`nearest_ref`] of each lane. The scale is positive unless all x are 0; |x| <= 2^16 * scale.
    ///
    /// Equal because the two errors that decide are exact: for neighbours a <= |x| <= b both |x| - a and b - |x| are
    /// differences of floats within a factor of two (Sterbenz); beside a = 0 the larger error may round, never across the
    /// smaller. A midpoint goes to the smaller magnitude, which has the lower code, and 0 comes before -0. Above the largest
    /// magnitude errors are rounded, but 4 * scale apart.
    #[inline(always)]
    pub(crate) fn nearest(&self, s: S, x: S::F) -> S::I {
        // The number of limits below |x|, bit by bit as a binary search finds it.
        let [l0, l1, l2, l3, l4, l5, l6] = self.0;
        let magnitude = s.abs(x);
        let bit2 = s.lt(l3, magnitude);
        let bit1 = s.lt(s.select(bit2, l5, l1), magnitude);
        let bit0 = s.lt(s.select(bit2, s.select(bit1, l6, l4), s.select(bit1, l2, l0)), magnitude);
        let bit = |m: S::M, value: i32| s.iselect(m, s.isplat(value), s.isplat(0));
        let code = s.ior(bit(bit2, 4), s.ior(bit(bit1, 2), bit(bit0, 1)));
        s.ior(code, bit(s.lt(x, s.neg(l0)), 8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quantrs_simd::{Level, dispatch};

    fn lanes<S: Simd>(_: S) -> usize {
        S::LANES
    }

    #[test]
    fn nearest_equals_its_reference_around_every_midpoint_of_every_kind_of_scale() {
        for scale in [1.0, 0.75, 1.875 * 64.0, f32::MIN_POSITIVE / 4.0, f32::MIN_POSITIVE, 7.0 / 1024.0, 2f32.powi(50)]
        {
            for m in MIDPOINTS.into_iter().chain(DOUBLED.map(f32::from)).chain([13.0, 100.0, 65536.0]) {
                let bits = (m * scale).abs().to_bits();
                let x: [f32; 16] = std::array::from_fn(|i| {
                    let near = f32::from_bits((bits + i as u32 / 2).saturating_sub(3));
                    if i % 2 == 0 { near } else { -near }
                });
                let want = x.map(|x| nearest_ref(x, scale));
                for level in Level::all() {
                    let mut codes = want;
                    dispatch!(level, s => {
                        let limits = Limits::new(s, scale);
                        for (x, codes) in x.chunks(lanes(s)).zip(codes.chunks_mut(lanes(s))) {
                            s.store_bytes(limits.nearest(s, s.load(x)), codes);
                        }
                    }, scalar => {});
                    assert_eq!(codes, want, "around {m} * {scale:e} at {}", level.name());
                }
            }
        }
    }
}
