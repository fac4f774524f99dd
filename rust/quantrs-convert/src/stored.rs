//! Values of any container in float32.

use quantrs_blocks::{BlockError, BlockFormat, by_id};
use quantrs_formats::Stored;
use quantrs_simd::{Level, f16_value};

/// How a stored type is decoded.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Decoder {
    /// By its row of the registry.
    Blocks(&'static BlockFormat),
    /// Value by value.
    Plain { nbytes: usize, value: fn(&[u8]) -> f32 },
}

macro_rules! number {
    ($type:ty) => {
        Decoder::Plain {
            nbytes: size_of::<$type>(),
            // Rounded to nearest, half to even, where float32 does not hold it.
            value: |b| <$type>::from_le_bytes(b.try_into().expect("a chunk of this many bytes")) as f32,
        }
    };
}

impl Decoder {
    /// The decoder of `stored`.
    pub(crate) fn of(stored: Stored) -> Result<Decoder, BlockError> {
        if let Some(format) = stored.type_id.and_then(by_id).filter(|f| f.dequantize.is_some()) {
            return Ok(Decoder::Blocks(format));
        }
        Ok(match stored.name {
            "BOOL" | "U8" => number!(u8),
            "I8" => number!(i8),
            "U16" => number!(u16),
            "I16" => number!(i16),
            "U32" => number!(u32),
            "I32" => number!(i32),
            "U64" => number!(u64),
            "I64" => number!(i64),
            "F64" => number!(f64),
            "F8_E4M3" => Decoder::Plain { nbytes: 1, value: |b| f8_e4m3(b[0]) },
            // The upper half of a float16.
            "F8_E5M2" => Decoder::Plain { nbytes: 1, value: |b| f16_value(u16::from(b[0]) << 8) },
            name => return Err(BlockError::Unsupported { format: name, verb: "decoded" }),
        })
    }

    /// Decode whole blocks into as many values.
    pub(crate) fn decode(self, level: Level, bytes: &[u8], out: &mut [f32]) {
        match self {
            Decoder::Blocks(format) => format.dequantize.expect("checked by Decoder::of")(level, bytes, out),
            Decoder::Plain { nbytes: 1, value } => {
                let table: [f32; 256] = std::array::from_fn(|i| value(&[i as u8]));
                for (b, out) in bytes.iter().zip(out) {
                    *out = table[usize::from(*b)];
                }
            }
            Decoder::Plain { nbytes, value } => {
                for (b, out) in bytes.chunks_exact(nbytes).zip(out) {
                    *out = value(b);
                }
            }
        }
    }
}

/// Sign, 4 bits of exponent (bias 7), 3 of mantissa; no infinities, 0x7f and 0xff are NaN.
///
/// Source    "FP8 Formats for Deep Learning", Micikevicius et al. 2022, table 1
pub(crate) fn f8_e4m3(b: u8) -> f32 {
    let (exponent, mantissa) = (b >> 3 & 15, f32::from(b & 7));
    let magnitude = match (exponent, b & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa / 512.0,
        _ => (1.0 + mantissa / 8.0) * f32::from_bits((u32::from(exponent) + 127 - 7) << 23),
    };
    if b & 0x80 == 0 { magnitude } else { -magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(name: &str, bytes: &[u8]) -> Vec<f32> {
        let stored = Stored::by_name(name).unwrap();
        let mut out = vec![0.0; bytes.len() / stored.block_bytes as usize];
        Decoder::of(stored).unwrap().decode(Level::detect(), bytes, &mut out);
        out
    }

    /// Values of the tables in the paper that defines the formats, and of its encodings of the extremes.
    #[test]
    fn f8_values_are_those_of_the_papers_table() {
        let e4m3 = decoded("F8_E4M3", &[0x00, 0x80, 0x01, 0x07, 0x08, 0x38, 0xb8, 0x7e, 0xfe]);
        assert_eq!(e4m3, [0.0, -0.0, 0.001_953_125, 0.013_671_875, 0.015_625, 1.0, -1.0, 448.0, -448.0]);
        assert!(e4m3[1].is_sign_negative());
        assert!(decoded("F8_E4M3", &[0x7f, 0xff]).iter().all(|v| v.is_nan()));
        let e5m2 = decoded("F8_E5M2", &[0x00, 0x01, 0x03, 0x04, 0x3c, 0xbc, 0x7b]);
        assert_eq!(e5m2, [0.0, 1.525_878_9e-5, 4.577_636_7e-5, 6.103_515_6e-5, 1.0, -1.0, 57_344.0]);
        assert_eq!(decoded("F8_E5M2", &[0x7c, 0xfc]), [f32::INFINITY, f32::NEG_INFINITY]);
        assert!(decoded("F8_E5M2", &[0x7d, 0xff]).iter().all(|v| v.is_nan()));
    }

    #[test]
    fn integers_and_wide_floats_round_to_nearest() {
        assert_eq!(decoded("I8", &[0xff, 0x7f]), [-1.0, 127.0]);
        assert_eq!(decoded("U8", &[0xff]), [255.0]);
        assert_eq!(decoded("BOOL", &[1, 0]), [1.0, 0.0]);
        assert_eq!(decoded("I16", &(-2i16).to_le_bytes()), [-2.0]);
        assert_eq!(decoded("U16", &65_535u16.to_le_bytes()), [65_535.0]);
        assert_eq!(decoded("I32", &16_777_217i32.to_le_bytes()), [16_777_216.0]);
        assert_eq!(decoded("U32", &u32::MAX.to_le_bytes()), [4_294_967_296.0]);
        assert_eq!(decoded("I64", &(-3i64).to_le_bytes()), [-3.0]);
        assert_eq!(decoded("U64", &u64::MAX.to_le_bytes()), [18_446_744_073_709_551_616.0]);
        assert_eq!(decoded("F64", &0.1f64.to_le_bytes()), [0.1f32]);
    }
}
