//! Every level gives the bytes of the reference and the values of the scalar decoder.

use super::inputs::{KINDS, Random, values};
use super::{dequantize, importances, quantize, quantize_ref, readable, writable};
use quantrs_blocks::{BlockFormat, Rows};
use quantrs_simd::Level;

/// Longer than two vectors of blocks at every level, and every remainder.
const MOST_BLOCKS: usize = 40;

/// Panic at the first block that differs. Blocks whose scale overflows are left out: they are refused, whatever their bytes.
pub(crate) fn assert_blocks_equal(format: &BlockFormat, got: &[u8], want: &[u8], what: &str) {
    let blocks = got.chunks(format.block_bytes).zip(want.chunks(format.block_bytes));
    for (i, (got, want)) in blocks.enumerate() {
        let refused = format.first_bad_scale(want).is_some() && format.first_bad_scale(got).is_some();
        assert!(got == want || refused, "{} {what}, block {i}:\n got {got:02x?}\nwant {want:02x?}", format.name);
    }
}

#[test]
fn every_level_writes_the_bytes_of_the_reference_for_every_number_of_blocks() {
    for format in writable() {
        let mut random = Random::new(u64::from(format.id));
        for n_blocks in 1..=MOST_BLOCKS {
            let n_cols = n_blocks * format.block_len;
            let kind = n_blocks % KINDS.len();
            let x = values(kind, n_cols, &mut random);
            let weights = random.importance(n_cols);
            for importance in importances(format, &weights) {
                let rows = Rows { x: &x, n_cols, importance };
                let want = quantize_ref(format, rows);
                for level in Level::all() {
                    let weighted = if importance.is_some() { " weighted" } else { "" };
                    let what = format!("at {}, {n_blocks} blocks, {}{weighted}", level.name(), KINDS[kind]);
                    assert_blocks_equal(format, &quantize(format, level, rows), &want, &what);
                }
            }
        }
    }
}

#[test]
fn every_level_writes_the_bytes_of_the_reference_for_every_kind_of_values() {
    for format in writable() {
        let mut random = Random::new(1000 + u64::from(format.id));
        let n_cols = 17 * format.block_len;
        for (kind, name) in KINDS.iter().enumerate() {
            let x = values(kind, n_cols, &mut random);
            let weights = random.importance(n_cols);
            for importance in importances(format, &weights) {
                let rows = Rows { x: &x, n_cols, importance };
                let want = quantize_ref(format, rows);
                for level in Level::all() {
                    let what = format!("at {}, {name}", level.name());
                    assert_blocks_equal(format, &quantize(format, level, rows), &want, &what);
                }
            }
        }
    }
}

#[test]
fn rows_have_the_same_bytes_alone_and_among_others() {
    for format in writable() {
        let mut random = Random::new(2000 + u64::from(format.id));
        for (n_rows, row_blocks) in [(1, 13), (13, 1), (3, 5), (7, 2), (2, 17), (40, 1)] {
            let n_cols = row_blocks * format.block_len;
            // Rows of different kinds, so that a value that leaks from one into another is seen.
            let x: Vec<f32> = (0..n_rows).flat_map(|r| values(r % KINDS.len(), n_cols, &mut random)).collect();
            let weights = random.importance(n_cols);
            let row_bytes = row_blocks * format.block_bytes;
            for importance in importances(format, &weights) {
                for level in Level::all() {
                    let all = quantize(format, level, Rows { x: &x, n_cols, importance });
                    for (r, x) in x.chunks(n_cols).enumerate() {
                        let one = quantize(format, level, Rows { x, n_cols, importance });
                        let what = format!("at {}, row {r} of {n_rows} with {row_blocks} blocks", level.name());
                        assert_blocks_equal(format, &all[r * row_bytes..][..row_bytes], &one, &what);
                    }
                }
            }
        }
    }
}

#[test]
fn every_level_decodes_any_bytes_to_the_same_values() {
    for format in readable() {
        let mut random = Random::new(3000 + u64::from(format.id));
        for n_blocks in 1..=MOST_BLOCKS {
            let packed = random.bytes(n_blocks * format.block_bytes);
            let want = dequantize(format, Level::Scalar, &packed);
            for level in Level::all() {
                let got = dequantize(format, level, &packed);
                let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
                if let Some(i) = got.iter().zip(&want).position(|pair| !same(pair)) {
                    panic!("{} at {}, value {i}: got {}, expected {}", format.name, level.name(), got[i], want[i]);
                }
            }
        }
    }
}

#[test]
fn the_levels_that_ran_are_those_that_are_expected() {
    let names: Vec<&str> = Level::all().iter().map(|l| l.name()).collect();
    let skipped: Vec<&str> = ["sse2", "avx2", "avx512", "neon"].into_iter().filter(|n| !names.contains(n)).collect();
    println!("levels tested: {names:?}; not on this CPU: {skipped:?}");
    if let Ok(expected) = std::env::var("QUANTRS_EXPECT_LEVELS") {
        for level in expected.split(',') {
            assert!(
                names.contains(&level),
                "QUANTRS_EXPECT_LEVELS names {level}, which this CPU lacks; it offers {names:?}"
            );
        }
    }
}
