//! The grids of the IQ formats: fixed sets of points that a block refers to by index.
//!
//! `grid_codes` holds each point as one number; the tables here spell the points out as the values that decoders multiply, one
//! byte per element, element 0 in the low byte. The searches of the quantizers work on the digits of the codes.

mod grid_codes;
mod signs;

use grid_codes as codes;
pub(crate) use signs::{EVEN_SIGN_MASKS, SIGN_MASKS, add_bytes, negate};

/// Values of the digits of IQ2_XXS, IQ2_XS and IQ2_S.
const IQ2_VALUES: [u8; 4] = [8, 25, 43, 0];
/// Values of the digits of IQ3_XXS.
const IQ3XXS_VALUES: [u8; 8] = [4, 12, 20, 28, 36, 44, 52, 62];
/// Values of the digits of IQ3_S.
const IQ3S_VALUES: [u8; 8] = [1, 3, 5, 7, 9, 11, 13, 15];
/// Eight times the values of the digits of IQ1_S and IQ1_M with the shift up: -1, 0 and 1 plus 1/8.
const IQ1_VALUES: [u8; 4] = [(-7i8).cast_unsigned(), 1, 9, 0];

/// Points of IQ2_XXS.
pub(crate) static IQ2XXS: [u64; 256] = points::<8, 256, 4>(&codes::IQ2XXS, &IQ2_VALUES);
/// Points of IQ2_XS.
pub(crate) static IQ2XS: [u64; 512] = points::<8, 512, 4>(&codes::IQ2XS, &IQ2_VALUES);
/// Points of IQ2_S.
pub(crate) static IQ2S: [u64; 1024] = points::<8, 1024, 4>(&codes::IQ2S, &IQ2_VALUES);
/// Points of IQ3_XXS, four elements each.
pub(crate) static IQ3XXS: [u32; 256] = halves(&points::<4, 256, 8>(&codes::IQ3XXS, &IQ3XXS_VALUES));
/// Points of IQ3_S, four elements each.
pub(crate) static IQ3S: [u32; 512] = halves(&points::<4, 512, 8>(&codes::IQ3S, &IQ3S_VALUES));
/// Points of IQ1_S and IQ1_M, times eight and shifted up, signed.
pub(crate) static IQ1S: [u64; 2048] = points::<8, 2048, 4>(&codes::IQ1S, &IQ1_VALUES);

/// Spell out the `DIM` digits of each code: `log2(N_VALUES)` bits per digit, element 0 lowest.
const fn points<const DIM: usize, const N_POINTS: usize, const N_VALUES: usize>(
    codes: &[u16; N_POINTS],
    values: &[u8; N_VALUES],
) -> [u64; N_POINTS] {
    let mut points = [0; N_POINTS];
    let mut i = 0;
    while i < N_POINTS {
        let mut rest = codes[i] as usize;
        let mut k = 0;
        while k < DIM {
            points[i] |= (values[rest % N_VALUES] as u64) << (8 * k);
            rest /= N_VALUES;
            k += 1;
        }
        i += 1;
    }
    points
}

/// Points of four elements, which need half the room.
const fn halves<const N_POINTS: usize>(points: &[u64; N_POINTS]) -> [u32; N_POINTS] {
    let mut halves = [0; N_POINTS];
    let mut i = 0;
    while i < N_POINTS {
        halves[i] = points[i] as u32;
        i += 1;
    }
    halves
}
