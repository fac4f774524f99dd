//! Every format of the registry against what ggml wrote: `tests/golden/ggml`, its origin in `tests/golden/manifest.toml`.

use ndarray_npy::NpzReader;
use quantrs_blocks::{BlockFormat, FORMATS, Rows};
use quantrs_simd::Level;
use std::fs::File;
use std::path::PathBuf;

struct Npz(NpzReader<File>);

impl Npz {
    fn open(name: &str) -> Option<Npz> {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/ggml").join(name);
        let file = File::open(path).ok()?;
        Some(Npz(NpzReader::new(file).expect("a golden file is an npz archive")))
    }

    fn has(&mut self, key: &str) -> bool {
        self.0.names().unwrap().iter().any(|n| n.trim_end_matches(".npy") == key)
    }

    fn groups(&mut self) -> Vec<String> {
        let names = self.0.names().unwrap();
        names.iter().map(|n| n.trim_end_matches(".npy").to_owned()).filter(|n| n != "edge_names").collect()
    }

    fn f32(&mut self, key: &str) -> (Vec<f32>, usize) {
        let a: ndarray::Array2<f32> = self.0.by_name(key).unwrap();
        let n_cols = a.ncols();
        (a.into_raw_vec_and_offset().0, n_cols)
    }

    fn f32_1d(&mut self, key: &str) -> Vec<f32> {
        let a: ndarray::Array1<f32> = self.0.by_name(key).unwrap();
        a.to_vec()
    }

    fn u8(&mut self, key: &str) -> Vec<u8> {
        let a: ndarray::Array2<u8> = self.0.by_name(key).unwrap();
        a.into_raw_vec_and_offset().0
    }

    fn bool(&mut self, key: &str) -> Vec<bool> {
        let a: ndarray::Array1<bool> = self.0.by_name(key).unwrap();
        a.to_vec()
    }
}

type Quantizer = Box<dyn Fn(Rows<'_>, &mut [u8])>;

/// Quantizers of a format: the reference, and the lanes at every level of this CPU.
fn quantizers(format: &'static BlockFormat) -> Vec<(String, Quantizer)> {
    let mut all: Vec<(String, Quantizer)> = Vec::new();
    if let Some(f) = format.quantize_ref {
        all.push(("reference".to_owned(), Box::new(f)));
    }
    if let Some(f) = format.quantize {
        for level in Level::all() {
            all.push((level.name().to_owned(), Box::new(move |rows, out| f(level, rows, out))));
        }
    }
    all
}

/// Rows that ggml's own validation accepts.
fn valid_rows(npz: &mut Npz, group: &str, suffix: &str, n_rows: usize) -> Vec<usize> {
    let key = format!("edge/valid{suffix}");
    if group == "edge" && npz.has(&key) {
        let valid = npz.bool(&key);
        (0..n_rows).filter(|&r| valid[r]).collect()
    } else {
        (0..n_rows).collect()
    }
}

fn check_bytes(format: &'static BlockFormat) -> usize {
    let mut inputs = Npz::open("inputs.npz").expect("tests/golden/ggml/inputs.npz");
    let mut importances = Npz::open("imatrix.npz").expect("tests/golden/ggml/imatrix.npz");
    let Some(mut golden) = Npz::open(&format!("{}.npz", format.name)) else { return 0 };
    let mut compared = 0;
    for group in inputs.groups() {
        let (x, n_cols) = inputs.f32(&group);
        let row_bytes = format.row_bytes(n_cols).unwrap_or(0);
        let importance = importances.f32_1d(&group);
        for suffix in ["", "_im"] {
            let key = format!("{group}/packed{suffix}");
            if !golden.has(&key) {
                continue;
            }
            let want = golden.u8(&key);
            let importance = (suffix == "_im").then_some(&importance[..]);
            for (name, quantize) in quantizers(format) {
                // All rows at once, so that lanes span rows.
                let mut all = vec![0xa5; want.len()];
                quantize(Rows { x: &x, n_cols, importance }, &mut all);
                for r in valid_rows(&mut golden, &group, suffix, x.len() / n_cols) {
                    let range = r * row_bytes..(r + 1) * row_bytes;
                    let mut one = vec![0x5a; row_bytes];
                    quantize(Rows { x: &x[r * n_cols..(r + 1) * n_cols], n_cols, importance }, &mut one);
                    for (how, got) in [("among all rows", &all[range.clone()]), ("alone", &one[..])] {
                        let bad = got
                            .chunks(format.block_bytes)
                            .zip(want[range.clone()].chunks(format.block_bytes))
                            .position(|(a, b)| a != b);
                        if let Some(b) = bad {
                            let at = b * format.block_bytes..(b + 1) * format.block_bytes;
                            panic!(
                                "{} {key} at {name}, row {r} {how}, block {b}:\n got {:02x?}\nwant {:02x?}",
                                format.name,
                                &got[at.clone()],
                                &want[range][at]
                            );
                        }
                    }
                }
                compared += 1;
            }
        }
    }
    compared
}

fn check_values(format: &'static BlockFormat) -> usize {
    let Some(mut golden) = Npz::open(&format!("{}.npz", format.name)) else { return 0 };
    let Some(dequantize) = format.dequantize else { return 0 };
    let mut compared = 0;
    for key in golden.groups() {
        let Some((group, suffix)) = key.split_once("/dequant") else { continue };
        let packed = golden.u8(&format!("{group}/packed{suffix}"));
        let (want, _) = golden.f32(&key);
        for level in Level::all() {
            let mut got = vec![-1.0f32; want.len()];
            dequantize(level, &packed, &mut got);
            let bad =
                got.iter().zip(&want).position(|(a, b)| a.to_bits() != b.to_bits() && !(a.is_nan() && b.is_nan()));
            if let Some(i) = bad {
                panic!("{} {key} at {}: value {i} is {}, expected {}", format.name, level.name(), got[i], want[i]);
            }
            compared += 1;
        }
    }
    compared
}

/// Formats whose quantizer is still to come: their decoders are compared only.
fn is_writable(format: &BlockFormat) -> bool {
    format.quantize_ref.is_some()
}

macro_rules! golden_tests {
    ($($name:ident => $format:literal,)*) => {
        $(mod $name {
            use super::*;

            #[test]
            fn bytes_equal_ggml_at_every_level() {
                let format = quantrs_blocks::by_name($format).unwrap();
                assert!(check_bytes(format) > 0 || !is_writable(format), "no golden bytes were found for {}", $format);
            }

            #[test]
            fn values_equal_ggml_at_every_level() {
                let format = quantrs_blocks::by_name($format).unwrap();
                assert!(check_values(format) > 0 || $format == "Q8_1", "no golden values were found for {}", $format);
            }
        })*

        #[test]
        fn every_packed_format_of_the_registry_is_tested() {
            let tested = [$($format),*];
            for format in FORMATS.iter().filter(|f| f.dequantize.is_some() && f.name != "F32") {
                assert!(tested.contains(&format.name), "{} has no golden test", format.name);
            }
        }
    };
}

golden_tests! {
    f16 => "F16", bf16 => "BF16", q4_0 => "Q4_0", q4_1 => "Q4_1", q5_0 => "Q5_0", q5_1 => "Q5_1", q8_0 => "Q8_0", q8_1 => "Q8_1",
    q2_k => "Q2_K", q3_k => "Q3_K", q4_k => "Q4_K", q5_k => "Q5_K", q6_k => "Q6_K", q8_k => "Q8_K",
    iq2_xxs => "IQ2_XXS", iq2_xs => "IQ2_XS", iq3_xxs => "IQ3_XXS", iq1_s => "IQ1_S", iq4_nl => "IQ4_NL", iq3_s => "IQ3_S",
    iq2_s => "IQ2_S", iq4_xs => "IQ4_XS", iq1_m => "IQ1_M", tq1_0 => "TQ1_0", tq2_0 => "TQ2_0", mxfp4 => "MXFP4",
    nvfp4 => "NVFP4", q1_0 => "Q1_0", q2_0 => "Q2_0",
}
