//! Two vectors as one.

use crate::Simd;

/// Twice the lanes of `S`: every operation is done on two vectors.
///
/// A sum in index order waits for each addition before the next; with two vectors two such sums are under way at a time.
#[derive(Clone, Copy, Debug)]
pub struct Twice<S>(pub S);

/// The largest [`Simd::TILE`].
const MAX_TILE: usize = 16;

/// A method of the trait that maps lanes to lanes.
macro_rules! per_lane {
    ($($method:ident($($arg:ident: $t:ident),*) -> $r:ident;)*) => {$(
        #[inline(always)]
        fn $method(self, $($arg: Self::$t),*) -> Self::$r {
            ((self.0).$method($($arg.0),*), (self.0).$method($($arg.1),*))
        }
    )*};
}

impl<S: Simd> Simd for Twice<S> {
    const LANES: usize = 2 * S::LANES;
    const TILE: usize = S::TILE;
    type F = (S::F, S::F);
    type I = (S::I, S::I);
    type M = (S::M, S::M);

    #[inline(always)]
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        self.0.vectorize(f)
    }
    #[inline(always)]
    fn splat(self, v: f32) -> Self::F {
        (self.0.splat(v), self.0.splat(v))
    }
    #[inline(always)]
    fn load(self, x: &[f32]) -> Self::F {
        (self.0.load(x), self.0.load(&x[S::LANES..]))
    }
    #[inline(always)]
    fn store(self, v: Self::F, out: &mut [f32]) {
        self.0.store(v.0, out);
        self.0.store(v.1, &mut out[S::LANES..]);
    }
    #[inline(always)]
    fn isplat(self, v: i32) -> Self::I {
        (self.0.isplat(v), self.0.isplat(v))
    }
    #[inline(always)]
    fn iload(self, x: &[i32]) -> Self::I {
        (self.0.iload(x), self.0.iload(&x[S::LANES..]))
    }
    #[inline(always)]
    fn istore(self, v: Self::I, out: &mut [i32]) {
        self.0.istore(v.0, out);
        self.0.istore(v.1, &mut out[S::LANES..]);
    }

    per_lane! {
        add(a: F, b: F) -> F;
        sub(a: F, b: F) -> F;
        mul(a: F, b: F) -> F;
        div(a: F, b: F) -> F;
        sqrt(a: F) -> F;
        abs(a: F) -> F;
        lt(a: F, b: F) -> M;
        le(a: F, b: F) -> M;
        eq(a: F, b: F) -> M;
        ne(a: F, b: F) -> M;
        select(m: M, a: F, b: F) -> F;
        iadd(a: I, b: I) -> I;
        isub(a: I, b: I) -> I;
        iand(a: I, b: I) -> I;
        ior(a: I, b: I) -> I;
        imin(a: I, b: I) -> I;
        imax(a: I, b: I) -> I;
        ieq(a: I, b: I) -> M;
        iselect(m: M, a: I, b: I) -> I;
        to_bits(a: F) -> I;
        from_bits(a: I) -> F;
        to_f32(a: I) -> F;
        trunc(a: F) -> I;
        both(a: M, b: M) -> M;
        either(a: M, b: M) -> M;
        and_not(a: M, b: M) -> M;
        min(a: F, b: F) -> F;
        max(a: F, b: F) -> F;
    }

    #[inline(always)]
    fn any(self, m: Self::M) -> bool {
        self.0.any(self.0.either(m.0, m.1))
    }
    #[inline(always)]
    fn reduce_min(self, a: Self::F) -> f32 {
        self.0.reduce_min(self.0.min(a.0, a.1))
    }
    #[inline(always)]
    fn reduce_max(self, a: Self::F) -> f32 {
        self.0.reduce_max(self.0.max(a.0, a.1))
    }
    #[inline(always)]
    fn ishl(self, a: Self::I, n: u32) -> Self::I {
        (self.0.ishl(a.0, n), self.0.ishl(a.1, n))
    }
    #[inline(always)]
    fn bitmask(self, m: Self::M) -> u32 {
        self.0.bitmask(m.0) | self.0.bitmask(m.1) << S::LANES
    }
    #[inline(always)]
    fn store_bytes(self, a: Self::I, out: &mut [u8]) {
        self.0.store_bytes(a.0, out);
        self.0.store_bytes(a.1, &mut out[S::LANES..]);
    }
    #[inline(always)]
    fn ishr(self, a: Self::I, n: u32) -> Self::I {
        (self.0.ishr(a.0, n), self.0.ishr(a.1, n))
    }
    #[inline(always)]
    fn load_u8(self, x: &[u8]) -> Self::I {
        (self.0.load_u8(x), self.0.load_u8(&x[S::LANES..]))
    }
    #[inline(always)]
    fn load_i8(self, x: &[u8]) -> Self::I {
        (self.0.load_i8(x), self.0.load_i8(&x[S::LANES..]))
    }
    #[inline(always)]
    fn load_f16(self, x: &[u8]) -> Self::F {
        (self.0.load_f16(x), self.0.load_f16(&x[2 * S::LANES..]))
    }
    #[inline(always)]
    fn store_f16(self, a: Self::F, out: &mut [u8]) {
        self.0.store_f16(a.0, out);
        self.0.store_f16(a.1, &mut out[2 * S::LANES..]);
    }
    #[inline(always)]
    fn load_tile<'a>(self, row: impl Fn(usize) -> &'a [f32], out: &mut [Self::F]) {
        let mut halves = [[self.0.splat(0.0); MAX_TILE]; 2];
        self.0.load_tile(
            #[inline(always)]
            |j| row(j),
            &mut halves[0],
        );
        self.0.load_tile(
            #[inline(always)]
            |j| row(j + S::LANES),
            &mut halves[1],
        );
        for (i, out) in out[..S::TILE].iter_mut().enumerate() {
            *out = (halves[0][i], halves[1][i]);
        }
    }
    #[inline(always)]
    fn lookup32(self, table: &[f32; 32], i: Self::I) -> Self::F {
        (self.0.lookup32(table, i.0), self.0.lookup32(table, i.1))
    }
}
