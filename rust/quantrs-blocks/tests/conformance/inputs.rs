//! Deterministic rows, from ordinary weights to what real files hold at their worst.

/// A linear congruential generator (Knuth's MMIX constants): the tests need variety, not quality.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        random.bits();
        random
    }

    pub(crate) fn bits(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 32) as u32
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.bits() as usize % n
    }

    /// In 0..1.
    pub(crate) fn uniform(&mut self) -> f32 {
        ((self.bits() >> 8) as f32 + 0.5) / 16_777_216.0
    }

    /// Normal, sigma 1 (Box-Muller).
    pub(crate) fn normal(&mut self) -> f32 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f32::consts::TAU * self.uniform()).cos()
    }

    pub(crate) fn sign(&mut self) -> f32 {
        if self.bits() & 1 == 0 { 1.0 } else { -1.0 }
    }

    pub(crate) fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| (self.bits() >> 8) as u8).collect()
    }

    /// `n` weights as an imatrix has them: positive, over some orders of magnitude, some zero.
    pub(crate) fn importance(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| if self.below(50) == 0 { 0.0 } else { (2.0 * self.normal()).exp() }).collect()
    }
}

/// Names of the kinds that [`values`] makes.
pub(crate) const KINDS: [&str; 13] = [
    "gaussian",
    "log-uniform magnitudes",
    "sparse",
    "ties on a coarse grid",
    "equal magnitudes",
    "alternating sign",
    "one outlier",
    "zero blocks between",
    "subnormal",
    "constant",
    "one sign",
    "any magnitude",
    "any float below 2^32",
];

/// `n` finite values of kind `KINDS[kind]`.
pub(crate) fn values(kind: usize, n: usize, random: &mut Random) -> Vec<f32> {
    let outlier = random.below(n);
    let step = 0.01 * random.uniform();
    let mut magnitude = 0.0;
    (0..n)
        .map(|i| match KINDS[kind] {
            "gaussian" => 0.02 * random.normal(),
            "log-uniform magnitudes" => random.sign() * (20.0 * random.uniform() - 16.0).exp(),
            "sparse" => {
                if random.below(10) == 0 {
                    random.normal()
                } else {
                    0.0 * random.sign()
                }
            }
            "ties on a coarse grid" => step * (random.below(65) as f32 - 32.0) / 2.0,
            "equal magnitudes" => step * random.sign(),
            "alternating sign" => {
                if i % 2 == 0 {
                    step
                } else {
                    -step
                }
            }
            "one outlier" => {
                if i == outlier {
                    -1e4
                } else {
                    0.02 * random.normal()
                }
            }
            "zero blocks between" => {
                if i / 16 % 3 == 0 {
                    0.0
                } else {
                    random.normal()
                }
            }
            "subnormal" => random.sign() * f32::from_bits(random.bits() & 0x00ff_ffff),
            "constant" => step,
            "one sign" => 0.02 * random.normal().abs(),
            "any magnitude" => {
                if i % 32 == 0 {
                    magnitude = f32::from_bits(random.bits() % ((32 + 127) << 23));
                }
                magnitude * random.normal() / 8.0
            }
            "any float below 2^32" => random.sign() * f32::from_bits(random.bits() % ((32 + 127) << 23)),
            kind => unreachable!("{kind} is not in KINDS"),
        })
        .collect()
}
