//! Throughput of products: `cargo run --release -p quantrs-kernels --example bench_matmul [TYPE,..] [n_rows n_cols n threads]`.

use quantrs_blocks::by_name;
use quantrs_kernels::{Activations, Form, Matrix, Pool, Precision, matmul};
use quantrs_simd::Level;
use std::time::Instant;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let types = args.first().map_or("Q4_0,Q4_1,Q8_0,Q4_K,Q6_K,Q2_K,IQ4_XS,F16", String::as_str);
    let number = |i: usize, default| args.get(i).and_then(|a| a.parse().ok()).unwrap_or(default);
    let (n_rows, n_cols, n, threads) =
        (number(1, 5632usize), number(2, 2048usize), number(3, 512usize), number(4, 2usize));
    let level = Level::from_env().expect("QUANTRS_LEVEL names a level of this CPU");
    let pool = Pool::new(threads);
    let inputs: Vec<f32> = (0..n * n_cols).map(|i| ((i * 7919) % 1000) as f32 / 500.0 - 1.0).collect();
    for name in types.split(',') {
        let format = by_name(name).expect("a type");
        let row_bytes = format.row_bytes(n_cols).expect("whole blocks");
        // Enough copies of the matrix that it does not stay in a cache.
        let copies = (256 << 20) / (row_bytes * n_rows) + 1;
        let data: Vec<u8> = (0..copies * n_rows * row_bytes).map(|i| (i * 31 % 61) as u8).collect();
        let mut x = Activations::new();
        x.pack(&pool, level, &inputs, n_cols, Form::of(format, Precision::Int8));
        let mut y = vec![0.0; n * n_rows];
        let mut times = Vec::new();
        let start = Instant::now();
        let mut turn = 0;
        while start.elapsed().as_secs_f64() < 1.0 {
            let once = Instant::now();
            let w = &data[turn % copies * n_rows * row_bytes..][..n_rows * row_bytes];
            let w = Matrix::new(format, w, n_rows, n_cols).expect("a matrix");
            matmul(&pool, level, &w, &x, &mut y);
            times.push(once.elapsed().as_secs_f64());
            turn += 1;
        }
        times.sort_by(f64::total_cmp);
        let median = times[times.len() / 2];
        let (macs, bytes) = ((n_rows * n_cols * n) as f64, (n_rows * row_bytes) as f64);
        println!(
            "{name:8} [{n} x {n_cols} x {n_rows}] {threads} threads, {}: {:7.1} GMAC/s, weights at {:6.2} GB/s",
            level.name(),
            macs / median / 1e9,
            bytes / median / 1e9
        );
    }
}
