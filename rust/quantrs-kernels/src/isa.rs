//! The operations that products are written in, and the choice of their implementation.

use quantrs_simd::Level;
#[cfg(target_arch = "x86_64")]
use quantrs_simd::{Avx2Fma, Avx2Vnni, Avx512Vnni};

/// Bytes from a column to the next in a tile of integers.
pub(crate) const STRIDE: usize = 512;

/// Vectors of one kind of CPU. "Narrow" ones have 32 bytes, 8 i32 or 8 f32; they unpack weights and serve single columns.
/// "Wide" ones have `W` lanes of 32 bits and serve the tiles of a matrix product.
///
/// Integer operations wrap; a fused multiply-add rounds once where the CPU has one, else twice.
pub(crate) trait Isa: Copy + Send + Sync {
    /// 32 bytes.
    type B: Copy;
    /// 8 i32.
    type I: Copy;
    /// 8 f32.
    type F: Copy;
    /// `4 * W` bytes.
    type WB: Copy;
    /// `W` i32.
    type WI: Copy;
    /// `W` f32.
    type WF: Copy;
    /// Sums of the products of a row: 16 f32.
    type Row: Copy;
    /// Lanes of wide vectors.
    const W: usize;
    /// Columns of a tile of integers: two wide vectors of rows, an integer and a float accumulator each, fit the registers.
    const INT_COLS: usize;
    /// Columns of a tile of floats.
    const FLOAT_COLS: usize;

    /// Call `f` compiled with this CPU's instructions.
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R;

    /// The first 32 bytes. Panics when there are fewer.
    fn load_bytes(self, b: &[u8]) -> Self::B;
    /// To the first 32 bytes. Panics when there are fewer.
    fn store_bytes(self, a: Self::B, out: &mut [u8]);
    /// Of the first 16 bytes, the low nibbles, then the high ones. Panics when there are fewer.
    fn nibbles(self, b: &[u8]) -> Self::B;
    /// As `nibbles`, for each 8 bytes by themselves: low 0..8, high 0..8, low 8..16, high 8..16.
    fn nibbles_by_8(self, b: &[u8]) -> Self::B;
    /// The first 8 bytes as 32 two-bit numbers, the low bits first. Panics when there are fewer.
    fn crumbs(self, b: &[u8]) -> Self::B;
    /// 255 where the bit is set, else 0.
    fn bits(self, word: u32) -> Self::B;
    /// All bytes `v`.
    fn splat_byte(self, v: u8) -> Self::B;
    /// a & b
    fn and(self, a: Self::B, b: Self::B) -> Self::B;
    /// a | b
    fn or(self, a: Self::B, b: Self::B) -> Self::B;
    /// a ^ b
    fn xor(self, a: Self::B, b: Self::B) -> Self::B;
    /// a + b
    fn add_bytes(self, a: Self::B, b: Self::B) -> Self::B;
    /// `(a >> n) & mask`, for masks that keep none of the bits that come from the neighbour.
    fn shr_and(self, a: Self::B, n: usize, mask: u8) -> Self::B;
    /// `(a << n) & mask`, for such masks.
    fn shl_and(self, a: Self::B, n: usize, mask: u8) -> Self::B;
    /// The bits of `mask << from`, moved to `mask << to`.
    #[inline(always)]
    fn move_bits(self, a: Self::B, mask: u8, from: usize, to: usize) -> Self::B {
        if from >= to { self.shr_and(a, from - to, mask << to) } else { self.shl_and(a, to - from, mask << to) }
    }
    /// `table[i]` for i below 16.
    fn lookup(self, table: &[u8; 16], i: Self::B) -> Self::B;
    /// Eight vectors as a matrix of 8 x 8 groups of four bytes, transposed.
    fn transpose(self, rows: [Self::B; 8]) -> [Self::B; 8];

    /// The f16 in the first two bytes. Panics when there are fewer.
    fn f16(self, b: &[u8]) -> f32;
    /// The first 8 f16. Panics when there are fewer.
    fn load_f16(self, b: &[u8]) -> Self::F;
    /// The first 8 bf16. Panics when there are fewer.
    fn load_bf16(self, b: &[u8]) -> Self::F;
    /// The first 8 f32. Panics when there are fewer.
    fn load_f32(self, b: &[u8]) -> Self::F;
    /// The bytes of the number, the lowest first, 0..=255 each.
    fn widen_u8(self, bytes: u64) -> Self::F;
    /// The bytes of the number, the lowest first, -128..=127 each.
    fn widen_i8(self, bytes: u64) -> Self::F;
    /// All lanes `v`.
    fn splat(self, v: f32) -> Self::F;
    /// Four lanes `x[0]`, four lanes `x[1]`. Panics when there are fewer.
    fn pair(self, x: &[f32]) -> Self::F;
    /// Eight f16 at multiples of `stride` bytes. Panics when there are fewer.
    fn gather_f16(self, b: &[u8], stride: usize) -> Self::F;
    /// Two f16 side by side at multiples of `stride`, as `gather_f16`: the first ones, the second ones.
    fn gather_f16_pairs(self, b: &[u8], stride: usize) -> (Self::F, Self::F);
    /// The lanes, in registers: small stores followed by a wide load would wait for each other.
    fn set(self, lanes: [f32; 8]) -> Self::F;
    /// The bytes, in registers, as `set`.
    fn set_bytes(self, bytes: [u64; 4]) -> Self::B;
    /// The first 8. Panics when there are fewer.
    fn load(self, x: &[f32]) -> Self::F;
    /// To the first 8. Panics when there are fewer.
    fn store(self, a: Self::F, out: &mut [f32]);
    /// Lanes 0 0 1 1 2 2 3 3 and 4 4 5 5 6 6 7 7.
    fn twice_each(self, a: Self::F) -> (Self::F, Self::F);
    /// a + b
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    /// a * b
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    /// a * b + c
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The sum of the lanes: ((0 + 4) + (2 + 6)) + ((1 + 5) + (3 + 7)).
    fn sum(self, a: Self::F) -> f32;

    /// All lanes `v`.
    fn isplat(self, v: i32) -> Self::I;
    /// To each lane of `acc` the four products of its bytes: u unsigned, x signed. `byte` tells that u may exceed 127.
    ///
    /// x is not -128 unless `byte`.
    fn dot(self, byte: bool, acc: Self::I, u: Self::B, x: Self::B) -> Self::I;
    /// To f32, exact up to 2^24.
    fn to_f32(self, a: Self::I) -> Self::F;

    /// The largest magnitude of a multiple of 32 values; NaN where one is NaN. Panics when they are none.
    fn largest(self, x: &[f32]) -> f32;
    /// Round the first 32 values times `inverse`, halves to even, to `codes`; zeros where `inverse` is 0. The sums of 16 codes each.
    /// Panics when there are fewer.
    fn quantize(self, x: &[f32], inverse: f32, codes: &mut [i8]) -> [i32; 2];

    /// Zeros.
    fn row_zero(self) -> Self::Row;
    /// To each lane the four products of its bytes of u with bytes `64 * i..` of x, as [`dot`](Isa::dot), times its scale: there is
    /// one for each 32 or 16 bytes of x, as `group` says.
    #[expect(clippy::too_many_arguments, reason = "two operands with their scales, and which part of them")]
    fn row_add(
        self,
        byte: bool,
        group: usize,
        i: usize,
        u: [Self::B; 2],
        x: &[u8; 256],
        scales: &[f32; 16],
        acc: Self::Row,
    ) -> Self::Row;
    /// The sum of all lanes: lane by lane, then lane k and lane k + 8, then `rest` lane by lane, then as [`sum`](Isa::sum).
    fn row_sum(self, acc: [Self::Row; 2], rest: Self::F) -> f32;

    /// Ask for the cache line at `p` ahead of its use; any address will do.
    fn prefetch(self, p: *const u8);

    /// # Safety
    ///
    /// `4 * W` bytes can be read at `p`.
    unsafe fn wide_bytes(self, p: *const u8) -> Self::WB;
    /// The same four bytes in all lanes.
    ///
    /// # Safety
    ///
    /// Four bytes can be read at `p`.
    unsafe fn wide_quad(self, p: *const i8) -> Self::WB;
    /// As [`dot`](Isa::dot).
    fn wide_dot(self, byte: bool, acc: Self::WI, u: Self::WB, x: Self::WB) -> Self::WI;
    /// To each of `dots[c]` the products of four weights of each row, two wide vectors at `u`, with four bytes of column c, at
    /// `x + c * STRIDE`.
    ///
    /// # Safety
    ///
    /// `8 * W` bytes can be read at `u`, a multiple of `4 * W`, and four at each place in `x`.
    #[inline(always)]
    unsafe fn add_quads<const COLS: usize>(
        self,
        byte: bool,
        mut dots: [[Self::WI; 2]; COLS],
        u: *const u8,
        x: *const i8,
    ) -> [[Self::WI; 2]; COLS] {
        // SAFETY: the caller's promise.
        let u = unsafe { [self.wide_bytes(u), self.wide_bytes(u.add(4 * Self::W))] };
        for (c, dots) in dots.iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            let quad = unsafe { self.wide_quad(x.add(c * STRIDE)) };
            *dots = [self.wide_dot(byte, dots[0], u[0], quad), self.wide_dot(byte, dots[1], u[1], quad)];
        }
        dots
    }
    /// All lanes `v`.
    fn wide_isplat(self, v: i32) -> Self::WI;
    /// # Safety
    ///
    /// `W` values can be read at `p`.
    unsafe fn wide_iload(self, p: *const i32) -> Self::WI;
    /// # Safety
    ///
    /// `W` values can be written at `p`.
    unsafe fn wide_istore(self, a: Self::WI, p: *mut i32);
    /// As [`to_f32`](Isa::to_f32).
    fn wide_to_f32(self, a: Self::WI) -> Self::WF;
    /// All lanes `v`.
    fn wide_splat(self, v: f32) -> Self::WF;
    /// # Safety
    ///
    /// `W` values can be read at `p`.
    unsafe fn wide_load(self, p: *const f32) -> Self::WF;
    /// # Safety
    ///
    /// `W` values can be written at `p`.
    unsafe fn wide_store(self, a: Self::WF, p: *mut f32);
    /// a * b
    fn wide_mul(self, a: Self::WF, b: Self::WF) -> Self::WF;
    /// a * b + c
    fn wide_fma(self, a: Self::WF, b: Self::WF, c: Self::WF) -> Self::WF;
}

/// The implementations of [`Isa`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum Machine {
    Plain,
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2Fma),
    #[cfg(target_arch = "x86_64")]
    Avx2Vnni(Avx2Vnni),
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni(Avx512Vnni),
}

impl Machine {
    /// The best that stays within the level.
    pub(crate) fn of(level: Level) -> Machine {
        *Machine::all(level).last().expect("plain code is always there")
    }

    /// All that stay within the level, slowest first.
    pub(crate) fn all(level: Level) -> Vec<Machine> {
        let mut machines = vec![Machine::Plain];
        #[cfg(target_arch = "x86_64")]
        {
            let fma = match level {
                Level::Avx2(level) => level.fma(),
                Level::Avx512(level) => level.fma(),
                _ => None,
            };
            machines.extend(fma.map(Machine::Avx2));
            machines.extend(fma.and_then(Avx2Fma::vnni).map(Machine::Avx2Vnni));
            if let Level::Avx512(level) = level {
                machines.extend(level.vnni().map(Machine::Avx512Vnni));
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = level;
        machines
    }
}

/// `with_isa!(machine, m => expression)`: the expression compiled for the machine's instructions, `m` its token.
macro_rules! with_isa {
    ($machine:expr, $m:ident => $body:expr) => {
        match $machine {
            $crate::isa::Machine::Plain => {
                let $m = $crate::isa_plain::Plain;
                $body
            }
            #[cfg(target_arch = "x86_64")]
            $crate::isa::Machine::Avx2($m) => $crate::isa::Isa::vectorize(
                $m,
                #[inline(always)]
                || $body,
            ),
            #[cfg(target_arch = "x86_64")]
            $crate::isa::Machine::Avx2Vnni($m) => $crate::isa::Isa::vectorize(
                $m,
                #[inline(always)]
                || $body,
            ),
            #[cfg(target_arch = "x86_64")]
            $crate::isa::Machine::Avx512Vnni($m) => $crate::isa::Isa::vectorize(
                $m,
                #[inline(always)]
                || $body,
            ),
        }
    };
}
pub(crate) use with_isa;

/// Scale of values with this largest magnitude, and what they are multiplied with; NaN and 0 where one is not finite.
#[inline(always)]
pub(crate) fn scale_of(largest: f32) -> (f32, f32) {
    // Below the first limit the quotient would overflow; infinities and NaN are not below the second.
    if largest < 1e-36 {
        (0.0, 0.0)
    } else if largest < f32::INFINITY {
        (largest / 127.0, 127.0 / largest)
    } else {
        (f32::NAN, 0.0)
    }
}
