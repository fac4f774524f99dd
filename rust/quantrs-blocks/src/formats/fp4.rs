//! What MXFP4 and NVFP4 share: the E2M1 codes and the choice of the nearest one.
//!
//! A code is a sign and a magnitude of 0, 0.5, 1, 1.5, 2, 3, 4 or 6. Both formats keep twice these as integers and halve the
//! scale instead.

/// Twice the value of each code. Code 8 is -0, which no quantizer writes.
pub(crate) const DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// Midpoints of neighbouring doubled magnitudes.
const MIDPOINTS: [f32; 7] = [0.5, 1.5, 2.5, 3.5, 5.0, 7.0, 10.0];

/// The code whose value under `scale` is nearest to x, the lowest of equals, as ggml searches for it.
pub(crate) fn nearest_ref(x: f32, scale: f32) -> u8 {
    let error = |code: usize| (f32::from(DOUBLED[code]) * scale - x).abs();
    (1..16).fold(0, |best, code| if error(code) < error(best) { code } else { best }) as u8
}

/// [`nearest_ref`] of 16 values by comparison with the midpoints. `scale` is a number of at most 8 significant bits, so that
/// products are exact, and positive unless all x are 0; |x| <= 2^16 * scale.
///
/// Equal because the two errors that decide are exact: for neighbours a <= |x| <= b both |x| - a and b - |x| are differences of
/// floats within a factor of two (Sterbenz); beside a = 0 the larger error may round, never across the smaller. A midpoint
/// goes to the smaller magnitude, which has the lower code, and 0 comes before -0. Above the largest magnitude errors are
/// rounded, but 4 * scale apart.
#[inline(always)]
pub(crate) fn nearest_16(x: &[f32], scale: f32) -> [u8; 16] {
    let limits = MIDPOINTS.map(|m| m * scale);
    let x: &[f32; 16] = x.try_into().expect("16 values");
    let mut codes = [0u8; 16];
    for (code, x) in codes.iter_mut().zip(x) {
        let magnitude = limits.iter().fold(0, |n, &limit| n + i32::from(x.abs() > limit));
        let sign = if *x < -limits[0] { 8 } else { 0 };
        *code = (magnitude | sign) as u8;
    }
    codes
}

/// [`DOUBLED`] by arithmetic, which vectorizes on bytes: the magnitudes grow by one up to 4, by two up to 8, then by four.
#[inline(always)]
pub(crate) fn doubled(code: u8) -> i8 {
    let m = code & 7;
    let magnitude = (m + m.saturating_sub(4) + 2 * m.saturating_sub(6)) as i8;
    if code & 8 != 0 { -magnitude } else { magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubled_equals_the_table_for_every_code() {
        for code in 0..16 {
            assert_eq!(doubled(code), DOUBLED[usize::from(code)], "code {code}");
        }
    }

    #[test]
    fn nearest_equals_its_reference_around_every_midpoint_of_every_kind_of_scale() {
        for scale in [1.0, 0.75, 1.875 * 64.0, f32::MIN_POSITIVE / 4.0, f32::MIN_POSITIVE, 7.0 / 1024.0, 2f32.powi(50)]
        {
            for m in MIDPOINTS.into_iter().chain(DOUBLED.map(f32::from)).chain([13.0, 100.0, 65536.0]) {
                let bits = (m * scale).abs().to_bits();
                let x: [f32; 16] = std::array::from_fn(|i| {
                    let near = f32::from_bits((bits + i as u32 / 2).saturating_sub(3));
                    if i % 2 == 0 { near } else { -near }
                });
                assert_eq!(nearest_16(&x, scale), x.map(|x| nearest_ref(x, scale)), "around {m} * {scale:e}");
            }
        }
    }
}
