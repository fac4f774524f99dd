//! Signs of eight values in a byte: bit k set means that element k is negative.

/// The eight signs of a seven-bit code: the signs of elements 0..7; that of element 7 makes the number of negatives even.
pub(crate) static EVEN_SIGNS: [u8; 128] = {
    let mut signs = [0; 128];
    let mut code = 0u8;
    while code < 128 {
        signs[code as usize] = code | ((code.count_ones() as u8) & 1) << 7;
        code += 1;
    }
    signs
};

/// `out[k] = (scale * values[k])` with the sign of bit k: exact, as a product with -1 would be.
#[inline(always)]
pub(crate) fn put_signed(out: &mut [f32], scale: f32, values: [u8; 8], signs: u8) {
    let out: &mut [f32; 8] = out.try_into().expect("8 values");
    for (k, (out, value)) in out.iter_mut().zip(values).enumerate() {
        let sign = u32::from(signs) << (31 - k) & 0x8000_0000;
        *out = f32::from_bits((scale * f32::from(value)).to_bits() ^ sign);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_signs_are_even_and_keep_their_code() {
        for (code, signs) in EVEN_SIGNS.iter().enumerate() {
            assert_eq!(signs.count_ones() % 2, 0, "code {code}");
            assert_eq!(usize::from(signs & 127), code);
        }
    }
}
