//! A grid of integers: how a group of weights becomes a scale and a zero point, and a weight a code.
//!
//! Rules are those of the tools whose checkpoints are written: `formats/gptq`, `formats/awq` and `formats/compressed_tensors` of
//! the documentation. Codes and zero points are unsigned here, also where a file stores signed ones.

#![expect(clippy::needless_range_loop, reason = "indices over lanes are plainer than zipped iterators of five arrays")]

use crate::SolverError;
use crate::lanes::{largest, least, limited, round_half_even};
use quantrs_simd::{bf16_bits, bf16_value, f16_bits, f16_value};

/// How the ends of a group become a scale and a zero point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// AutoGPTQ and gptqmodel: the range holds 0. A symmetric group without a negative weight gets half the scale that it needs,
    /// as those tools have it, so that its larger half is clipped.
    Gptq,
    /// As `Gptq`, but a symmetric range is always `-m..m`.
    GptqWide,
    /// compressed-tensors: the range holds 0, a symmetric scale is `m` over half the number of steps.
    MinMax,
    /// AutoAWQ: the range need not hold 0, a symmetric scale is `m / (2^(bits - 1) - 1)`.
    Awq,
}

/// What scales are rounded to, before codes are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScaleType {
    /// Not rounded.
    F32,
    /// IEEE binary16.
    F16,
    /// bfloat16.
    Bf16,
}

impl ScaleType {
    /// `f32`, `f16`, `bf16`.
    pub fn name(self) -> &'static str {
        match self {
            ScaleType::F32 => "f32",
            ScaleType::F16 => "f16",
            ScaleType::Bf16 => "bf16",
        }
    }

    /// Nearest, half to even, in every lane.
    #[inline(always)]
    pub fn round<const R: usize>(self, v: &mut [f32; R]) {
        match self {
            ScaleType::F32 => {}
            ScaleType::F16 => {
                for v in v {
                    *v = f16_value(f16_bits(*v));
                }
            }
            ScaleType::Bf16 => {
                for v in v {
                    *v = bf16_value(bf16_bits(*v));
                }
            }
        }
    }

    /// The distance from 1 to the next number.
    fn epsilon(self) -> f32 {
        match self {
            ScaleType::F32 => f32::EPSILON,
            ScaleType::F16 => 9.765_625e-4,
            ScaleType::Bf16 => 7.812_5e-3,
        }
    }

    /// The smallest positive number.
    fn smallest(self) -> f32 {
        match self {
            ScaleType::F32 => f32::MIN_POSITIVE,
            ScaleType::F16 => 5.960_464_5e-8,
            ScaleType::Bf16 => 9.183_55e-41,
        }
    }
}

/// Scale and zero point of the same group of R rows.
#[derive(Clone, Copy, Debug)]
pub struct Params<const R: usize> {
    /// Positive.
    pub scale: [f32; R],
    /// An integer in `0..=max_code`.
    pub zero: [f32; R],
}

/// Format    codes of `bits` bits, a scale and a zero point per group
/// Value     w ~ (code - zero) * scale
/// Search    the group's ends, as `rule` says; with `mse = p` the ends times 1, 0.99, .. 0.21 with the least sum |error|^p
/// Rounding  to the nearest code, half to even; see [`Grid::code`]
/// Edges     a group of zeros gets codes that stand for 0. NaN and infinity: refused by the caller's check
/// Shapes    a group of R rows: `&[[f32; R]]`, column by column
/// Exact     ordered: single IEEE operations, the same at every level
/// Source    the format pages named above; `mse`: Frantar et al., GPTQ, arXiv 2210.17323, and its code, `quant.py`
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    /// 2..=8.
    pub bits: u32,
    /// The zero point is `2^(bits - 1)`.
    pub symmetric: bool,
    /// Which tool's.
    pub rule: Rule,
    /// What scales are stored as.
    pub scale_type: ScaleType,
    /// The exponent of the search for ends, if they are searched.
    pub mse: Option<f32>,
    /// Smallest zero point of an asymmetric grid: 1 for files that store it less one. The scale grows so that nothing is clipped.
    pub min_zero: u8,
    /// Weights, quotients and sums are rounded to `scale_type` too, as tools do that compute in it. Of `MinMax` and `Awq` only.
    pub stepwise: bool,
}

impl Grid {
    /// What the fields may be.
    pub fn check(&self) -> Result<(), SolverError> {
        let wrong = |what, found: String, expected: &str| {
            Err(SolverError::Argument { what, found, expected: expected.to_owned() })
        };
        if !(2..=8).contains(&self.bits) {
            return wrong("bits", self.bits.to_string(), "2 to 8");
        }
        if self.min_zero > 1 {
            return wrong(
                "min_zero",
                self.min_zero.to_string(),
                "0, or 1 for files that store the zero point less one",
            );
        }
        match self.mse {
            Some(p) if !(p > 0.0 && p <= 8.0) => wrong("mse", p.to_string(), "an exponent above 0, at most 8, or None"),
            _ => Ok(()),
        }
    }

    /// The largest code.
    #[inline(always)]
    pub fn max_code(&self) -> f32 {
        ((1u32 << self.bits) - 1) as f32
    }

    /// The zero point of a symmetric grid.
    #[inline(always)]
    pub fn middle(&self) -> f32 {
        (1u32 << (self.bits - 1)) as f32
    }

    /// What is rounded between two operations.
    #[inline(always)]
    fn step_type(&self) -> ScaleType {
        if self.stepwise && matches!(self.rule, Rule::MinMax | Rule::Awq) { self.scale_type } else { ScaleType::F32 }
    }

    /// The scale and zero point of a group: `group[i][r]` is weight i of row r.
    #[inline(always)]
    pub fn params<const R: usize>(&self, group: &[[f32; R]]) -> Params<R> {
        let (lo, hi) = self.ends(group);
        match self.mse {
            None => self.params_of_range(&lo, &hi),
            Some(p) => self.search(group, &lo, &hi, p),
        }
    }

    /// The ends of a group's range, as the rule widens them.
    #[inline(always)]
    fn ends<const R: usize>(&self, group: &[[f32; R]]) -> ([f32; R], [f32; R]) {
        let holds_zero = self.rule != Rule::Awq;
        let (mut lo, mut hi) = if holds_zero { ([0.0; R], [0.0; R]) } else { ([f32::MAX; R], [-f32::MAX; R]) };
        for column in group {
            for r in 0..R {
                lo[r] = least(column[r], lo[r]);
                hi[r] = largest(column[r], hi[r]);
            }
        }
        // The ends are weights: rounding is monotonic, so that rounding all weights first comes to the same.
        self.step_type().round(&mut lo);
        self.step_type().round(&mut hi);
        if matches!(self.rule, Rule::Gptq | Rule::GptqWide) {
            for r in 0..R {
                let m = largest(-lo[r], hi[r]);
                if self.symmetric {
                    lo[r] = if lo[r] < 0.0 || self.rule == Rule::GptqWide { -m } else { 0.0 };
                    hi[r] = m;
                }
                lo[r] = if m == 0.0 { -1.0 } else { lo[r] };
                hi[r] = if m == 0.0 { 1.0 } else { hi[r] };
            }
        }
        (lo, hi)
    }

    /// The scale and zero point for these ends.
    #[inline(always)]
    pub(crate) fn params_of_range<const R: usize>(&self, lo: &[f32; R], hi: &[f32; R]) -> Params<R> {
        let (max_code, middle, step, t) = (self.max_code(), self.middle(), self.step_type(), self.scale_type);
        let (mut scale, mut zero) = ([0.0; R], [middle; R]);
        if self.symmetric && matches!(self.rule, Rule::MinMax | Rule::Awq) {
            for r in 0..R {
                let m = largest(-lo[r], hi[r]);
                scale[r] = match self.rule {
                    Rule::Awq => largest(m, 1e-5) / (middle - 1.0),
                    _ => m / (max_code / 2.0),
                };
            }
        } else {
            for r in 0..R {
                scale[r] = hi[r] - lo[r];
            }
            if self.rule == Rule::Awq {
                for r in 0..R {
                    scale[r] = largest(scale[r], 1e-5);
                }
            }
            step.round(&mut scale);
            for r in 0..R {
                scale[r] /= max_code;
            }
        }
        t.round(&mut scale);
        // compressed-tensors takes the epsilon for a scale of 0; elsewhere only a rounded scale can be 0.
        let least_scale = if self.rule == Rule::MinMax { t.epsilon() } else { t.smallest() };
        for r in 0..R {
            scale[r] = if scale[r] == 0.0 { least_scale } else { scale[r] };
        }
        if !self.symmetric {
            for r in 0..R {
                zero[r] = lo[r] / scale[r];
            }
            step.round(&mut zero);
            if self.rule == Rule::MinMax {
                for r in 0..R {
                    zero[r] = -middle - zero[r];
                }
                step.round(&mut zero);
                for r in 0..R {
                    zero[r] = limited(round_half_even(zero[r]) + middle, 0.0, max_code);
                }
            } else {
                for r in 0..R {
                    zero[r] = limited(-round_half_even(zero[r]), 0.0, max_code);
                }
            }
            self.raise_zero(lo, hi, &mut scale, &mut zero);
        }
        Params { scale, zero }
    }

    /// Zero points below `min_zero` become that, with the smallest scale at which both ends are still inside.
    #[inline(always)]
    fn raise_zero<const R: usize>(&self, lo: &[f32; R], hi: &[f32; R], scale: &mut [f32; R], zero: &mut [f32; R]) {
        if self.min_zero == 0 {
            return;
        }
        let z = f32::from(self.min_zero);
        let mut wider = [0.0; R];
        for r in 0..R {
            wider[r] = largest(largest(hi[r] / (self.max_code() - z), -lo[r] / z), self.scale_type.smallest());
        }
        self.scale_type.round(&mut wider);
        for r in 0..R {
            let low = zero[r] < z;
            scale[r] = if low { wider[r] } else { scale[r] };
            zero[r] = if low { z } else { zero[r] };
        }
    }

    /// The codes of one column: integers in `0..=max_code`.
    ///
    /// `rint(w / scale) + zero`, but `rint(w / scale + zero)` under `MinMax`, where `zero` is the signed one.
    #[inline(always)]
    pub fn code<const R: usize>(&self, w: &[f32; R], p: &Params<R>) -> [f32; R] {
        let (max_code, middle, step) = (self.max_code(), self.middle(), self.step_type());
        let mut code = *w;
        step.round(&mut code);
        for r in 0..R {
            code[r] /= p.scale[r];
        }
        step.round(&mut code);
        if self.rule == Rule::MinMax {
            for r in 0..R {
                code[r] += p.zero[r] - middle;
            }
            step.round(&mut code);
            for r in 0..R {
                code[r] = limited(round_half_even(code[r]) + middle, 0.0, max_code);
            }
        } else {
            for r in 0..R {
                code[r] = limited(round_half_even(code[r]) + p.zero[r], 0.0, max_code);
            }
        }
        code
    }

    /// What codes of one column stand for.
    #[inline(always)]
    pub fn value<const R: usize>(code: &[f32; R], p: &Params<R>) -> [f32; R] {
        let mut value = [0.0; R];
        for r in 0..R {
            value[r] = (code[r] - p.zero[r]) * p.scale[r];
        }
        value
    }
}
