//! The search for the ends of a group: a little clipping costs the few largest weights and makes all others finer.

#![expect(clippy::needless_range_loop, reason = "indices over lanes are plainer than zipped iterators of five arrays")]

use crate::grid::{Grid, Params};
use crate::lanes::{MAGIC, least, limited, round_half_even};

/// Candidates: the ends times `1 - i / 100`.
const SHRINKS: usize = 80;

impl Grid {
    /// The candidate with the least `sum |value - w|^p`; the first one on a tie.
    ///
    /// Two asymmetric bits have so few codes that the other neighbour of the exact zero point is tried too.
    #[inline(always)]
    pub(crate) fn search<const R: usize>(&self, group: &[[f32; R]], lo: &[f32; R], hi: &[f32; R], p: f32) -> Params<R> {
        let mut best = Best { error: [f32::INFINITY; R], params: self.params_of_range(lo, hi) };
        for i in 0..SHRINKS {
            let shrink = 1.0 - i as f32 / 100.0;
            let (mut low, mut high) = ([0.0; R], [0.0; R]);
            for r in 0..R {
                low[r] = shrink * lo[r];
                high[r] = shrink * hi[r];
            }
            let candidate = self.params_of_range(&low, &high);
            self.try_params(group, candidate, p, &mut best);
            if self.bits == 2 && !self.symmetric {
                self.try_params(group, self.other_zero(&candidate, &low), p, &mut best);
            }
        }
        best.params
    }

    /// The zero point on the other side of `-lo / scale`, where there is one.
    #[inline(always)]
    fn other_zero<const R: usize>(&self, params: &Params<R>, lo: &[f32; R]) -> Params<R> {
        let mut other = *params;
        for r in 0..R {
            let (zero, exact) = (params.zero[r], -lo[r] / params.scale[r]);
            let next = if exact > zero { zero + 1.0 } else { zero - 1.0 };
            let exists = next >= f32::from(self.min_zero) && next <= self.max_code();
            other.zero[r] = if exists { next } else { zero };
        }
        other
    }

    #[inline(always)]
    fn try_params<const R: usize>(&self, group: &[[f32; R]], params: Params<R>, p: f32, best: &mut Best<R>) {
        let mut error = [0.0; R];
        for column in group {
            let value = Grid::value(&self.code(column, &params), &params);
            let mut d = [0.0; R];
            for r in 0..R {
                d[r] = (value[r] - column[r]).abs();
            }
            if p == 2.0 {
                for r in 0..R {
                    error[r] += d[r] * d[r];
                }
            } else {
                for r in 0..R {
                    error[r] += power(d[r], p);
                }
            }
        }
        for r in 0..R {
            let better = error[r] < best.error[r];
            best.error[r] = least(error[r], best.error[r]);
            best.params.scale[r] = if better { params.scale[r] } else { best.params.scale[r] };
            best.params.zero[r] = if better { params.zero[r] } else { best.params.zero[r] };
        }
    }
}

/// The best candidate so far.
struct Best<const R: usize> {
    error: [f32; R],
    params: Params<R>,
}

/// `d^p` for finite d >= 0, as plain operations that compilers vectorize: 2^(p * log2 d). Relative error below 1e-5.
///
/// With d = 2^e * m, m in 0.7..1.42 and t = (m - 1) / (m + 1), ln m is 2 (t + t^3/3 + t^5/5 + ..).
#[inline(always)]
fn power(d: f32, p: f32) -> f32 {
    use std::f32::consts::{LN_2, LOG2_E};
    let bits = d.to_bits();
    // Subtracting the bits of sqrt(1/2) leaves the exponent of the power of two next to d.
    let e = (bits.wrapping_sub(0x3f35_04f3) as i32) >> 23;
    let m = f32::from_bits(bits.wrapping_sub((e << 23) as u32));
    let t = (m - 1.0) / (m + 1.0);
    let t2 = t * t;
    let ln = t * (2.0 + t2 * (0.666_666_7 + t2 * (0.4 + t2 * (0.285_714_3 + t2 * 0.222_222_2))));
    // Below the smallest normal number: 0, as for d = 0.
    let exponent = limited(p * (e as f32 + ln * LOG2_E), -127.0, 127.0);
    let whole = round_half_even(exponent);
    let x = (exponent - whole) * LN_2;
    let fraction =
        1.0 + x * (1.0 + x * (0.5 + x * (1.0 / 6.0 + x * (1.0 / 24.0 + x * (1.0 / 120.0 + x * (1.0 / 720.0))))));
    // The low bits of a float of this size are the integer; a cast of a float that may be NaN is no single instruction.
    let power = f32::from_bits((whole + (MAGIC + 127.0)).to_bits().wrapping_sub(MAGIC.to_bits()) << 23);
    if d == 0.0 { 0.0 } else { fraction * power }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_are_as_close_as_the_comparison_needs() {
        for p in [0.5f32, 2.0, 2.4, 4.0] {
            for i in 0..4000 {
                let d = 1e-8 * 1.007f32.powi(i % 3600);
                let (got, want) = (f64::from(power(d, p)), f64::from(d).powf(f64::from(p)));
                if want > 1e-37 {
                    assert!((got / want - 1.0).abs() < 2e-5, "{d}^{p}: {got}, not {want}");
                }
            }
            assert_eq!(power(0.0, p), 0.0);
        }
    }
}
