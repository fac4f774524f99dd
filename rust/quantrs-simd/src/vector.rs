//! The vocabulary: only operations that are in use.

/// Vectors of [`Simd::LANES`] f32 or i32 at one CPU level. A value of the implementing type proves that the CPU has the level.
///
/// Float operations are single IEEE operations, round to nearest even, on every level. Integer operations wrap. Comparisons
/// with NaN are false.
pub trait Simd: Copy + Send + Sync + 'static {
    /// Number of lanes: 4, 8 or 16, or twice or four times that.
    const LANES: usize;
    /// Vectors that [`load_tile`](Simd::load_tile) fills: the lanes of one hardware register.
    const TILE: usize;
    /// `LANES` f32.
    type F: Copy;
    /// `LANES` i32.
    type I: Copy;
    /// `LANES` truth values.
    type M: Copy;

    /// Call `f` compiled with this level's instructions.
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R;

    /// All lanes `v`.
    fn splat(self, v: f32) -> Self::F;
    /// The first `LANES` values of `x`. Panics when there are fewer.
    fn load(self, x: &[f32]) -> Self::F;
    /// Write to the first `LANES` places of `out`. Panics when there are fewer.
    fn store(self, v: Self::F, out: &mut [f32]);
    /// a + b
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    /// a - b
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    /// a * b
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    /// a / b
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// Square root, correctly rounded.
    fn sqrt(self, a: Self::F) -> Self::F;
    /// |a|: clears the sign bit.
    fn abs(self, a: Self::F) -> Self::F;
    /// -a: flips the sign bit, of zeros too.
    #[inline(always)]
    fn neg(self, a: Self::F) -> Self::F {
        self.sub(self.splat(-0.0), a)
    }
    /// a < b
    fn lt(self, a: Self::F, b: Self::F) -> Self::M;
    /// a <= b
    fn le(self, a: Self::F, b: Self::F) -> Self::M;
    /// a == b
    fn eq(self, a: Self::F, b: Self::F) -> Self::M;
    /// a != b; true with NaN.
    fn ne(self, a: Self::F, b: Self::F) -> Self::M;
    /// a > b
    #[inline(always)]
    fn gt(self, a: Self::F, b: Self::F) -> Self::M {
        self.lt(b, a)
    }
    /// a >= b
    #[inline(always)]
    fn ge(self, a: Self::F, b: Self::F) -> Self::M {
        self.le(b, a)
    }
    /// m ? a : b
    fn select(self, m: Self::M, a: Self::F, b: Self::F) -> Self::F;

    /// All lanes `v`.
    fn isplat(self, v: i32) -> Self::I;
    /// The first `LANES` values of `x`. Panics when there are fewer.
    fn iload(self, x: &[i32]) -> Self::I;
    /// Write to the first `LANES` places of `out`. Panics when there are fewer.
    fn istore(self, v: Self::I, out: &mut [i32]);
    /// a + b
    fn iadd(self, a: Self::I, b: Self::I) -> Self::I;
    /// a - b
    fn isub(self, a: Self::I, b: Self::I) -> Self::I;
    /// a & b
    fn iand(self, a: Self::I, b: Self::I) -> Self::I;
    /// a | b
    fn ior(self, a: Self::I, b: Self::I) -> Self::I;
    /// The smaller, signed.
    fn imin(self, a: Self::I, b: Self::I) -> Self::I;
    /// The larger, signed.
    fn imax(self, a: Self::I, b: Self::I) -> Self::I;
    /// a == b
    fn ieq(self, a: Self::I, b: Self::I) -> Self::M;
    /// m ? a : b
    fn iselect(self, m: Self::M, a: Self::I, b: Self::I) -> Self::I;

    /// The bit patterns.
    fn to_bits(self, a: Self::F) -> Self::I;
    /// The floats with these bit patterns.
    #[expect(clippy::wrong_self_convention, reason = "`self` is the level; the name is that of `f32::from_bits`")]
    fn from_bits(self, a: Self::I) -> Self::F;
    /// To the nearest f32; exact for |a| <= 2^24.
    fn to_f32(self, a: Self::I) -> Self::F;
    /// Toward zero; NaN and everything outside i32 give `i32::MIN`, as [`trunc_i32`](crate::trunc_i32).
    fn trunc(self, a: Self::F) -> Self::I;

    /// a && b
    fn both(self, a: Self::M, b: Self::M) -> Self::M;
    /// a || b
    fn either(self, a: Self::M, b: Self::M) -> Self::M;
    /// a && !b
    fn and_not(self, a: Self::M, b: Self::M) -> Self::M;
    /// Whether any lane is true.
    fn any(self, m: Self::M) -> bool;

    /// The smaller: `a < b ? a : b`, hence b when either is NaN or both are zeros.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// The larger: `a > b ? a : b`, hence b when either is NaN or both are zeros.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// The smallest lane. No lane is NaN; which zero wins is unspecified.
    fn reduce_min(self, a: Self::F) -> f32;
    /// The largest lane. No lane is NaN; which zero wins is unspecified.
    fn reduce_max(self, a: Self::F) -> f32;
    /// a << n, for n in 0..32.
    fn ishl(self, a: Self::I, n: u32) -> Self::I;
    /// a >> n, for n in 0..32; zeros come in.
    fn ishr(self, a: Self::I, n: u32) -> Self::I;
    /// Lane j in bit j; there are at most 32 lanes.
    fn bitmask(self, m: Self::M) -> u32;
    /// The low 8 bits of every lane, to the first `LANES` bytes of `out`. Panics when there are fewer.
    fn store_bytes(self, a: Self::I, out: &mut [u8]);
    /// The first `LANES` bytes of `x`, each 0..=255. Panics when there are fewer.
    fn load_u8(self, x: &[u8]) -> Self::I;
    /// The first `LANES` bytes of `x`, each -128..=127. Panics when there are fewer.
    fn load_i8(self, x: &[u8]) -> Self::I;
    /// The first `LANES` little-endian f16 of `x`, widened: exact; a NaN stays a NaN. Panics when there are fewer.
    fn load_f16(self, x: &[u8]) -> Self::F;
    /// Rounded to f16 as [`f16_bits`](crate::f16_bits), little-endian, to the first `2 * LANES` bytes of `out`. Panics when
    /// there are fewer. No lane is NaN.
    fn store_f16(self, a: Self::F, out: &mut [u8]);
    /// Transpose: lane j of `out[i]` becomes `row(j)[i]`, for i in `0..TILE`. Panics when a row or `out` is shorter than `TILE`.
    fn load_tile<'a>(self, row: impl Fn(usize) -> &'a [f32], out: &mut [Self::F]);
    /// `table[i & 31]`
    fn lookup32(self, table: &[f32; 32], i: Self::I) -> Self::F;

    /// [`nearest_int_ggml`](crate::nearest_int_ggml) in every lane.
    #[inline(always)]
    fn nearest_int(self, v: Self::F) -> Self::I {
        let bits = self.to_bits(self.add(v, self.splat(12_582_912.0)));
        self.isub(self.iand(bits, self.isplat(0x007f_ffff)), self.isplat(0x0040_0000))
    }

    /// [`round_half_away`](crate::round_half_away), then [`trunc`](Self::trunc), for |v| < 2^22 and for NaN and infinities.
    ///
    /// The addend is the largest float below one half: with one half itself, the sum for the largest float below one half
    /// would round up to 1.
    #[inline(always)]
    fn round_half_away(self, v: Self::F) -> Self::I {
        let sign = self.iand(self.to_bits(v), self.isplat(i32::MIN));
        let addend = self.ior(sign, self.isplat(0x3eff_ffff));
        self.trunc(self.add(v, self.from_bits(addend)))
    }

    /// `clamp(nearest_int(v), lo, hi)` as a float. `lo` and `hi` lie within +-2^22.
    ///
    /// Clamps the 23 low bits while they are still biased by 2^22 and puts the exponent of 2^23 back, which saves the
    /// conversion: the float with those bits is 2^23 + 2^22 + n.
    #[inline(always)]
    fn nearest_clamped(self, v: Self::F, lo: i32, hi: i32) -> Self::F {
        let bits = self.iand(self.to_bits(self.add(v, self.splat(12_582_912.0))), self.isplat(0x007f_ffff));
        let clamped = self.imin(self.imax(bits, self.isplat(0x0040_0000 + lo)), self.isplat(0x0040_0000 + hi));
        self.sub(self.from_bits(self.ior(clamped, self.isplat(0x4b00_0000))), self.splat(12_582_912.0))
    }

    /// As [`nearest_clamped`](Simd::nearest_clamped) where |v| < 2^22, and some value in `lo..=hi` for other v: fewer operations.
    /// A zero may be negative.
    #[inline(always)]
    fn nearest_clamped_in_range(self, v: Self::F, lo: i32, hi: i32) -> Self::F {
        const MAGIC: f32 = 12_582_912.0;
        let rounded = self.add(v, self.splat(MAGIC));
        let clamped = self.min(self.max(rounded, self.splat(MAGIC + lo as f32)), self.splat(MAGIC + hi as f32));
        self.sub(clamped, self.splat(MAGIC))
    }
}
