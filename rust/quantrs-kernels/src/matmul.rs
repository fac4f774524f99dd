//! The product of packed weights and activations: which kernel, and how the work is cut.

use crate::activations::Activations;
use crate::float::{self, FloatPanel};
use crate::isa::{Isa, Machine, with_isa};
use crate::panel::{MAX_ROWS, Panel};
use crate::tasks::cut;
use crate::unpack::{ForFormat, Unpack, for_format};
use crate::{Disjoint, Form, Matrix, Pool, Precision, gemm, gemv};
use quantrs_simd::Level;
use std::cell::RefCell;
use std::ops::Range;

/// Columns from which unpacking a panel pays.
const PANEL_COLS: usize = 4;

/// `y[i, r] = sum over k of w[r, k] * x[i, k]`; y: `[n, n_rows]` row-major.
///
/// Numbers   bounded: with int8 activations the integers are exact, and what is lost is their rounding, half of a 127th of the
///           largest of 32 values, or of 256 with blocks of 256; sums in float32. The same bits for any number of threads; for one column and for many
///           the order of the sums differs.
/// Panics when the shapes do not belong together, or when the activations have another form than the weights take.
pub fn matmul(pool: &Pool, level: Level, w: &Matrix<'_>, x: &Activations, y: &mut [f32]) {
    multiply(pool, level, Machine::of(level), x, &mut [(*w, y)]);
}

/// Several products with the same activations, each as [`matmul`], in one go: threads wait for each other once.
pub fn matmul_each(pool: &Pool, level: Level, x: &Activations, products: &mut [(Matrix<'_>, &mut [f32])]) {
    multiply(pool, level, Machine::of(level), x, products);
}

/// As [`matmul_each`], on a given machine.
pub(crate) fn multiply(
    pool: &Pool,
    level: Level,
    machine: Machine,
    x: &Activations,
    products: &mut [(Matrix<'_>, &mut [f32])],
) {
    let n = x.n();
    let float = x.form() == Form::Float;
    let panels = n >= if float { float::PANEL_COLS } else { PANEL_COLS };
    let panel_rows = with_isa!(machine, m => panel_rows(m));
    let products: Vec<_> = products
        .iter_mut()
        .map(|(w, y)| {
            assert_eq!(x.n_cols(), w.n_cols(), "weights and activations differ in their columns");
            assert_eq!(y.len(), n * w.n_rows(), "the result has {n} rows of {}", w.n_rows());
            let form = Form::of(w.format(), if float { Precision::Float } else { Precision::Int8 });
            assert_eq!(x.form(), form, "{} weights take another form of activations", w.format().name);
            let run = if float { Some(in_floats as Run) } else { for_format(w.format().name, Integers { panels }) };
            let run = run.expect("all formats of blocks are there");
            (run, Product { level, machine, panels, w: *w, x, y: Disjoint::new(y) })
        })
        .collect();
    let row_work = |w: &Matrix<'_>| if panels { w.n_cols() } else { w.row_bytes() };
    let shapes: Vec<_> = products.iter().map(|(_, p)| (p.w.n_rows(), row_work(&p.w))).collect();
    let tasks = if panels {
        cut(&shapes, pool.threads(), panel_rows, 0, MAX_PANELS * panel_rows * x.n_cols())
    } else {
        cut(&shapes, pool.threads(), 1, MIN_TASK_BYTES, MAX_TASK_BYTES)
    };
    pool.run(tasks.len(), |i| {
        let (run, product) = &products[tasks[i].product];
        run(product, tasks[i].rows.clone());
    });
}

/// Bytes of weights of a task of dot products.
const MIN_TASK_BYTES: usize = 1 << 16;
const MAX_TASK_BYTES: usize = 1 << 18;
/// Panels of a task, at most.
const MAX_PANELS: usize = 4;

struct Product<'a> {
    level: Level,
    machine: Machine,
    /// Whether there are enough columns to unpack panels for.
    panels: bool,
    w: Matrix<'a>,
    x: &'a Activations,
    /// `[n, n_rows]`
    y: Disjoint<'a, f32>,
}

/// Compute some rows of a product, which no other task has.
type Run = fn(&Product<'_>, Range<usize>);

/// What a thread keeps from product to product.
struct Scratch {
    panel: Box<Panel>,
    float_panel: Box<FloatPanel>,
    /// `[panels, n, rows of a panel]`
    partial: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch {
        panel: Box::new(Panel::ZERO),
        float_panel: Box::new(FloatPanel::ZERO),
        partial: Vec::new(),
    });
}

fn in_floats(p: &Product<'_>, rows: Range<usize>) {
    let (w, x, n) = (&p.w, p.x.float_spans(), p.x.n());
    if p.panels {
        p.in_panels(rows, |scratch, rows| {
            let Scratch { float_panel, partial, .. } = scratch;
            with_isa!(p.machine, m => float::multiply_panels(m, p.level, float_panel, w, rows, x, n, partial, &p.y));
        });
    } else {
        with_isa!(p.machine, m => {
            p.in_rows(m, rows, #[inline(always)] |r, i| float::dot_row(m, p.level, w, r, &x[i..], n));
        });
    }
}

fn in_integer_panels<F: Unpack>(p: &Product<'_>, rows: Range<usize>) {
    let (w, x, n) = (&p.w, p.x.spans(), p.x.n());
    p.in_panels(rows, |scratch, rows| {
        let Scratch { panel, partial, .. } = scratch;
        with_isa!(p.machine, m => gemm::multiply_panels::<_, F>(m, panel, w, rows, x, n, partial, &p.y));
    });
}

fn in_integer_rows<F: Unpack>(p: &Product<'_>, rows: Range<usize>) {
    let (w, x, n) = (&p.w, p.x.spans(), p.x.n());
    with_isa!(p.machine, m => {
        p.in_rows(m, rows, #[inline(always)] |r, i| gemv::dot_row::<_, F>(m, w.row(r), w.n_cols(), &x[i..], n));
    });
}

impl Product<'_> {
    fn in_panels(&self, rows: Range<usize>, multiply: impl FnOnce(&mut Scratch, Range<usize>)) {
        let panel_rows = with_isa!(self.machine, m => panel_rows(m));
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.partial.resize(rows.len().next_multiple_of(panel_rows) * self.x.n(), 0.0);
            multiply(scratch, rows);
        });
    }

    /// `dot(r, i)` for all rows r and columns i.
    #[inline(always)]
    fn in_rows<M: Isa>(&self, m: M, rows: Range<usize>, dot: impl Fn(usize, usize) -> f32) {
        // The kernels ask for memory this far ahead, but not for where they begin.
        let start = self.w.row(rows.start).as_ptr();
        for line in (0..gemv::AHEAD).step_by(64) {
            m.prefetch(start.wrapping_add(line));
        }
        for r in rows {
            for i in 0..self.x.n() {
                let dot = dot(r, i);
                // SAFETY: row r belongs to this task alone.
                let y = unsafe { self.y.range(i * self.w.n_rows() + r, 1) };
                y[0] = dot;
            }
        }
    }
}

#[inline(always)]
fn panel_rows<M: Isa>(_: M) -> usize {
    assert!(2 * M::W <= MAX_ROWS);
    2 * M::W
}

struct Integers {
    panels: bool,
}

impl ForFormat for Integers {
    type Output = Run;

    fn call<F: Unpack>(self) -> Run {
        if self.panels { in_integer_panels::<F> } else { in_integer_rows::<F> }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activations::Span;
    use crate::unpack::SPAN;
    use quantrs_blocks::{BlockFormat, FORMATS, Scales};

    /// Numbers that look random, the same on every run.
    struct Noise(u64);

    impl Noise {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            self.0 >> 33
        }
        fn uniform(&mut self) -> f32 {
            self.next() as f32 / (1u64 << 30) as f32 - 1.0
        }
    }

    /// Blocks of random bits, with scales of moderate size.
    fn random_blocks(format: &BlockFormat, n_blocks: usize, noise: &mut Noise) -> Vec<u8> {
        let mut data = vec![0; n_blocks * format.block_bytes];
        data.iter_mut().for_each(|b| *b = noise.next() as u8);
        for b in data.chunks_exact_mut(format.block_bytes) {
            match format.scales {
                // Exponents from 2^-7 to 1.
                Scales::F16(offsets) => offsets.iter().for_each(|&at| b[at + 1] = b[at + 1] & 0x9f | 0x20),
                Scales::Bf16 => b[1] = b[1] & 0x80 | 0x3e,
                Scales::F32 => b[3] = b[3] & 0x80 | 0x3e,
                Scales::E8M0 => b[0] = 120 + b[0] % 8,
                Scales::Iq1M => (b[55], b[53]) = (b[55] & 0x9f | 0x20, b[53]),
                Scales::None => {}
            }
        }
        data
    }

    fn decoded(format: &BlockFormat, data: &[u8]) -> Vec<f32> {
        let mut values = vec![0.0; data.len() / format.block_bytes * format.block_len];
        (format.dequantize.unwrap())(Level::Scalar, data, &mut values);
        values
    }

    /// Row `i` of the inputs as the integer kernels see it.
    fn rounded(x: &Activations, i: usize) -> Vec<f64> {
        let value = |span: &Span, k: usize| f64::from(span.scales[k / 32]) * f64::from(span.codes[k]);
        (0..x.n_cols()).map(|k| value(&x.spans()[k / SPAN * x.n() + i], k % SPAN)).collect()
    }

    fn formats() -> impl Iterator<Item = &'static BlockFormat> {
        FORMATS.iter().filter(|f| f.dequantize.is_some())
    }

    /// Compare with sums in float64 of the decoded weights and what `input` says the activations are.
    fn check(format: &'static BlockFormat, n_rows: usize, n_cols: usize, n: usize, asked: Precision) {
        let form = Form::of(format, asked);
        let mut noise = Noise(n_cols as u64);
        let data = random_blocks(format, n_rows * n_cols / format.block_len, &mut noise);
        let w = Matrix::new(format, &data, n_rows, n_cols).unwrap();
        let values = decoded(format, &data);
        let inputs: Vec<f32> = (0..n * n_cols).map(|_| noise.uniform()).collect();
        let (pool, level) = (Pool::new(2), Level::detect());
        let mut x = Activations::new();
        x.pack(&pool, level, &inputs, n_cols, form);
        for machine in Machine::all(level) {
            let mut y = vec![f32::NAN; n * n_rows];
            multiply(&pool, level, machine, &x, &mut [(w, &mut y)]);
            for i in 0..n {
                let input: Vec<f64> = if form == Form::Float {
                    inputs[i * n_cols..][..n_cols].iter().map(|&x| f64::from(x)).collect()
                } else {
                    rounded(&x, i)
                };
                for r in 0..n_rows {
                    let products = values[r * n_cols..][..n_cols].iter().zip(&input).map(|(w, x)| f64::from(*w) * x);
                    let (sum, size) = products.fold((0.0, 0.0), |(sum, size), p| (sum + p, size + p.abs()));
                    let found = f64::from(y[i * n_rows + r]);
                    assert!(
                        (found - sum).abs() <= 2e-6 * size + 1e-30,
                        "{} {machine:?}, row {r} of {n_rows}, column {i} of {n}: {found}, expected {sum}, terms {size}",
                        format.name
                    );
                }
            }
        }
    }

    #[test]
    fn every_format_on_every_machine_multiplies_what_it_decodes_to() {
        for format in formats() {
            for n in [1, 2, 3, 4, 7, 13, 25] {
                check(format, 37, 1024, n, Precision::Int8);
            }
        }
    }

    #[test]
    fn every_format_on_every_machine_multiplies_floats_when_asked_to() {
        for format in formats() {
            for n in [1, 2, 5, 17] {
                check(format, 35, 768, n, Precision::Float);
            }
        }
    }

    #[test]
    fn rows_end_within_a_span_where_blocks_are_short() {
        for format in formats().filter(|f| f.block_len < 256) {
            for blocks in 1..5 {
                check(format, 3, blocks * format.block_len.max(32), 1, Precision::Int8);
                check(format, 3, blocks * format.block_len.max(32), 5, Precision::Int8);
            }
            if format.block_len == 1 {
                for n_cols in [1, 7, 31, 33, 255, 257, 301] {
                    check(format, 3, n_cols, 1, Precision::Int8);
                    check(format, 3, n_cols, 6, Precision::Int8);
                }
            }
        }
    }

    #[test]
    fn results_do_not_depend_on_the_threads_and_no_row_on_its_neighbours() {
        let format = quantrs_blocks::by_name("Q4_K").unwrap();
        let mut noise = Noise(1);
        let (n_rows, n_cols) = (70, 512);
        let data = random_blocks(format, n_rows * n_cols / 256, &mut noise);
        let w = Matrix::new(format, &data, n_rows, n_cols).unwrap();
        let inputs: Vec<f32> = (0..9 * n_cols).map(|_| noise.uniform()).collect();
        let level = Level::detect();
        for n in [1, 9] {
            let product = |threads: usize, w: &Matrix<'_>| {
                let (pool, mut x) = (Pool::new(threads), Activations::new());
                x.pack(&pool, level, &inputs[..n * n_cols], n_cols, Form::By256);
                let mut y = vec![0.0; n * w.n_rows()];
                matmul(&pool, level, w, &x, &mut y);
                y
            };
            let all = product(1, &w);
            assert_eq!(all, product(3, &w));
            let some = product(2, &w.rows(33..35));
            for i in 0..n {
                assert_eq!(some[2 * i..2 * i + 2], all[i * n_rows + 33..i * n_rows + 35]);
            }
        }
    }

    #[test]
    fn products_made_together_are_those_made_alone() {
        let (pool, level) = (Pool::new(3), Level::detect());
        let mut noise = Noise(2);
        let n_cols = 512;
        for (names, form) in [
            (["Q4_K", "IQ4_XS", "Q6_K"], Form::By256),
            (["Q4_0", "NVFP4", "Q8_0"], Form::By32),
            (["F16", "F32", "Q4_0"], Form::Float),
        ] {
            for n in [1, 9] {
                let inputs: Vec<f32> = (0..n * n_cols).map(|_| noise.uniform()).collect();
                let mut x = Activations::new();
                x.pack(&pool, level, &inputs, n_cols, form);
                let formats = names.map(|name| quantrs_blocks::by_name(name).unwrap());
                let n_rows = [70, 1, 200];
                let data: Vec<Vec<u8>> = formats
                    .iter()
                    .zip(n_rows)
                    .map(|(f, r)| random_blocks(f, r * n_cols / f.block_len, &mut noise))
                    .collect();
                let matrix = |i: usize| Matrix::new(formats[i], &data[i], n_rows[i], n_cols).unwrap();
                let mut together: Vec<_> = n_rows.map(|r| vec![f32::NAN; n * r]).into();
                let mut products: Vec<_> =
                    together.iter_mut().enumerate().map(|(i, y)| (matrix(i), &mut y[..])).collect();
                matmul_each(&pool, level, &x, &mut products);
                for (i, together) in together.iter().enumerate() {
                    let mut alone = vec![0.0; n * n_rows[i]];
                    matmul(&pool, level, &matrix(i), &x, &mut alone);
                    assert!(alone.iter().zip(together).all(|(a, b)| a.to_bits() == b.to_bits()), "{} of {n}", names[i]);
                }
            }
        }
    }
}
