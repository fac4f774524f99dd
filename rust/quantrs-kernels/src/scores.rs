//! Probabilities of tokens and divergences of distributions, from logits that come a stretch of the vocabulary at a time.
//!
//! A softmax over a vocabulary needs its largest logit and the sum of all exponentials. Both can be kept while stretches pass: when
//! a larger logit comes, what was summed is scaled down to it (Milakov and Gimelshein 2018, arXiv 1805.02867). So the logits of many
//! tokens never exist all at once, and those of a stretch are used while they are still in a cache.
//!
//! Numbers   bounded: exponentials in float32 with a relative error below 2e-7, everything else in float64, hence the logarithm of
//!           a sum within 3e-7. Sums are taken in sixteen parts and in order: the same bits at every level.

use crate::elementwise::exp;
use quantrs_simd::Level;

const PARTS: usize = 16;

/// The softmax of the logits seen so far.
#[derive(Clone, Copy, Debug)]
pub struct Softmax {
    max: f32,
    /// Of `exp(x - max)`.
    sum: f64,
    top: usize,
}

impl Softmax {
    /// Of no logits.
    pub const EMPTY: Softmax = Softmax { max: f32::NEG_INFINITY, sum: 0.0, top: 0 };

    /// Take in finite logits of tokens from `first` on.
    pub fn add(&mut self, level: Level, logits: &[f32], first: usize) {
        level.run(
            #[inline(always)]
            || {
                self.raise(logits, first);
                self.sum += sum_exp(logits, self.max);
            },
        );
    }

    /// ln of the sum of `exp(logit)`: what a logit exceeds its log-probability by.
    pub fn log_sum(&self) -> f64 {
        f64::from(self.max) + self.sum.ln()
    }

    /// The likeliest token, the first of several.
    pub fn top(&self) -> usize {
        self.top
    }

    /// Let the maximum cover these logits; what the sum was multiplied with.
    #[inline(always)]
    fn raise(&mut self, logits: &[f32], first: usize) -> f64 {
        let max = largest(logits);
        if max <= self.max {
            return 1.0;
        }
        let factor = (f64::from(self.max) - f64::from(max)).exp();
        self.max = max;
        self.sum *= factor;
        self.top = first + logits.iter().position(|x| *x == max).unwrap_or(0);
        factor
    }
}

/// The Kullback-Leibler divergence of a model's distribution from a reference's: the sum over tokens of
/// `p_reference * ln(p_reference / p_model)`.
#[derive(Clone, Copy, Debug)]
pub struct Divergence {
    /// Of the reference.
    pub reference: Softmax,
    /// Of the model.
    pub model: Softmax,
    /// Of `exp(r - max) * (r - m)` for logits r of the reference and m of the model.
    weighted: f64,
}

impl Divergence {
    /// Of no logits.
    pub const EMPTY: Divergence = Divergence { reference: Softmax::EMPTY, model: Softmax::EMPTY, weighted: 0.0 };

    /// Take in both models' finite logits of tokens from `first` on. Panics when their number differs.
    pub fn add(&mut self, level: Level, reference: &[f32], model: &[f32], first: usize) {
        assert_eq!(reference.len(), model.len(), "both models have the same tokens");
        self.model.add(level, model, first);
        level.run(
            #[inline(always)]
            || {
                self.weighted *= self.reference.raise(reference, first);
                let (sum, weighted) = sum_weighted(reference, model, self.reference.max);
                self.reference.sum += sum;
                self.weighted += weighted;
            },
        );
    }

    /// In nats. Exactly 0 for equal logits; rounding may make tiny values negative.
    pub fn value(&self) -> f64 {
        self.weighted / self.reference.sum - (self.reference.log_sum() - self.model.log_sum())
    }
}

#[inline(always)]
fn largest(x: &[f32]) -> f32 {
    let (chunks, rest) = x.as_chunks::<PARTS>();
    let mut parts = [f32::NEG_INFINITY; PARTS];
    for chunk in chunks {
        for (part, x) in parts.iter_mut().zip(chunk) {
            *part = if *x > *part { *x } else { *part };
        }
    }
    parts.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max)
}

/// The sum of `exp(x - max)`.
#[inline(always)]
fn sum_exp(x: &[f32], max: f32) -> f64 {
    let (chunks, rest) = x.as_chunks::<PARTS>();
    let mut parts = [0.0; PARTS];
    for chunk in chunks {
        for (part, x) in parts.iter_mut().zip(chunk) {
            *part += f64::from(exp(x - max));
        }
    }
    let mut sum: f64 = parts.iter().sum();
    for x in rest {
        sum += f64::from(exp(x - max));
    }
    sum
}

/// The sums of `e = exp(r - max)` and of `e * (r - m)`.
#[inline(always)]
fn sum_weighted(r: &[f32], m: &[f32], max: f32) -> (f64, f64) {
    let ((r_chunks, r_rest), (m_chunks, m_rest)) = (r.as_chunks::<PARTS>(), m.as_chunks::<PARTS>());
    let (mut sums, mut products) = ([0.0; PARTS], [0.0; PARTS]);
    for (r, m) in r_chunks.iter().zip(m_chunks) {
        for i in 0..PARTS {
            let e = f64::from(exp(r[i] - max));
            sums[i] += e;
            products[i] += e * (f64::from(r[i]) - f64::from(m[i]));
        }
    }
    let (mut sum, mut product): (f64, f64) = (sums.iter().sum(), products.iter().sum());
    for (r, m) in r_rest.iter().zip(m_rest) {
        let e = f64::from(exp(r - max));
        sum += e;
        product += e * (f64::from(*r) - f64::from(*m));
    }
    (sum, product)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logits of a model: most far below a few.
    fn logits(n: usize, seed: usize) -> Vec<f32> {
        (0..n)
            .map(|i| ((i * 7919 + seed * 104_729) % 1009) as f32 * 0.02 - if i % 37 == 0 { 0.0 } else { 12.0 })
            .collect()
    }

    fn log_sum(x: &[f32]) -> f64 {
        let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        f64::from(max) + x.iter().map(|x| (f64::from(*x) - f64::from(max)).exp()).sum::<f64>().ln()
    }

    fn divergence(r: &[f32], m: &[f32]) -> f64 {
        let (r_sum, m_sum) = (log_sum(r), log_sum(m));
        r.iter()
            .zip(m)
            .map(|(r, m)| (f64::from(*r) - r_sum, f64::from(*m) - m_sum))
            .map(|(r, m)| r.exp() * (r - m))
            .sum()
    }

    fn in_stretches(level: Level, r: &[f32], m: &[f32], stretch: usize) -> Divergence {
        let mut d = Divergence::EMPTY;
        for (i, (r, m)) in r.chunks(stretch).zip(m.chunks(stretch)).enumerate() {
            d.add(level, r, m, i * stretch);
        }
        d
    }

    #[test]
    fn sums_and_divergences_agree_with_double_precision_for_any_stretch() {
        for n in [1, 2, 15, 16, 17, 1000, 32_000] {
            let (r, m) = (logits(n, 1), logits(n, 2));
            for level in Level::all() {
                for stretch in [1, 16, 100, 4096] {
                    let d = in_stretches(level, &r, &m, stretch);
                    let error = (d.reference.log_sum() - log_sum(&r)).abs();
                    assert!(error < 3e-7, "{n} logits in stretches of {stretch}: log_sum is off by {error:e}");
                    let error = (d.value() - divergence(&r, &m)).abs();
                    assert!(error < 1e-6, "{n} logits in stretches of {stretch}: divergence is off by {error:e}");
                }
            }
        }
    }

    #[test]
    fn equal_logits_diverge_by_exactly_nothing() {
        for n in [1, 17, 5000] {
            let x = logits(n, 3);
            for level in Level::all() {
                assert_eq!(in_stretches(level, &x, &x, 512).value(), 0.0, "{n} logits at {}", level.name());
            }
        }
    }

    #[test]
    fn every_level_gives_the_same_bits() {
        let (r, m) = (logits(3001, 4), logits(3001, 5));
        let want = in_stretches(Level::from_name("scalar").unwrap(), &r, &m, 512).value();
        for level in Level::all() {
            assert_eq!(in_stretches(level, &r, &m, 512).value().to_bits(), want.to_bits(), "{}", level.name());
        }
    }

    #[test]
    fn the_top_token_is_the_first_of_the_largest() {
        let mut x = vec![0.5; 100];
        let mut softmax = Softmax::EMPTY;
        (x[40], x[41], x[90]) = (2.0, 2.0, 2.0);
        for (i, x) in x.chunks(30).enumerate() {
            softmax.add(Level::detect(), x, i * 30);
        }
        assert_eq!(softmax.top(), 40);
    }
}
