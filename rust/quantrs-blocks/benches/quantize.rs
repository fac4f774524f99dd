//! One thread's speed per format and CPU level: `cargo bench -p quantrs-blocks -- Q4_K/avx2`.
//!
//! Throughput is in weights (`Melem/s`), on rows as long as a model's, split into chunks as the quantize command splits them.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use quantrs_blocks::{FORMATS, Importance, Rows};
use quantrs_simd::Level;

const N_COLS: usize = 4096;
const N_ROWS: usize = 64;
/// Rows per call.
const CHUNK: usize = 16;

/// Normal, sigma 0.02, from a fixed seed: Box-Muller over a linear congruential generator.
fn gaussian(n: usize) -> Vec<f32> {
    let mut state = 42u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 + 0.5) / 16_777_216.0
    };
    (0..n).map(|_| 0.02 * (-2.0 * uniform().ln()).sqrt() * (std::f32::consts::TAU * uniform()).cos()).collect()
}

fn quantize(c: &mut Criterion) {
    let x = gaussian(N_ROWS * N_COLS);
    let importance: Vec<f32> = gaussian(N_COLS).iter().map(|v| v * v).collect();
    for format in FORMATS {
        let Some(quantize) = format.quantize else { continue };
        let mut packed = vec![0; N_ROWS * format.row_bytes(N_COLS).expect("4096 is a multiple of every block")];
        for (suffix, importance) in [("", None), ("+imatrix", Some(&importance[..]))] {
            if importance.is_some() && format.importance == Importance::Ignored {
                continue;
            }
            let mut group = c.benchmark_group(format!("{}{suffix}", format.name));
            group.throughput(Throughput::Elements(x.len() as u64));
            for level in Level::all() {
                group.bench_function(BenchmarkId::from_parameter(level.name()), |b| {
                    b.iter(|| {
                        let n_bytes = packed.len() / N_ROWS * CHUNK;
                        for (x, packed) in x.chunks(CHUNK * N_COLS).zip(packed.chunks_mut(n_bytes)) {
                            quantize(level, Rows { x, n_cols: N_COLS, importance }, packed);
                        }
                    });
                });
            }
        }
    }
}

fn dequantize(c: &mut Criterion) {
    let x = gaussian(N_ROWS * N_COLS);
    let mut decoded = vec![0.0; x.len()];
    for format in FORMATS {
        let (Some(quantize), Some(dequantize)) = (format.quantize, format.dequantize) else { continue };
        let mut packed = vec![0; N_ROWS * format.row_bytes(N_COLS).expect("4096 is a multiple of every block")];
        quantize(Level::detect(), Rows { x: &x, n_cols: N_COLS, importance: None }, &mut packed);
        let mut group = c.benchmark_group(format!("dequantize {}", format.name));
        group.throughput(Throughput::Elements(x.len() as u64));
        for level in Level::all() {
            group.bench_function(BenchmarkId::from_parameter(level.name()), |b| {
                b.iter(|| dequantize(level, &packed, &mut decoded));
            });
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).measurement_time(std::time::Duration::from_secs(1)).warm_up_time(std::time::Duration::from_millis(200));
    targets = quantize, dequantize
}
criterion_main!(benches);
