//! The grids of the IQ formats: fixed sets of points that a block refers to by index.
//!
//! `grid_codes` holds each point as one number; the tables here spell the points out as the values that decoders multiply, one
//! byte per element. The searches of the quantizers work on the digits of the codes.

mod grid_codes;
mod signs;

use grid_codes as codes;
pub(crate) use signs::{EVEN_SIGNS, put_signed};

/// Values of the digits of IQ2_XXS, IQ2_XS and IQ2_S.
const IQ2_VALUES: [u8; 4] = [8, 25, 43, 0];
/// Values of the digits of IQ3_XXS.
const IQ3XXS_VALUES: [u8; 8] = [4, 12, 20, 28, 36, 44, 52, 62];
/// Values of the digits of IQ3_S.
const IQ3S_VALUES: [u8; 8] = [1, 3, 5, 7, 9, 11, 13, 15];

/// Points of IQ2_XXS.
pub(crate) static IQ2XXS: [[u8; 8]; 256] = points(&codes::IQ2XXS, &IQ2_VALUES);
/// Points of IQ2_XS.
pub(crate) static IQ2XS: [[u8; 8]; 512] = points(&codes::IQ2XS, &IQ2_VALUES);
/// Points of IQ2_S.
pub(crate) static IQ2S: [[u8; 8]; 1024] = points(&codes::IQ2S, &IQ2_VALUES);
/// Points of IQ3_XXS.
pub(crate) static IQ3XXS: [[u8; 4]; 256] = points(&codes::IQ3XXS, &IQ3XXS_VALUES);
/// Points of IQ3_S.
pub(crate) static IQ3S: [[u8; 4]; 512] = points(&codes::IQ3S, &IQ3S_VALUES);
/// Points of IQ1_S and IQ1_M: digits 0, 1, 2, one more than the value.
pub(crate) static IQ1S: [[u8; 8]; 2048] = points(&codes::IQ1S, &[0, 1, 2, 0]);

/// Spell out the digits of each code: `log2(N_VALUES)` bits per digit, element 0 lowest.
const fn points<const N_POINTS: usize, const DIM: usize, const N_VALUES: usize>(
    codes: &[u16; N_POINTS],
    values: &[u8; N_VALUES],
) -> [[u8; DIM]; N_POINTS] {
    let mut points = [[0; DIM]; N_POINTS];
    let mut i = 0;
    while i < N_POINTS {
        let mut rest = codes[i] as usize;
        let mut k = 0;
        while k < DIM {
            points[i][k] = values[rest % N_VALUES];
            rest /= N_VALUES;
            k += 1;
        }
        i += 1;
    }
    points
}
