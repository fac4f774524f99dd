//! Signs of eight values in a byte: bit k set means that element k is negative.

/// The eight signs of a seven-bit code: the signs of elements 0..7; that of element 7 makes the number of negatives even.
const fn even_signs(code: u8) -> u8 {
    code | ((code.count_ones() as u8) & 1) << 7
}

/// A byte of ones for every negative element, element 0 in the low byte.
const fn mask(signs: u8) -> u64 {
    let mut mask = 0;
    let mut k = 0;
    while k < 8 {
        if signs & (1 << k) != 0 {
            mask |= 0xff << (8 * k);
        }
        k += 1;
    }
    mask
}

/// Masks of eight signs.
pub(crate) static SIGN_MASKS: [u64; 256] = {
    let mut masks = [0; 256];
    let mut signs = 0;
    while signs < 256 {
        masks[signs] = mask(signs as u8);
        signs += 1;
    }
    masks
};

/// Masks of seven-bit sign codes.
pub(crate) static EVEN_SIGN_MASKS: [u64; 128] = {
    let mut masks = [0; 128];
    let mut code = 0;
    while code < 128 {
        masks[code] = mask(even_signs(code as u8));
        code += 1;
    }
    masks
};

/// The eight bytes of `point`, each in 1..=127, negated where `mask` has ones: no carry leaves a byte.
#[inline(always)]
pub(crate) fn negate(point: u64, mask: u64) -> u64 {
    (point ^ mask) + (mask & 0x0101_0101_0101_0101)
}

/// The sums of eight pairs of bytes, each with eight bits.
#[inline(always)]
pub(crate) fn add_bytes(a: u64, b: u64) -> u64 {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    ((a & LOW) + (b & LOW)) ^ ((a ^ b) & !LOW)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_sign_masks_are_even_and_keep_their_code() {
        for (code, mask) in EVEN_SIGN_MASKS.iter().enumerate() {
            let signs = SIGN_MASKS.iter().position(|m| m == mask).expect("one of all masks");
            assert_eq!(signs.count_ones() % 2, 0, "code {code}");
            assert_eq!(signs & 127, code);
        }
    }

    #[test]
    fn bytes_are_negated_and_added_without_touching_their_neighbours() {
        for signs in 0..=255u8 {
            let point = [1, 127, 2, 43, 62, 1, 127, 8];
            let got = negate(u64::from_le_bytes(point), SIGN_MASKS[usize::from(signs)]).to_le_bytes();
            for k in 0..8 {
                let want = if signs >> k & 1 != 0 { point[k].wrapping_neg() } else { point[k] };
                assert_eq!(got[k], want, "signs {signs:#x}, element {k}");
            }
            let (a, b) = ([signs; 8], [0, 1, 127, 128, 129, 254, 255, signs]);
            let got = add_bytes(u64::from_le_bytes(a), u64::from_le_bytes(b)).to_le_bytes();
            assert_eq!(got, std::array::from_fn(|k| a[k].wrapping_add(b[k])));
        }
    }
}
