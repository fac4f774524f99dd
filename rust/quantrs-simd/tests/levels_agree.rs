//! Every level's vector operations against plain code on single values.

use quantrs_simd::{Level, Simd, dispatch, round_half_away, trunc_i32};

/// Values at which roundings and comparisons differ: ties, their neighbours, zeros, subnormals, huge and non-finite ones.
fn hard_values() -> Vec<f32> {
    let mut values = vec![0.0, f32::MIN_POSITIVE, 1e-45, 1e30, f32::MAX, f32::INFINITY, f32::NAN, 4_194_303.5];
    for halves in 1..=300 {
        let v = halves as f32 / 2.0;
        values.extend([v.next_down(), v, v.next_up()]);
    }
    values.extend(values.clone().iter().map(|v| -v));
    values.resize(values.len().next_multiple_of(16), 1.0);
    values
}

/// Call `check` at every level; a level above scalar that this CPU lacks is named.
fn at_every_level(check: impl Fn(Level)) {
    let levels = Level::all();
    for name in ["sse2", "avx2", "avx512"] {
        if !levels.iter().any(|level| level.name() == name) {
            eprintln!("skipped: {name}");
        }
    }
    levels.into_iter().for_each(check);
}

/// Apply a vector operation to all of `a` and `b`.
macro_rules! map2 {
    ($level:expr, $a:expr, $b:expr, |$s:ident, $x:ident, $y:ident| $op:expr) => {{
        #[inline(always)]
        fn run<S: Simd>($s: S, a: &[f32], b: &[f32], out: &mut [f32]) {
            for i in (0..a.len()).step_by(S::LANES) {
                let ($x, $y) = ($s.load(&a[i..]), $s.load(&b[i..]));
                $s.store($op, &mut out[i..]);
            }
        }
        let mut out = vec![0.0; $a.len()];
        dispatch!($level, s => run(s, $a, $b, &mut out), scalar => return);
        out
    }};
}

fn assert_same(level: Level, x: &[f32], got: &[f32], want: impl Fn(usize) -> f32) {
    for (i, got) in got.iter().enumerate() {
        assert_eq!(got.to_bits(), want(i).to_bits(), "{:?} at {}: {got:?}, not {:?}", x[i], level.name(), want(i));
    }
}

fn from_i32(v: i32) -> f32 {
    f32::from_bits(v as u32)
}

#[test]
fn min_and_max_give_the_second_operand_for_nan_and_for_zeros() {
    let a = hard_values();
    let mut b = a.clone();
    b.rotate_left(7);
    b[..4].copy_from_slice(&[-0.0, f32::NAN, 1e30, 0.0]);
    at_every_level(|level| {
        let min = map2!(level, &a, &b, |s, x, y| s.min(x, y));
        assert_same(level, &a, &min, |i| if a[i] < b[i] { a[i] } else { b[i] });
        let max = map2!(level, &a, &b, |s, x, y| s.max(x, y));
        assert_same(level, &a, &max, |i| if a[i] > b[i] { a[i] } else { b[i] });
    });
}

#[test]
fn trunc_and_round_half_away_give_the_integers_of_the_plain_roundings() {
    let a = hard_values();
    at_every_level(|level| {
        let got = map2!(level, &a, &a, |s, x, _y| s.from_bits(s.trunc(x)));
        assert_same(level, &a, &got, |i| from_i32(trunc_i32(a[i])));
        let got = map2!(level, &a, &a, |s, x, _y| s.from_bits(s.round_half_away(x)));
        assert_same(level, &a, &got, |i| from_i32(trunc_i32(round_half_away(a[i]))));
    });
}

#[test]
fn shifts_and_lookups_act_on_every_lane() {
    let a = hard_values();
    at_every_level(|level| {
        let got = map2!(level, &a, &a, |s, x, _y| s.from_bits(s.ishl(s.to_bits(x), 5)));
        assert_same(level, &a, &got, |i| f32::from_bits(a[i].to_bits() << 5));
        let got = map2!(level, &a, &a, |s, x, _y| s.from_bits(s.ishr(s.to_bits(x), 5)));
        assert_same(level, &a, &got, |i| f32::from_bits(a[i].to_bits() >> 5));
        let got = map2!(level, &a, &a, |s, x, _y| {
            let table = std::array::from_fn(|i| i as f32 + 0.25);
            s.lookup32(&table, s.ishr(s.to_bits(x), 9))
        });
        assert_same(level, &a, &got, |i| (a[i].to_bits() >> 9 & 31) as f32 + 0.25);
    });
}

#[inline(always)]
fn bytes_out<S: Simd>(s: S, x: &[i32], out: &mut [u8]) {
    for i in (0..x.len()).step_by(S::LANES) {
        s.store_bytes(s.iload(&x[i..]), &mut out[i..]);
    }
}

#[inline(always)]
fn bytes_in<S: Simd>(s: S, bytes: &[u8], unsigned: &mut [i32], signed: &mut [i32]) {
    for i in (0..bytes.len()).step_by(S::LANES) {
        s.istore(s.load_u8(&bytes[i..]), &mut unsigned[i..]);
        s.istore(s.load_i8(&bytes[i..]), &mut signed[i..]);
    }
}

#[test]
fn bytes_keep_their_order_and_their_low_eight_bits() {
    let x: Vec<i32> = (0..256).map(|i: i32| i.wrapping_mul(0x0123_4567)).collect();
    at_every_level(|level| {
        let mut bytes = vec![0; x.len()];
        dispatch!(level, s => bytes_out(s, &x, &mut bytes), scalar => return);
        assert_eq!(bytes, x.iter().map(|&v| v as u8).collect::<Vec<_>>(), "{}", level.name());
        let (mut unsigned, mut signed) = (vec![0; x.len()], vec![0; x.len()]);
        dispatch!(level, s => bytes_in(s, &bytes, &mut unsigned, &mut signed), scalar => return);
        assert_eq!(unsigned, bytes.iter().map(|&b| i32::from(b)).collect::<Vec<_>>(), "{}", level.name());
        assert_eq!(signed, bytes.iter().map(|&b| i32::from(b as i8)).collect::<Vec<_>>(), "{}", level.name());
    });
}

/// Smallest and largest lane and the mask of the lanes below zero.
#[inline(always)]
fn reduced<S: Simd>(s: S, x: &[f32]) -> (usize, f32, f32, u32) {
    let v = s.load(x);
    (S::LANES, s.reduce_min(v), s.reduce_max(v), s.bitmask(s.lt(v, s.splat(0.0))))
}

#[test]
fn reductions_see_every_lane() {
    at_every_level(|level| {
        for at in 0..16 {
            let mut x = [1.0; 16];
            x[at] = -2.0;
            x[(at + 1) % 16] = 3.0;
            let (lanes, min, max, mask) = dispatch!(level, s => reduced(s, &x), scalar => return);
            let seen = &x[..lanes];
            assert_eq!(min, seen.iter().copied().fold(f32::MAX, f32::min), "lane {at} at {}", level.name());
            assert_eq!(max, seen.iter().copied().fold(f32::MIN, f32::max), "lane {at} at {}", level.name());
            assert_eq!(mask, if at < lanes { 1 << at } else { 0 }, "lane {at} at {}", level.name());
        }
    });
}
