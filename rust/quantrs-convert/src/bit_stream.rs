//! Integer codes of 2 to 8 bits as a little-endian stream of bits in 32-bit words, the order that GPTQ, AWQ and compressed-tensors share.
//!
//! Code `i` of a row takes the bits `i * bits ..` of the row, counted from the lowest bit of its first word, so that codes of
//! 3, 5, 6 and 7 bits may lie across two words. Every row begins a new word; what is left of its last word is zero.
//!
//! Eight codes are `bits` whole bytes. They are brought together, and apart, inside one 64-bit register in three steps, each of
//! which moves every second lane next to its neighbour.

use quantrs_blocks::with_threads;
use rayon::prelude::*;

/// Why codes cannot be packed or unpacked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// Not 2 to 8.
    #[error("bits is {0}; expected 2 to 8")]
    Bits(u32),
    /// A code that does not fit.
    #[error("codes: row {row}, column {col} is {code}, expected at most {most} ({bits} bits)")]
    Code {
        /// The row.
        row: usize,
        /// The column.
        col: usize,
        /// What was found there.
        code: u8,
        /// The largest code.
        most: u8,
        /// Bits of a code.
        bits: u32,
    },
    /// Words per row and columns do not belong together.
    #[error("words: found {found} per row, expected {expected} for {n_cols} columns of {bits} bits")]
    Words {
        /// Words in a row.
        found: usize,
        /// Words that the columns take.
        expected: usize,
        /// Codes in a row.
        n_cols: usize,
        /// Bits of a code.
        bits: u32,
    },
}

/// Words that a row of `n_cols` codes takes; none if the number is beyond any memory.
pub fn words_per_row(n_cols: usize, bits: u32) -> Option<usize> {
    Some(n_cols.checked_mul(bits as usize)?.div_ceil(32))
}

/// Pack rows of codes; `words` is `[n_rows, words_per_row]` and filled whole.
///
/// Class: exact. Panics if the lengths do not belong together.
///
/// # Errors
///
/// [`PackError::Bits`], [`PackError::Code`] for the first code that does not fit.
pub fn pack_rows(
    codes: &[u8],
    n_cols: usize,
    bits: u32,
    words: &mut [i32],
    threads: Option<usize>,
) -> Result<(), PackError> {
    check_bits(bits)?;
    let n_words = words_per_row(n_cols, bits).expect("the codes are in memory");
    if n_cols == 0 {
        return Ok(());
    }
    assert_eq!(codes.len() / n_cols * n_words, words.len(), "words for the rows of codes");
    let rows =
        codes.par_chunks(n_cols).zip(words.par_chunks_mut(n_words)).enumerate().with_min_len(rows_at_once(n_cols));
    with_threads(threads, || {
        rows.map(|(row, (codes, words))| pack_row(codes, bits, words).map_err(|col| (row, col)))
            .reduce(|| Ok(()), first)
    })
    .map_err(|(row, col)| PackError::Code {
        row,
        col,
        code: codes[row * n_cols + col],
        most: u8::MAX >> (8 - bits),
        bits,
    })
}

/// Unpack rows of codes; `words` is `[n_rows, words_per_row]`, `codes` `[n_rows, n_cols]` and filled whole.
///
/// Class: exact. Panics if the lengths do not belong together.
///
/// # Errors
///
/// [`PackError::Bits`].
pub fn unpack_rows(
    words: &[i32],
    n_cols: usize,
    bits: u32,
    codes: &mut [u8],
    threads: Option<usize>,
) -> Result<(), PackError> {
    check_bits(bits)?;
    let n_words = words_per_row(n_cols, bits).expect("the codes are in memory");
    if n_cols == 0 {
        return Ok(());
    }
    assert_eq!(codes.len() / n_cols * n_words, words.len(), "words for the rows of codes");
    let rows = codes.par_chunks_mut(n_cols).zip(words.par_chunks(n_words)).with_min_len(rows_at_once(n_cols));
    with_threads(threads, || rows.for_each(|(codes, words)| unpack_row(words, bits, codes)));
    Ok(())
}

/// One row; the column of the first code that does not fit is the error. `words` has `words_per_row` words, `bits` is 2 to 8.
pub fn pack_row(codes: &[u8], bits: u32, words: &mut [i32]) -> Result<(), usize> {
    let all = codes.iter().fold(0, |all, code| all | code);
    if u32::from(all) >> bits != 0 {
        return Err(codes.iter().position(|&code| u32::from(code) >> bits != 0).unwrap_or(0));
    }
    match bits {
        2 => pack_fitting::<2>(codes, words),
        3 => pack_fitting::<3>(codes, words),
        4 => pack_fitting::<4>(codes, words),
        5 => pack_fitting::<5>(codes, words),
        6 => pack_fitting::<6>(codes, words),
        7 => pack_fitting::<7>(codes, words),
        _ => pack_fitting::<8>(codes, words),
    }
    Ok(())
}

/// One row. `words` has `words_per_row` words, `bits` is 2 to 8.
pub fn unpack_row(words: &[i32], bits: u32, codes: &mut [u8]) {
    match bits {
        2 => unpack_bits::<2>(words, codes),
        3 => unpack_bits::<3>(words, codes),
        4 => unpack_bits::<4>(words, codes),
        5 => unpack_bits::<5>(words, codes),
        6 => unpack_bits::<6>(words, codes),
        7 => unpack_bits::<7>(words, codes),
        _ => unpack_bits::<8>(words, codes),
    }
}

fn check_bits(bits: u32) -> Result<(), PackError> {
    if (2..=8).contains(&bits) { Ok(()) } else { Err(PackError::Bits(bits)) }
}

/// Enough rows for one piece of work: some 64 thousand codes.
fn rows_at_once(n_cols: usize) -> usize {
    (1 << 16) / n_cols + 1
}

/// The error that comes first, whatever the order in which they were found.
fn first(a: Result<(), (usize, usize)>, b: Result<(), (usize, usize)>) -> Result<(), (usize, usize)> {
    match (a, b) {
        (Err(a), Err(b)) => Err(a.min(b)),
        (a, b) => a.and(b),
    }
}

fn pack_fitting<const BITS: usize>(codes: &[u8], words: &mut [i32]) {
    for (codes, words) in codes.chunks(32).zip(words.chunks_mut(BITS)) {
        let mut whole = [0; 32];
        whole[..codes.len()].copy_from_slice(codes);
        // Every eight bytes written reach up to eight bytes further than they count; the next ones overwrite that.
        let mut bytes = [0; 32 + 8];
        for (k, eight) in whole.chunks_exact(8).enumerate() {
            let packed = gather::<BITS>(u64::from_le_bytes(eight.try_into().expect("eight codes")));
            bytes[k * BITS..k * BITS + 8].copy_from_slice(&packed.to_le_bytes());
        }
        for (word, four) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = i32::from_le_bytes(four.try_into().expect("four bytes"));
        }
    }
}

fn unpack_bits<const BITS: usize>(words: &[i32], codes: &mut [u8]) {
    for (codes, words) in codes.chunks_mut(32).zip(words.chunks(BITS)) {
        let mut bytes = [0; 32 + 8];
        for (four, word) in bytes.chunks_exact_mut(4).zip(words) {
            four.copy_from_slice(&word.to_le_bytes());
        }
        let mut whole = [0; 32];
        for (k, eight) in whole.chunks_exact_mut(8).enumerate() {
            let packed = u64::from_le_bytes(bytes[k * BITS..k * BITS + 8].try_into().expect("eight bytes"));
            eight.copy_from_slice(&scatter::<BITS>(packed).to_le_bytes());
        }
        codes.copy_from_slice(&whole[..codes.len()]);
    }
}

const EVEN_BYTES: u64 = 0x00ff_00ff_00ff_00ff;
const EVEN_PAIRS: u64 = 0x0000_ffff_0000_ffff;

/// Eight codes in eight bytes to `8 * BITS` bits.
#[inline(always)]
fn gather<const BITS: usize>(x: u64) -> u64 {
    let gap = 8 - BITS;
    let x = (x & EVEN_BYTES) | (x & !EVEN_BYTES) >> gap;
    let x = (x & EVEN_PAIRS) | (x & !EVEN_PAIRS) >> (2 * gap);
    (x & 0xffff_ffff) | (x >> 32 << 32) >> (4 * gap)
}

/// The inverse; bits from `8 * BITS` on are ignored.
#[inline(always)]
pub(crate) fn scatter<const BITS: usize>(x: u64) -> u64 {
    let gap = 8 - BITS;
    let four = (1u64 << (4 * BITS)) - 1;
    let two = ((1u64 << (2 * BITS)) - 1) * 0x0000_0001_0000_0001;
    let one = ((1u64 << BITS) - 1) * 0x0001_0001_0001_0001;
    let x = (x & four) | (x & four << (4 * BITS)) << (4 * gap);
    let x = (x & two) | (x & two << (2 * BITS)) << (2 * gap);
    (x & one) | (x & one << BITS) << gap
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bit by bit, from the description.
    fn pack_row_ref(codes: &[u8], bits: u32) -> Vec<i32> {
        let mut words = vec![0; words_per_row(codes.len(), bits).unwrap()];
        for (i, code) in codes.iter().enumerate() {
            for bit in 0..bits as usize {
                let at = i * bits as usize + bit;
                words[at / 32] |= i32::from(code >> bit & 1) << (at % 32);
            }
        }
        words
    }

    fn codes(n: usize, bits: u32, seed: u32) -> Vec<u8> {
        let mut state = seed.wrapping_mul(2_654_435_761) | 1;
        let next = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> (32 - bits)) as u8
        };
        (0..n).map(next).collect()
    }

    #[test]
    fn every_length_of_every_width_equals_the_bit_by_bit_stream() {
        for bits in 2..=8 {
            for n_cols in 0..100 {
                let codes = codes(n_cols, bits, n_cols as u32);
                let expected = pack_row_ref(&codes, bits);
                let mut words = vec![-1; expected.len()];
                pack_row(&codes, bits, &mut words).unwrap();
                assert_eq!(words, expected, "{bits} bits, {n_cols} columns");
                let mut back = vec![0xa5; n_cols];
                unpack_row(&words, bits, &mut back);
                assert_eq!(back, codes, "{bits} bits, {n_cols} columns");
            }
        }
    }

    #[test]
    fn words_do_not_depend_on_the_threads() {
        let (n_rows, n_cols) = (301, 517);
        for bits in [3, 4, 8] {
            let codes = codes(n_rows * n_cols, bits, 7);
            let n_words = words_per_row(n_cols, bits).unwrap();
            let expected: Vec<i32> = codes.chunks(n_cols).flat_map(|row| pack_row_ref(row, bits)).collect();
            for threads in 1..4 {
                let mut words = vec![0; n_rows * n_words];
                pack_rows(&codes, n_cols, bits, &mut words, Some(threads)).unwrap();
                assert!(words == expected, "{bits} bits, {threads} threads");
                let mut back = vec![0; codes.len()];
                unpack_rows(&words, n_cols, bits, &mut back, Some(threads)).unwrap();
                assert!(back == codes, "{bits} bits, {threads} threads");
            }
        }
    }

    #[test]
    fn the_first_code_that_does_not_fit_is_named() {
        let (n_rows, n_cols) = (2000, 97);
        let mut codes = codes(n_rows * n_cols, 3, 1);
        codes[1500 * n_cols + 3] = 9;
        codes[700 * n_cols + 96] = 8;
        let mut words = vec![0; n_rows * words_per_row(n_cols, 3).unwrap()];
        let error = pack_rows(&codes, n_cols, 3, &mut words, Some(3)).unwrap_err();
        assert_eq!(error, PackError::Code { row: 700, col: 96, code: 8, most: 7, bits: 3 });
    }

    #[test]
    fn one_bit_and_nine_bits_are_refused() {
        for bits in [0, 1, 9, 32] {
            assert_eq!(pack_rows(&[0; 32], 32, bits, &mut [0; 32], None), Err(PackError::Bits(bits)));
            assert_eq!(unpack_rows(&[0; 32], 32, bits, &mut [0; 32], None), Err(PackError::Bits(bits)));
        }
    }
}
