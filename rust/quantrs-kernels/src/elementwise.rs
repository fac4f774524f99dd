//! Functions applied value by value: activations of the MLP, caps, sums of residuals.
//!
//! They are plain loops that the compiler vectorizes at the level they run at. None is contracted, so every level gives the
//! same bits.

use quantrs_simd::Level;

/// What an MLP does to its hidden values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x / (1 + exp(-x))`
    Silu,
    /// `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))`
    GeluTanh,
    /// `max(x, 0)`
    Relu,
}

/// e^x, bounded: relative error below 2e-7 for x in -87..88; x outside is moved to that range, NaN stays NaN.
///
/// x = n ln 2 + r with |r| <= ln 2 / 2; e^r by Cephes' polynomial of degree 7 (netlib.org/cephes, `expf`), 2^n by its bits.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Adding 1.5 * 2^23 rounds to an integer, which then lies in the low bits.
    const MAGIC: f32 = 12_582_912.0;
    let x = if x < -87.0 { -87.0 } else { x };
    let x = if x > 88.0 { 88.0 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + MAGIC;
    let n = shifted - MAGIC;
    // ln 2 in two parts; the first has few enough bits for an exact product.
    let r = (x - n * 0.693_359_4) + n * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_6e-1, 0.5] {
        p = p * r + c;
    }
    let e = (p * r * r + r) + 1.0;
    e * f32::from_bits(shifted.to_bits().wrapping_add(127) << 23)
}

/// tanh x, bounded: absolute error below 3e-7.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    1.0 - 2.0 / (exp(2.0 * x) + 1.0)
}

#[inline(always)]
fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    const SQRT_2_OVER_PI: f32 = 0.797_884_6;
    let inner = SQRT_2_OVER_PI * x * (1.0 + 0.044_715 * x * x);
    0.5 * x * (1.0 + tanh(inner))
}

#[inline(always)]
fn map(x: &mut [f32], f: impl Fn(f32) -> f32) {
    for x in x {
        *x = f(*x);
    }
}

#[inline(always)]
fn map_gated(x: &mut [f32], up: &[f32], f: impl Fn(f32) -> f32) {
    for (x, up) in x.iter_mut().zip(up) {
        *x = f(*x) * up;
    }
}

impl Activation {
    /// `x = f(x)`
    pub fn apply(self, level: Level, x: &mut [f32]) {
        level.run(
            #[inline(always)]
            || match self {
                Activation::Silu => map(x, silu),
                Activation::GeluTanh => map(x, gelu_tanh),
                Activation::Relu => map(x, |x| if x > 0.0 { x } else { x * 0.0 }),
            },
        );
    }

    /// `gate = f(gate) * up`
    pub fn apply_gated(self, level: Level, gate: &mut [f32], up: &[f32]) {
        level.run(
            #[inline(always)]
            || match self {
                Activation::Silu => map_gated(gate, up, silu),
                Activation::GeluTanh => map_gated(gate, up, gelu_tanh),
                Activation::Relu => map_gated(gate, up, |x| if x > 0.0 { x } else { x * 0.0 }),
            },
        );
    }
}

/// 1 / (1 + exp(-x))
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `x *= factor`
pub fn scale(level: Level, x: &mut [f32], factor: f32) {
    level.run(
        #[inline(always)]
        || map(x, |x| x * factor),
    );
}

/// `x = cap * tanh(x / cap)`
pub fn soft_cap(level: Level, x: &mut [f32], cap: f32) {
    level.run(
        #[inline(always)]
        || map(x, |x| cap * tanh(x / cap)),
    );
}

/// `x += factor * y`
pub fn add_scaled(level: Level, x: &mut [f32], y: &[f32], factor: f32) {
    level.run(
        #[inline(always)]
        || {
            for (x, y) in x.iter_mut().zip(y) {
                *x += factor * y;
            }
        },
    );
}

/// `x[i, :] += bias` for every row.
pub fn add_bias(level: Level, x: &mut [f32], bias: &[f32]) {
    level.run(
        #[inline(always)]
        || {
            for row in x.chunks_exact_mut(bias.len()) {
                for (x, b) in row.iter_mut().zip(bias) {
                    *x += b;
                }
            }
        },
    );
}

/// Whether no value is NaN or infinite.
pub fn all_finite(level: Level, x: &[f32]) -> bool {
    let any = level.run(
        #[inline(always)]
        || x.iter().fold(0u32, |any, x| any | u32::from(x.to_bits() & 0x7f80_0000 == 0x7f80_0000)),
    );
    any == 0
}

/// `x = exp(x - max) / sum`, in place; the sum is taken in order.
pub fn softmax(x: &mut [f32]) {
    let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    map(x, |x| exp(x - max));
    let sum: f32 = x.iter().sum();
    map(x, |x| x / sum);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_and_tanh_are_as_close_as_they_say() {
        for i in -870_000..=880_000 {
            let x = i as f32 * 1e-4;
            let want = f64::from(x).exp();
            let error = (f64::from(exp(x)) - want).abs() / want;
            assert!(error < 2e-7, "exp({x}): relative error {error:e}");
            let error = (f64::from(tanh(x)) - f64::from(x).tanh()).abs();
            assert!(error < 3e-7, "tanh({x}): error {error:e}");
        }
    }

    #[test]
    fn exp_of_nan_is_nan_and_of_infinities_stays_in_range() {
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(f32::NEG_INFINITY) < 1e-37);
        assert!(exp(f32::INFINITY) > 1e38);
    }

    #[test]
    fn a_level_gives_the_bits_of_the_scalar_level() {
        let x: Vec<f32> = (0..1003).map(|i| (i as f32 - 500.0) * 0.037).collect();
        for f in [Activation::Silu, Activation::GeluTanh, Activation::Relu] {
            let mut want = x.clone();
            f.apply_gated(Level::from_name("scalar").unwrap(), &mut want, &x);
            for level in Level::all() {
                let mut got = x.clone();
                f.apply_gated(level, &mut got, &x);
                assert!(got.iter().zip(&want).all(|(a, b)| a.to_bits() == b.to_bits()), "{f:?} at {}", level.name());
            }
        }
    }

    #[test]
    fn one_value_that_is_not_finite_is_found_anywhere() {
        for level in Level::all() {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                for at in [0, 17, 99] {
                    let mut x = vec![1.0; 100];
                    assert!(all_finite(level, &x));
                    x[at] = bad;
                    assert!(!all_finite(level, &x), "{bad} at {at}, {}", level.name());
                }
            }
        }
    }
}
