//! The inputs of a product, packed once and used by several matrices.

use crate::isa::{Isa, Machine, scale_of, with_isa};
use crate::unpack::SPAN;
use crate::{Disjoint, Pool};
use quantrs_blocks::BlockFormat;
use quantrs_simd::Level;

/// How activations enter a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Quantized to int8 once per input: for weights of blocks.
    Int8,
    /// As float32: for float weights (F32, F16, BF16), which take no other, and for blocks that are to be decoded.
    Float,
}

/// What kernels read; weights of one format take activations in one form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// int8 with a scale per 32 values: for blocks of fewer than 256.
    By32,
    /// int8 with a scale per 256 values: for blocks of 256.
    By256,
    /// float32
    Float,
}

impl Form {
    /// All of them.
    pub const ALL: [Form; 3] = [Form::By32, Form::By256, Form::Float];

    /// What weights of this format take.
    pub fn of(format: &BlockFormat, precision: Precision) -> Form {
        match (precision, format.block_len) {
            (Precision::Float, _) | (_, 1) => Form::Float,
            (Precision::Int8, SPAN) => Form::By256,
            (Precision::Int8, _) => Form::By32,
        }
    }
}

/// 256 values of one input row as bytes: `x = scale * code`. Beyond the end of the row all is zero.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Span {
    /// -127..=127
    pub(crate) codes: [i8; SPAN],
    /// Sums of 16 codes.
    pub(crate) code_sums_16: [i32; 16],
    /// Sums of 16 codes, with a scale per 32 values times that.
    pub(crate) sums_16: [f32; 16],
    /// Largest magnitude of 32 values, or of all, over 127.
    pub(crate) scales: [f32; 8],
    /// Sums of 32 codes.
    pub(crate) code_sums_32: [i32; 8],
    /// Sums of 32 codes, as `sums_16`.
    pub(crate) sums_32: [f32; 8],
}

const _: () = assert!(size_of::<Span>() == crate::isa::STRIDE && std::mem::offset_of!(Span, codes) == 0);

impl Span {
    const ZERO: Span = Span {
        codes: [0; SPAN],
        code_sums_16: [0; 16],
        sums_16: [0.0; 16],
        scales: [0.0; 8],
        code_sums_32: [0; 8],
        sums_32: [0.0; 8],
    };
}

/// 256 values of one input row as they are. Beyond the end of the row all is zero.
pub(crate) type FloatSpan = [f32; SPAN];

/// `[n, n_cols]` float32 inputs in the forms that kernels read. The buffers are reused by the next [`pack`](Self::pack).
#[derive(Debug)]
pub struct Activations {
    form: Form,
    n: usize,
    n_cols: usize,
    /// `[n_spans, n]`: the tiles of a product take all rows of a few spans at a time.
    spans: Vec<Span>,
    /// `[n_spans, n]`
    float_spans: Vec<FloatSpan>,
}

impl Default for Activations {
    fn default() -> Self {
        Activations { form: Form::By32, n: 0, n_cols: 0, spans: Vec::new(), float_spans: Vec::new() }
    }
}

impl Activations {
    /// No activations yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Take `x`, `[n, n_cols]` row-major. Panics when it is not whole rows.
    ///
    /// Codes are `round(x / scale)`, halves to even, `scale = max |x| / 127` per 32 or 256 values. Where a value is infinite or NaN,
    /// all values of its scale become NaN.
    pub fn pack(&mut self, pool: &Pool, level: Level, x: &[f32], n_cols: usize, form: Form) {
        assert!(n_cols > 0 && x.len().is_multiple_of(n_cols), "{} values in rows of {n_cols}", x.len());
        (self.form, self.n, self.n_cols) = (form, x.len() / n_cols, n_cols);
        let (n, n_spans) = (self.n, n_cols.div_ceil(SPAN));
        let (n_int8, n_float) = if form == Form::Float { (0, n * n_spans) } else { (n * n_spans, 0) };
        self.spans.resize(n_int8, Span::ZERO);
        self.float_spans.resize(n_float, [0.0; SPAN]);
        let (spans, float_spans) = (Disjoint::new(&mut self.spans), Disjoint::new(&mut self.float_spans));
        let machine = Machine::of(level);
        pool.run(n, |i| {
            for (at, x) in x[i * n_cols..][..n_cols].chunks(SPAN).enumerate() {
                match form {
                    Form::By32 => {
                        // SAFETY: row `i` belongs to this task alone.
                        let span = &mut unsafe { spans.range(at * n + i, 1) }[0];
                        with_isa!(machine, m => by_32(m, x, span));
                    }
                    Form::By256 => {
                        // SAFETY: as above.
                        let span = &mut unsafe { spans.range(at * n + i, 1) }[0];
                        with_isa!(machine, m => by_256(m, x, span));
                    }
                    Form::Float => {
                        // SAFETY: as above.
                        let span = &mut unsafe { float_spans.range(at * n + i, 1) }[0];
                        span[..x.len()].copy_from_slice(x);
                        span[x.len()..].fill(0.0);
                    }
                }
            }
        });
    }

    /// Rows of the input: columns of the product.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Values per row.
    pub fn n_cols(&self) -> usize {
        self.n_cols
    }

    /// What was asked for.
    pub fn form(&self) -> Form {
        self.form
    }

    /// `[n_spans, n]`; empty unless packed as int8.
    pub(crate) fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// `[n_spans, n]`; empty unless packed as float32.
    pub(crate) fn float_spans(&self) -> &[FloatSpan] {
        &self.float_spans
    }
}

#[inline(always)]
fn by_32<M: Isa>(m: M, x: &[f32], out: &mut Span) {
    let mut last: [f32; 32];
    for g in 0..8 {
        let rest = &x[x.len().min(32 * g)..];
        let x = if rest.len() >= 32 {
            rest
        } else {
            last = [0.0; 32];
            last[..rest.len()].copy_from_slice(rest);
            &last
        };
        let (scale, inverse) = scale_of(m.largest(&x[..32]));
        let sums = m.quantize(x, inverse, &mut out.codes[32 * g..]);
        out.scales[g] = scale;
        for (k, sum) in sums.into_iter().enumerate() {
            out.code_sums_16[2 * g + k] = sum;
            out.sums_16[2 * g + k] = scale * sum as f32;
        }
        let sum = sums[0] + sums[1];
        out.code_sums_32[g] = sum;
        out.sums_32[g] = scale * sum as f32;
    }
}

#[inline(always)]
fn by_256<M: Isa>(m: M, x: &[f32], out: &mut Span) {
    let mut last: [f32; SPAN];
    let x = if x.len() == SPAN {
        x
    } else {
        last = [0.0; SPAN];
        last[..x.len()].copy_from_slice(x);
        &last
    };
    let (scale, inverse) = scale_of(m.largest(x));
    out.scales = [scale; 8];
    for g in 0..8 {
        let sums = m.quantize(&x[32 * g..], inverse, &mut out.codes[32 * g..]);
        for (k, sum) in sums.into_iter().enumerate() {
            out.code_sums_16[2 * g + k] = sum;
            out.sums_16[2 * g + k] = sum as f32;
        }
        let sum = sums[0] + sums[1];
        out.code_sums_32[g] = sum;
        out.sums_32[g] = sum as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(x: &[f32], n_cols: usize, form: Form) -> Activations {
        let mut activations = Activations::new();
        activations.pack(&Pool::new(1), Level::detect(), x, n_cols, form);
        activations
    }

    #[test]
    fn codes_come_within_half_a_step_and_the_largest_is_exact() {
        let x: Vec<f32> = (0..320).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.013).collect();
        for (form, group) in [(Form::By32, 32), (Form::By256, 256)] {
            let a = pack(&x, 320, form);
            for (g, x) in x.chunks(group).enumerate() {
                let span = &a.spans()[g * group / SPAN];
                let largest = x.iter().fold(0.0, |largest: f32, x| largest.max(x.abs()));
                for (k, x) in x.iter().enumerate() {
                    let i = (g * group + k) % SPAN;
                    let scale = span.scales[i / 32];
                    assert_eq!(scale, largest / 127.0);
                    let error = (scale * f32::from(span.codes[i]) - x).abs();
                    assert!(error <= 0.5001 * scale, "{form:?} {i}: {error} of {scale}");
                }
            }
            assert!(a.spans()[1].codes[64..].iter().all(|&q| q == 0), "beyond the row");
            assert_eq!(a.spans()[0].code_sums_32[3], a.spans()[0].codes[96..128].iter().map(|&q| i32::from(q)).sum());
        }
    }

    #[test]
    fn every_machine_packs_the_same() {
        let values = |i: usize| ((i * 7919 % 2003) as f32 - 1001.0) / 17.0;
        let mut x: Vec<f32> = (0..256).map(values).collect();
        x[40] = f32::NEG_INFINITY;
        x[64..96].fill(0.0);
        for (len, form) in [256, 250, 33, 1].into_iter().flat_map(|len| [(len, Form::By32), (len, Form::By256)]) {
            let pack = |machine| {
                let mut span = Span::ZERO;
                if form == Form::By32 {
                    with_isa!(machine, m => by_32(m, &x[..len], &mut span));
                } else {
                    with_isa!(machine, m => by_256(m, &x[..len], &mut span));
                }
                let floats = [&span.sums_16[..], &span.scales, &span.sums_32].concat();
                let floats: Vec<_> = floats.into_iter().map(|v| if v.is_nan() { 1 } else { v.to_bits() }).collect();
                (span.codes, span.code_sums_16, span.code_sums_32, floats)
            };
            for machine in Machine::all(Level::detect()) {
                assert_eq!(pack(machine), pack(Machine::Plain), "{machine:?}, {form:?}, {len} values");
            }
        }
    }

    #[test]
    fn tiny_values_are_zero_and_values_that_are_not_finite_spoil_their_group_alone() {
        let mut x = vec![1e-40f32; 96];
        x[40] = f32::INFINITY;
        x[80] = f32::NAN;
        let a = pack(&x, 96, Form::By32);
        let scales = a.spans()[0].scales;
        assert_eq!(scales[0], 0.0);
        assert!(scales[1].is_nan() && scales[2].is_nan());
        assert!(a.spans()[0].codes.iter().all(|&q| q == 0));
        let a = pack(&x, 96, Form::By256);
        assert!(a.spans()[0].scales.iter().all(|scale| scale.is_nan()));
        assert!(a.spans()[0].codes.iter().all(|&q| q == 0));
    }

    #[test]
    fn buffers_of_an_earlier_input_leave_nothing_behind() {
        let mut a = Activations::new();
        let (pool, level) = (Pool::new(1), Level::detect());
        a.pack(&pool, level, &[7.0; 512], 512, Form::By32);
        a.pack(&pool, level, &[1.0; 64], 32, Form::By32);
        assert_eq!((a.n(), a.n_cols()), (2, 32));
        assert!(a.spans().iter().all(|s| s.codes[32..].iter().all(|&q| q == 0) && s.scales[1] == 0.0));
    }
}
