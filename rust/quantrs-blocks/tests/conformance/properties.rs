//! Random rows: errors stay within what the grid allows, and decoded values of a grid that contains them do not move.

use super::inputs::{KINDS, Random, values};
use super::{amax, dequantize, importances, quantize, readable, round_trip, writable};
use proptest::prelude::*;
use quantrs_blocks::{BlockFormat, Rows, Scales};
use quantrs_simd::Level;

/// How far a value may move.
enum Bound {
    /// Every value by at most this share of its own magnitude.
    OfValue(f32),
    /// Every value by at most this share of the block's largest magnitude.
    OfLargest(f32),
    /// The root mean square of a block by at most this share of its largest magnitude.
    RmsOfLargest(f32),
    /// The root mean square of a block by at most this share of its range, from the smallest to the largest value with 0 among them.
    RmsOfRange(f32),
}

/// The bound of each format, from the step of its grid.
///
/// An f16 scale adds 1/2048 of the magnitude. Searches minimise a weighted sum of squares, so
/// single values may move far; but their first candidate rounds each value within half a step (the end that a signed grid
/// lacks: one step), and weights that differ by a factor of two can trade that for at most sqrt(2) of it in the root mean
/// square. Rounding the scales adds less than the rest to one step, save for Q2_K, where four bits of scale add 1/30 of the
/// range times three levels and as much for the minimum.
fn bound(format: &BlockFormat, weighted: bool) -> Bound {
    match (format.name, weighted) {
        ("F32", _) => Bound::OfValue(0.0),
        // Half a step of 11 and of 8 significant bits.
        ("F16", _) => Bound::OfValue(1.0 / 2048.0),
        ("BF16", _) => Bound::OfValue(1.0 / 256.0),
        // -8..=7 of a largest magnitude at -8: a value of the other sign is clipped by a whole step.
        ("Q4_0", false) => Bound::OfLargest(1.0 / 8.0 + 1.0 / 2048.0),
        ("Q5_0", false) => Bound::OfLargest(1.0 / 16.0 + 1.0 / 2048.0),
        ("Q4_0", true) => Bound::RmsOfLargest(1.0 / 8.0),
        ("Q5_0", true) => Bound::RmsOfLargest(1.0 / 16.0),
        // Half of range / 15, range <= 2 * largest magnitude; the f16 minimum adds another 1/2048.
        ("Q4_1", false) => Bound::OfLargest(1.0 / 15.0 + 3.0 / 2048.0),
        ("Q5_1", false) => Bound::OfLargest(1.0 / 31.0 + 3.0 / 2048.0),
        ("Q4_1", true) => Bound::RmsOfRange(1.0 / 15.0),
        ("Q5_1", true) => Bound::RmsOfRange(1.0 / 31.0),
        // Half a step of 127, and 1/2048 of the magnitude by the scale.
        ("Q8_0" | "Q8_1", _) => Bound::OfLargest(0.5 / 127.0 + 1.0 / 2048.0),
        ("Q8_K", _) => Bound::OfLargest(0.501 / 127.0),
        ("Q2_K", _) => Bound::RmsOfRange(0.71 / 3.0 + 2.0 * 3.0 / 30.0),
        ("Q3_K", _) => Bound::RmsOfLargest(1.0 / 4.0),
        ("Q4_K", _) => Bound::RmsOfRange(1.0 / 15.0),
        ("Q5_K", _) => Bound::RmsOfRange(1.0 / 31.0),
        ("Q6_K", _) => Bound::RmsOfLargest(1.0 / 32.0),
        // The widest gap of the codebook is 24 where the largest level is 113 or -127.
        ("IQ4_NL" | "IQ4_XS", _) => Bound::RmsOfLargest(24.0 / 113.0),
        // One magnitude, the mean: any value may be anything between 0 and the largest.
        ("Q1_0", _) => Bound::OfLargest(1.0 + 1.0 / 2048.0),
        // Half of the step, which is the largest magnitude.
        ("Q2_0" | "TQ1_0" | "TQ2_0", _) => Bound::OfLargest(0.5 + 1.0 / 2048.0),
        // Scale s puts the largest magnitude into 4s..8s: half of the gap from 4s to 6s, or clipping 8s to 6s.
        ("MXFP4", _) => Bound::OfLargest(0.25),
        // The scale is within 1/16 of largest / 6; half of the gap from 4 to 6.
        ("NVFP4", _) => Bound::OfLargest(17.0 / 16.0 / 6.0),
        (name, _) => panic!("{name} has no error bound here: add one with its reason"),
    }
}

/// Whether one block is within the bound of its format.
fn check_bound(format: &BlockFormat, weighted: bool, x: &[f32], got: &[f32]) -> Result<(), TestCaseError> {
    // Half of the smallest step of a scale, times all levels: f16 ends at 2^-24 (Q6_K: 128 * 32 levels), UE4M3 at 2^-9.
    let lost = if format.name == "NVFP4" { 6.0 / 1024.0 } else { 4096.0 / 33_554_432.0 };
    match bound(format, weighted) {
        Bound::OfValue(share) => {
            for (x, got) in x.iter().zip(got) {
                let lost = if format.name == "F16" { lost } else { 0.0 };
                prop_assert!((x - got).abs() <= share * x.abs() + lost, "{}: {x:e} became {got:e}", format.name);
            }
        }
        Bound::OfLargest(share) => {
            let limit = share * amax(x) + lost;
            for (x, got) in x.iter().zip(got) {
                prop_assert!((x - got).abs() <= limit, "{}: {x:e} became {got:e}, limit {limit:e}", format.name);
            }
        }
        Bound::RmsOfLargest(share) => check_rms(format, x, got, share * amax(x) + lost)?,
        Bound::RmsOfRange(share) => {
            let (min, max) = x.iter().fold((0.0f32, 0.0f32), |(min, max), &x| (min.min(x), max.max(x)));
            check_rms(format, x, got, share * (max - min) + lost)?;
        }
    }
    Ok(())
}

fn check_rms(format: &BlockFormat, x: &[f32], got: &[f32], limit: f32) -> Result<(), TestCaseError> {
    let squares: f64 = x.iter().zip(got).map(|(x, got)| f64::from(x - got).powi(2)).sum();
    let rms = (squares / x.len() as f64).sqrt() as f32;
    prop_assert!(rms <= limit, "{}: root mean square error {rms:e}, limit {limit:e}", format.name);
    Ok(())
}

/// Kinds whose magnitudes every format can hold without loss beyond its bound.
fn ordinary_kind() -> impl Strategy<Value = usize> {
    (0..KINDS.len()).prop_filter("within every format's range", |&k| {
        !["any float below 2^32", "any magnitude", "subnormal", "one outlier"].contains(&KINDS[k])
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn decoded_values_are_within_the_bound_of_the_grid(kind in ordinary_kind(), seed: u64, largest in 1.0f32..1000.0) {
        let mut random = Random::new(seed);
        let mut x = values(kind, 512, &mut random);
        let factor = largest / amax(&x).max(f32::MIN_POSITIVE);
        x.iter_mut().for_each(|x| *x *= factor);
        for format in writable().filter(|w| readable().any(|r| r.id == w.id)) {
            let weights = vec![1.0; x.len()];
            for importance in importances(format, &weights) {
                let (_, got) = round_trip(format, &x, importance);
                let n = format.block_len.max(16);
                for (x, got) in x.chunks(n).zip(got.chunks(n)) {
                    check_bound(format, importance.is_some(), x, got)?;
                }
            }
        }
    }

    #[test]
    fn decoded_values_of_a_grid_that_contains_its_own_scale_do_not_move(kind in ordinary_kind(), seed: u64) {
        // Each of these finds the scale again from its own decoded values: the largest magnitude is a fixed level whose product
        // with the scale is exact (Q1_0: the mean of equal magnitudes is exact), and nearest levels of levels are themselves.
        let x = values(kind, 512, &mut Random::new(seed));
        for name in ["F32", "F16", "BF16", "Q4_0", "Q5_0", "Q8_0", "Q1_0", "Q2_0", "TQ1_0", "TQ2_0", "MXFP4"] {
            let format = quantrs_blocks::by_name(name).expect("a format of the registry");
            let (_, once) = round_trip(format, &x, None);
            let (_, twice) = round_trip(format, &once, None);
            prop_assert_eq!(once, twice, "{}", name);
        }
    }

    #[test]
    fn any_bytes_with_finite_scales_decode_to_finite_values(seed: u64) {
        let mut random = Random::new(seed);
        for format in readable() {
            let mut packed = random.bytes(8 * format.block_bytes);
            for block in packed.chunks_mut(format.block_bytes) {
                match format.scales {
                    // Scales whose largest product is above the largest float are left out: 6 * 2^(e - 127), 127 * d.
                    Scales::E8M0 => block[0] = block[0].min(252),
                    Scales::F32 if format.block_len > 1 => block[3] &= 0xbb,
                    _ => {}
                }
            }
            for block in packed.chunks(format.block_bytes).filter(|b| format.first_bad_scale(b).is_none()) {
                let values = dequantize(format, Level::detect(), block);
                prop_assert!(values.iter().all(|v| v.is_finite()), "{}: {block:02x?}", format.name);
            }
        }
    }

    #[test]
    fn every_level_writes_the_same_bytes_of_random_rows(kind in 0..KINDS.len(), seed: u64, n_blocks in 1usize..20) {
        let mut random = Random::new(seed);
        for format in writable() {
            let n_cols = n_blocks * format.block_len;
            let x = values(kind, n_cols, &mut random);
            let weights = random.importance(n_cols);
            for importance in importances(format, &weights) {
                let rows = Rows { x: &x, n_cols, importance };
                let want = quantize(format, Level::Scalar, rows);
                if format.first_bad_scale(&want).is_some() {
                    continue;
                }
                for level in Level::all() {
                    prop_assert!(quantize(format, level, rows) == want, "{} at {}", format.name, level.name());
                }
            }
        }
    }
}
