//! Inputs at the edges of what is accepted come back finite and of the right size.

use super::levels::assert_blocks_equal;
use super::{amax, importances, quantize, quantize_ref, readable, round_trip, writable};
use quantrs_blocks::{BlockFormat, Rows, Scales};
use quantrs_simd::Level;

/// A row that holds at least two blocks of every format.
const N_COLS: usize = 512;

/// Run `check` on the bytes and values that each writable format makes of `x`, with and without importance.
fn for_each_format(x: &[f32], check: impl Fn(&BlockFormat, &[u8], &[f32])) {
    let weights: Vec<f32> = (0..x.len()).map(|i| 0.5 + (i % 7) as f32).collect();
    for format in writable().filter(|w| readable().any(|r| r.id == w.id)) {
        for importance in importances(format, &weights) {
            let rows = Rows { x, n_cols: x.len(), importance };
            let want = quantize_ref(format, rows);
            for level in Level::all() {
                assert_blocks_equal(format, &quantize(format, level, rows), &want, level.name());
            }
            let (packed, values) = round_trip(format, x, importance);
            check(format, &packed, &values);
        }
    }
}

#[test]
fn zeros_of_either_sign_come_back_as_zeros() {
    let signed: Vec<f32> = (0..N_COLS).map(|i| if i % 3 == 0 { -0.0 } else { 0.0 }).collect();
    for x in [vec![0.0; N_COLS], vec![-0.0; N_COLS], signed] {
        for_each_format(&x, |format, packed, values| {
            assert_eq!(format.first_bad_scale(packed), None, "{}", format.name);
            assert!(values.iter().all(|&v| v == 0.0), "{}: {:?}", format.name, values.iter().find(|v| **v != 0.0));
        });
    }
}

#[test]
fn a_zero_block_beside_another_comes_back_as_zeros() {
    for at in [0, 256] {
        let mut x = vec![0.0; N_COLS];
        x[at..at + 256].iter_mut().enumerate().for_each(|(i, v)| *v = (i as f32 * 0.7).sin());
        for_each_format(&x, |format, _, values| {
            let zeros = &values[256 - at..][..256];
            assert!(zeros.iter().all(|&v| v == 0.0), "{}", format.name);
        });
    }
}

#[test]
fn one_outlier_among_zeros_keeps_its_sign_and_magnitude_and_the_zeros_stay() {
    for outlier in [1000.0, -1000.0] {
        let mut x = vec![0.0; N_COLS];
        x[300] = outlier;
        for_each_format(&x, |format, _, values| {
            if format.name == "Q1_0" {
                return; // Knows no zero: its one magnitude is the mean.
            }
            // The coarsest grid that has the outlier near its end is MXFP4's: 1000 lies between 768 and 1024.
            let relative = values[300] / outlier;
            assert!((0.75..1.25).contains(&relative), "{}: {outlier} became {}", format.name, values[300]);
            let others = values.iter().enumerate().filter(|(i, _)| *i != 300);
            for (i, v) in others {
                assert!(v.abs() <= 0.01 * outlier.abs(), "{}: the zero in column {i} became {v}", format.name);
            }
        });
    }
}

#[test]
fn subnormal_values_come_back_finite_and_small() {
    for bits in [1u32, 2, 0x1000, 0x0040_0000, 0x007f_ffff, 0x0080_0000, 0x0100_0000] {
        let x: Vec<f32> = (0..N_COLS).map(|i| f32::from_bits(bits >> (i % 3)) * [1.0, -1.0][i % 2]).collect();
        for_each_format(&x, |format, packed, values| {
            if format.first_bad_scale(packed).is_some() {
                // MXFP4 from 2^-126 to 2^-125: its exponent wraps to the code of NaN, so the block is refused.
                assert_eq!(format.scales, Scales::E8M0, "{} for magnitude {:e}", format.name, f32::from_bits(bits));
                return;
            }
            assert!(amax(values) <= 2.0 * amax(&x), "{}: {:e} became {:e}", format.name, amax(&x), amax(values));
        });
    }
}

#[test]
fn values_halfway_between_two_levels_agree_at_every_level() {
    // Multiples of half a step for steps that formats choose themselves when 1 is the largest magnitude.
    for n_levels in [1.0, 2.0, 3.0, 4.0, 7.0, 8.0, 12.0, 15.0, 16.0, 31.0, 32.0, 63.0, 127.0, 128.0] {
        let x: Vec<f32> = (0..N_COLS)
            .map(|i| {
                let half_steps = (i as f32 * 37.0 % (4.0 * n_levels + 1.0)) - 2.0 * n_levels;
                if i % 16 == 5 { -1.0 } else { half_steps / (2.0 * n_levels) }
            })
            .collect();
        for_each_format(&x, |format, _, values| {
            assert!(amax(values) <= 1.25, "{}, {n_levels} levels: {}", format.name, amax(values));
        });
    }
}

#[test]
fn large_values_whose_scales_and_sums_f16_holds_come_back_finite() {
    // The sum of 32 of them, which Q8_1 stores, is just below 65504, the largest f16.
    let x: Vec<f32> = (0..N_COLS).map(|i| 2046.0 * (1.0 - (i % 17) as f32 / 8.0)).collect();
    for_each_format(&x, |format, packed, values| {
        assert_eq!(format.first_bad_scale(packed), None, "{}", format.name);
        assert!(values.iter().all(|v| v.is_finite()), "{}", format.name);
    });
}

/// A row of values that end just below `limit`.
fn up_to(limit: f32) -> Vec<f32> {
    let largest = f32::from_bits(limit.to_bits() - 1);
    (0..N_COLS).map(|i| largest * (1.0 - (i % 17) as f32 / 8.0)).collect()
}

#[test]
fn formats_with_wide_scales_hold_values_just_below_2_to_the_62() {
    for_each_format(&up_to(2f32.powi(62)), |format, packed, values| {
        if matches!(format.scales, Scales::F32 | Scales::Bf16 | Scales::E8M0 | Scales::None) {
            assert_eq!(format.first_bad_scale(packed), None, "{}", format.name);
            assert!(values.iter().all(|v| v.is_finite()), "{}", format.name);
        }
    });
}

#[test]
fn an_f16_scale_is_seen_to_overflow_for_values_just_below_2_to_the_32() {
    // No format has more than 128 scale steps times 128 levels: 2^14 * 65504 < 2^30.
    for_each_format(&up_to(2f32.powi(32)), |format, packed, _| {
        if matches!(format.scales, Scales::F16(_)) {
            assert!(format.first_bad_scale(packed).is_some(), "{}", format.name);
        }
    });
}
