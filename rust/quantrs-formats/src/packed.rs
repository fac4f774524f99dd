//! Rows of a quantized linear whose codes, scales and zero points lie apart, as GPTQ, AWQ and compressed-tensors checkpoints have them.
//!
//! `w[row, col] = (code[row, col] - zero[row, g]) * scale[row, g]`, where g is the group of the column. Rows are outputs, whichever way
//! the container stores them.

/// Where something begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    /// Which source.
    pub source: usize,
    /// Of the first byte, from the start of the source.
    pub offset: u64,
}

/// How codes lie. Words have 32 bits; codes of whole numbers are unsigned there, a bit stream that begins with the lowest bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codes {
    /// Words `[n_rows, ceil(n_cols * bits / 32)]`: compressed-tensors.
    Rows {
        /// 2 to 8.
        bits: u32,
    },
    /// Words `[n_cols * bits / 32, n_rows]`, those of `Rows` transposed: GPTQ.
    Columns {
        /// 2 to 8.
        bits: u32,
    },
    /// Words `[n_cols, n_rows / 8]` of four-bit codes, output `8 * i + j` in nibble `[0, 4, 1, 5, 2, 6, 3, 7][j]`: AWQ.
    Awq,
    /// Signed bytes `[n_rows, n_cols]`.
    I8,
    /// 8-bit floats `[n_rows, n_cols]`.
    F8E4M3,
    /// Bytes `[n_rows, n_cols / 2]` of two 4-bit floats, the even column in the low half.
    F4E2M1,
}

impl Codes {
    /// `rows`, `columns`, `awq`, `i8`, `f8_e4m3` or `f4_e2m1`; `bits` counts for the first two.
    #[must_use]
    pub fn by_name(name: &str, bits: u32) -> Option<Self> {
        Some(match name {
            "rows" => Self::Rows { bits },
            "columns" => Self::Columns { bits },
            "awq" => Self::Awq,
            "i8" => Self::I8,
            "f8_e4m3" => Self::F8E4M3,
            "f4_e2m1" => Self::F4E2M1,
            _ => return None,
        })
    }

    /// The inverse of `by_name`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rows { .. } => "rows",
            Self::Columns { .. } => "columns",
            Self::Awq => "awq",
            Self::I8 => "i8",
            Self::F8E4M3 => "f8_e4m3",
            Self::F4E2M1 => "f4_e2m1",
        }
    }

    /// Bits of a code.
    #[must_use]
    pub fn bits(self) -> u32 {
        match self {
            Self::Rows { bits } | Self::Columns { bits } => bits,
            Self::Awq | Self::F4E2M1 => 4,
            Self::I8 | Self::F8E4M3 => 8,
        }
    }
}

/// How a scale is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScaleType {
    /// float32
    F32,
    /// float16
    F16,
    /// bfloat16
    Bf16,
    /// 8-bit float
    F8E4M3,
    /// The exponent of a power of two, plus 127.
    F8E8M0,
}

impl ScaleType {
    /// `F32`, `F16`, `BF16`, `F8_E4M3` or `F8_E8M0`.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "F32" => Self::F32,
            "F16" => Self::F16,
            "BF16" => Self::Bf16,
            "F8_E4M3" => Self::F8E4M3,
            "F8_E8M0" => Self::F8E8M0,
            _ => return None,
        })
    }

    /// Bytes of one.
    #[must_use]
    pub fn nbytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::F8E4M3 | Self::F8E8M0 => 1,
        }
    }
}

/// Scales `[ceil(n_rows / group_rows), n_groups]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scales {
    /// Where.
    pub at: At,
    /// How each is stored.
    pub scale_type: ScaleType,
    /// Rows that share one.
    pub group_rows: u64,
    /// What is stored is `[n_groups, n_rows]`.
    pub transposed: bool,
    /// One float32 that divides all of them.
    pub divisor: Option<At>,
}

/// How much smaller than they are zero points were stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Less {
    /// Not at all.
    Nothing,
    /// Words less one in every lane, so that a lane of 0 borrowed from the next; 2, 4 and 8 bits.
    OneBorrowing,
    /// Each less one alone, so that 0 became the largest.
    OneWrapping,
}

/// The zero point of every row and group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zeros {
    /// The middle of what unsigned codes can be, and 0 of all others.
    Middle,
    /// Words `[n_groups, n_rows * bits / 32]`: GPTQ.
    Columns {
        /// Where.
        at: At,
        /// What was taken from them.
        less: Less,
    },
    /// Words `[n_groups, n_rows / 8]` in the order of nibbles of [`Codes::Awq`].
    Awq(At),
    /// Words `[ceil(n_rows * bits / 32), n_groups]`: compressed-tensors.
    Rows(At),
    /// Signed bytes `[n_rows, n_groups]`.
    I8(At),
}

/// Rows of a quantized linear; its codes begin where the part does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packed {
    /// How they lie.
    pub codes: Codes,
    /// Columns that share a scale, at least 1.
    pub group_size: u64,
    /// What codes are multiplied by.
    pub scales: Scales,
    /// What is subtracted from codes.
    pub zeros: Zeros,
    /// Where the group of each column is, i32 `[n_cols]`; None where it is `col / group_size`.
    pub g_idx: Option<At>,
}

/// A stretch of a source that a part needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// What it is, for messages.
    pub what: &'static str,
    /// Where it begins.
    pub at: At,
    /// Its bytes.
    pub nbytes: u64,
}

impl Packed {
    /// Groups of columns in rows of `n_cols`.
    #[must_use]
    pub fn n_groups(&self, n_cols: u64) -> u64 {
        n_cols.div_ceil(self.group_size)
    }

    /// Where all of it lies but the codes.
    pub fn sides(&self) -> impl Iterator<Item = At> + use<> {
        let zeros = match self.zeros {
            Zeros::Middle => None,
            Zeros::Columns { at, .. } | Zeros::Awq(at) | Zeros::Rows(at) | Zeros::I8(at) => Some(at),
        };
        [Some(self.scales.at), self.scales.divisor, zeros, self.g_idx].into_iter().flatten()
    }

    /// Check that `n_rows` rows of `n_cols` values can lie like this; every stretch that they need.
    ///
    /// # Errors
    /// What was found, and what is expected.
    pub(crate) fn check(&self, at: At, n_rows: u64, n_cols: u64) -> Result<Vec<Stretch>, (String, String)> {
        let bits = u64::from(self.codes.bits());
        if !(2..=8).contains(&bits) || self.group_size == 0 || self.scales.group_rows == 0 {
            let found = format!(
                "codes of {bits} bits, groups of {} columns and {} rows",
                self.group_size, self.scales.group_rows
            );
            return Err((found, "2 to 8 bits, and groups of at least 1".into()));
        }
        let size = |what: &'static str, n: Option<u64>| {
            n.ok_or_else(|| {
                let found = format!("{what} of {n_rows} rows of {n_cols} codes of {bits} bits, {}", self.codes.name());
                (found, "whole words, and fewer than 2^64 bytes".to_owned())
            })
        };
        let whole = |n: u64, of: u64| n.is_multiple_of(of).then(|| n / of);
        let stream = |n: u64| n.checked_mul(bits).map(|n| n.div_ceil(32)).and_then(|n| n.checked_mul(4));
        let words = |n: u64| n.checked_mul(bits).and_then(|n| whole(n, 32)).and_then(|n| n.checked_mul(4));
        let times = |a: Option<u64>, b: u64| a.and_then(|a| a.checked_mul(b));
        let n_groups = self.n_groups(n_cols);
        let codes = match self.codes {
            Codes::Rows { .. } => times(stream(n_cols), n_rows),
            Codes::Columns { .. } => times(words(n_cols), n_rows),
            Codes::Awq => times(words(n_rows), n_cols),
            Codes::I8 | Codes::F8E4M3 => n_rows.checked_mul(n_cols),
            Codes::F4E2M1 => times(whole(n_cols, 2), n_rows),
        };
        let mut stretches = vec![Stretch { what: "codes", at, nbytes: size("codes", codes)? }];
        let Scales { at, scale_type, group_rows, divisor, .. } = self.scales;
        let n_scales = n_rows.div_ceil(group_rows).checked_mul(n_groups);
        let nbytes = size("scales", times(n_scales, scale_type.nbytes()))?;
        stretches.push(Stretch { what: "scales", at, nbytes });
        stretches.extend(divisor.map(|at| Stretch { what: "the scales' divisor", at, nbytes: 4 }));
        let zeros = match (self.zeros, self.codes) {
            (Zeros::Middle, _) => None,
            (Zeros::Columns { at, less }, Codes::Columns { .. } | Codes::Rows { .. })
                if less != Less::OneBorrowing || 32 % bits == 0 =>
            {
                Some((at, times(words(n_rows), n_groups)))
            }
            (Zeros::Awq(at), Codes::Awq) => Some((at, times(words(n_rows), n_groups))),
            (Zeros::Rows(at), Codes::Rows { .. } | Codes::Columns { .. }) => {
                Some((at, times(stream(n_rows), n_groups)))
            }
            (Zeros::I8(at), Codes::I8 | Codes::Rows { .. } | Codes::Columns { .. }) => {
                Some((at, n_rows.checked_mul(n_groups)))
            }
            _ => {
                let found = format!("zero points of another kind than codes {}", self.codes.name());
                return Err((found, "zero points that are packed as the codes are".into()));
            }
        };
        if let Some((at, nbytes)) = zeros {
            if group_rows != 1 {
                let found = format!("zero points, and scales of {group_rows} rows");
                return Err((found, "a scale for each row where there are zero points".into()));
            }
            stretches.push(Stretch { what: "zero points", at, nbytes: size("zero points", nbytes)? });
        }
        let is_whole = !matches!(self.codes, Codes::F8E4M3 | Codes::F4E2M1);
        if let Some(at) = self.g_idx {
            if !is_whole {
                return Err((
                    format!("g_idx, and codes {}", self.codes.name()),
                    "codes of whole numbers where there is one".into(),
                ));
            }
            stretches.push(Stretch { what: "g_idx", at, nbytes: size("g_idx", n_cols.checked_mul(4))? });
        }
        Ok(stretches)
    }
}
