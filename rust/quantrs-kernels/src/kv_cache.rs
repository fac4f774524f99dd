//! Keys and values of the positions seen so far, of one layer.
//!
//! Positions come in spans of [`SPAN`], allocated when their first position is written: memory grows with what was said, and
//! nothing is ever moved. The first few spans are kept for the next text: new memory costs a page fault per 4 KiB. Within a span each key/value head has its own stretch:
//!
//! - keys as floats: blocks of [`BLOCK`] positions, `[head_dim][BLOCK]` in each, so that a query times a block of keys is a
//!   small matrix product over contiguous vectors;
//! - keys in blocks of 32 along the head (Q8_0, Q4_0): rows `[SPAN][head_dim]`, turned when they are read;
//! - values: rows `[SPAN][head_dim]`.

use crate::{Disjoint, KernelError, Pool};
use quantrs_blocks::{BlockFormat, Rows, by_name};
use quantrs_simd::Level;

/// Positions allocated together.
pub(crate) const SPAN: usize = 256;
/// Positions that attention takes at a time.
pub(crate) const BLOCK: usize = 32;

/// Spans that are kept when their positions are forgotten.
const KEPT_SPANS: usize = 4;

/// How keys and values are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvType {
    /// 4 bytes a value.
    F32,
    /// 2 bytes a value.
    F16,
    /// 34 bytes per 32 values.
    Q8_0,
    /// 18 bytes per 32 values.
    Q4_0,
}

impl KvType {
    /// Every type, most precise first.
    pub const ALL: [KvType; 4] = [KvType::F32, KvType::F16, KvType::Q8_0, KvType::Q4_0];

    /// As the block format is called.
    pub fn name(self) -> &'static str {
        match self {
            KvType::F32 => "F32",
            KvType::F16 => "F16",
            KvType::Q8_0 => "Q8_0",
            KvType::Q4_0 => "Q4_0",
        }
    }

    /// The type called `name`, in any letter case.
    pub fn from_name(name: &str) -> Option<KvType> {
        KvType::ALL.into_iter().find(|t| t.name().eq_ignore_ascii_case(name))
    }

    fn format(self) -> &'static BlockFormat {
        by_name(self.name()).expect("the registry has these formats")
    }

    /// Whether keys are stored position by position rather than in turned blocks.
    fn keys_in_rows(self) -> bool {
        matches!(self, KvType::Q8_0 | KvType::Q4_0)
    }
}

/// Sizes of a layer's cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvShape {
    /// Heads that share keys and values.
    pub n_kv_heads: usize,
    /// Values per key head.
    pub k_dim: usize,
    /// Values per value head.
    pub v_dim: usize,
}

#[derive(Clone, Debug)]
struct Span {
    k: Vec<u8>,
    v: Vec<u8>,
}

/// The cache of one layer.
#[derive(Clone, Debug)]
pub struct KvCache {
    kv_type: KvType,
    shape: KvShape,
    k_row_bytes: usize,
    v_row_bytes: usize,
    spans: Vec<Span>,
    len: usize,
}

impl KvCache {
    /// An empty cache; heads of a length that the type cannot hold are refused.
    pub fn new(kv_type: KvType, shape: KvShape) -> Result<KvCache, KernelError> {
        let row_bytes = |n_cols: usize| {
            let BlockFormat { name: format, block_len, .. } = *kv_type.format();
            kv_type.format().row_bytes(n_cols).ok_or(KernelError::RowLength { n_cols, block_len, format })
        };
        let (k_row_bytes, v_row_bytes) = (row_bytes(shape.k_dim)?, row_bytes(shape.v_dim)?);
        Ok(KvCache { kv_type, shape, k_row_bytes, v_row_bytes, spans: Vec::new(), len: 0 })
    }

    /// Positions held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no position is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Sizes.
    pub fn shape(&self) -> KvShape {
        self.shape
    }

    /// Bytes allocated.
    pub fn n_bytes(&self) -> usize {
        self.spans.iter().map(|s| s.k.len() + s.v.len()).sum()
    }

    /// Forget the positions from `len` on; the memory of spans that hold none is given back, but for the first few.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        self.spans.truncate(self.len.div_ceil(SPAN).max(KEPT_SPANS));
    }

    /// Append positions: `k: [n, n_kv_heads * k_dim]`, `v: [n, n_kv_heads * v_dim]`.
    pub fn append(&mut self, pool: &Pool, level: Level, k: &[f32], v: &[f32]) {
        let KvShape { n_kv_heads, k_dim, v_dim } = self.shape;
        let n = k.len() / (n_kv_heads * k_dim);
        while self.spans.len() * SPAN < self.len + n {
            let bytes = |row_bytes: usize| vec![0; n_kv_heads * SPAN * row_bytes];
            self.spans.push(Span { k: bytes(self.k_row_bytes), v: bytes(self.v_row_bytes) });
        }
        let places: Vec<_> =
            self.spans.iter_mut().map(|s| (Disjoint::new(&mut s.k[..]), Disjoint::new(&mut s.v[..]))).collect();
        let (kv_type, k_row_bytes, v_row_bytes) = (self.kv_type, self.k_row_bytes, self.v_row_bytes);
        let append = |head: usize| {
            let mut key = vec![0; k_row_bytes];
            for (i, position) in (self.len..self.len + n).enumerate() {
                let at = head * SPAN + position % SPAN;
                let k = &k[(i * n_kv_heads + head) * k_dim..][..k_dim];
                let v = &v[(i * n_kv_heads + head) * v_dim..][..v_dim];
                let (k_place, v_place) = &places[position / SPAN];
                // SAFETY: each head has its own stretch of a span, and its own task.
                let out = unsafe { v_place.range(at * v_row_bytes, v_row_bytes) };
                pack_row(level, kv_type, v, out);
                if kv_type.keys_in_rows() {
                    // SAFETY: as above.
                    let out = unsafe { k_place.range(at * k_row_bytes, k_row_bytes) };
                    pack_row(level, kv_type, k, out);
                } else {
                    pack_row(level, kv_type, k, &mut key);
                    // SAFETY: as above; a stretch is whole blocks.
                    let block = unsafe { k_place.range(at / BLOCK * BLOCK * k_row_bytes, BLOCK * k_row_bytes) };
                    match kv_type {
                        KvType::F32 => scatter::<4>(&key, at % BLOCK, block),
                        _ => scatter::<2>(&key, at % BLOCK, block),
                    }
                }
            }
        };
        // Sharing out costs more than a few positions take.
        if n < 8 {
            (0..n_kv_heads).for_each(append)
        } else {
            pool.run(n_kv_heads, append)
        }
        self.len += n;
    }

    /// Keys of the [`BLOCK`] positions from `first` on as `[k_dim][BLOCK]`; beyond the last position they are unspecified. `rows` is
    /// scratch.
    #[inline]
    pub(crate) fn read_keys(
        &self,
        level: Level,
        head: usize,
        first: usize,
        out: &mut [[f32; BLOCK]],
        rows: &mut Vec<f32>,
    ) {
        let at = head * SPAN + first % SPAN;
        let bytes = &self.spans[first / SPAN].k[at * self.k_row_bytes..][..BLOCK * self.k_row_bytes];
        if !self.kv_type.keys_in_rows() {
            return self.dequantize(level, bytes, out.as_flattened_mut());
        }
        rows.resize(BLOCK * self.shape.k_dim, 0.0);
        self.dequantize(level, bytes, rows);
        for (j, row) in rows.chunks_exact(self.shape.k_dim).enumerate() {
            for (out, x) in out.iter_mut().zip(row) {
                out[j] = *x;
            }
        }
    }

    /// Values of the [`BLOCK`] positions from `first` on, `[BLOCK][v_dim]`; zero beyond the last position.
    #[inline]
    pub(crate) fn read_values(&self, level: Level, head: usize, first: usize, out: &mut [f32]) {
        let at = head * SPAN + first % SPAN;
        let bytes = &self.spans[first / SPAN].v[at * self.v_row_bytes..][..BLOCK * self.v_row_bytes];
        self.dequantize(level, bytes, out);
        out[self.len.saturating_sub(first).min(BLOCK) * self.shape.v_dim..].fill(0.0);
    }

    /// The bytes of the keys and of the values of the [`BLOCK`] positions from `first` on, to be asked for ahead of their use; empty
    /// where there are none.
    pub(crate) fn bytes_ahead(&self, head: usize, first: usize) -> [&[u8]; 2] {
        let at = head * SPAN + first % SPAN;
        let Some(span) = self.spans.get(first / SPAN).filter(|_| first < self.len) else { return [&[]; 2] };
        [
            &span.k[at * self.k_row_bytes..][..BLOCK * self.k_row_bytes],
            &span.v[at * self.v_row_bytes..][..BLOCK * self.v_row_bytes],
        ]
    }

    fn dequantize(&self, level: Level, bytes: &[u8], out: &mut [f32]) {
        let dequantize = self.kv_type.format().dequantize.expect("these formats can be decoded");
        dequantize(level, bytes, out);
    }
}

/// One head's values of one position, in the cache's format.
fn pack_row(level: Level, kv_type: KvType, x: &[f32], out: &mut [u8]) {
    let quantize = kv_type.format().quantize.expect("these formats can be written");
    quantize(level, Rows { x, n_cols: x.len(), importance: None }, out);
}

/// Values of `WIDTH` bytes become column `j` of a turned block.
fn scatter<const WIDTH: usize>(x: &[u8], j: usize, block: &mut [u8]) {
    for (row, x) in block.chunks_exact_mut(WIDTH * BLOCK).zip(x.as_chunks::<WIDTH>().0) {
        row[WIDTH * j..][..WIDTH].copy_from_slice(x);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: KvShape = KvShape { n_kv_heads: 2, k_dim: 64, v_dim: 32 };

    fn rows(n: usize, len: usize) -> Vec<f32> {
        (0..n * len).map(|i| ((i * 7919 % 1009) as f32 - 500.0) / 64.0).collect()
    }

    #[test]
    fn what_was_appended_is_read_back() {
        for kv_type in KvType::ALL {
            let allowed = match kv_type {
                KvType::F32 | KvType::F16 => 0.01,
                KvType::Q8_0 => 0.05,
                KvType::Q4_0 => 1.05,
            };
            let (k, v) = (rows(300, 128), rows(300, 64));
            let mut cache = KvCache::new(kv_type, SHAPE).unwrap();
            cache.append(&Pool::new(2), Level::detect(), &k[..128 * 7], &v[..64 * 7]);
            cache.append(&Pool::new(2), Level::detect(), &k[128 * 7..], &v[64 * 7..]);
            assert_eq!(cache.len(), 300);
            let (mut keys, mut values, mut scratch) = (vec![[0.0; BLOCK]; 64], vec![0.0; BLOCK * 32], Vec::new());
            for first in [0, 32, 256, 288] {
                cache.read_keys(Level::detect(), 1, first, &mut keys, &mut scratch);
                cache.read_values(Level::detect(), 1, first, &mut values);
                for j in 0..BLOCK.min(300 - first) {
                    for d in 0..64 {
                        let want = k[(first + j) * 128 + 64 + d];
                        assert!(
                            (keys[d][j] - want).abs() < allowed,
                            "{} key {} {d}: {} not {want}",
                            kv_type.name(),
                            first + j,
                            keys[d][j]
                        );
                    }
                    for d in 0..32 {
                        let want = v[(first + j) * 64 + 32 + d];
                        assert!(
                            (values[j * 32 + d] - want).abs() < allowed,
                            "{} value {} {d}",
                            kv_type.name(),
                            first + j
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn memory_grows_by_spans_and_is_given_back() {
        let mut cache = KvCache::new(KvType::F16, SHAPE).unwrap();
        assert_eq!(cache.n_bytes(), 0);
        let (level, pool) = (Level::detect(), Pool::new(2));
        let span_bytes = SPAN * 2 * (64 + 32) * 2;
        cache.append(&pool, level, &rows(257, 128), &rows(257, 64));
        assert_eq!(cache.n_bytes(), 2 * span_bytes);
        let n = (KEPT_SPANS + 2) * SPAN;
        cache.append(&pool, level, &rows(n, 128), &rows(n, 64));
        cache.truncate(256);
        assert_eq!((cache.len(), cache.n_bytes()), (256, KEPT_SPANS * span_bytes));
        cache.truncate(0);
        assert!(cache.is_empty());
    }

    #[test]
    fn values_beyond_the_last_position_are_zero_also_where_others_were() {
        let (level, pool) = (Level::detect(), Pool::new(1));
        let mut cache = KvCache::new(KvType::F16, SHAPE).unwrap();
        cache.append(&pool, level, &[1.0; 128 * 40], &[f32::INFINITY; 64 * 40]);
        cache.truncate(0);
        cache.append(&pool, level, &[1.0; 128 * 3], &[2.0; 64 * 3]);
        let mut values = [1.0; BLOCK * 32];
        cache.read_values(level, 1, 0, &mut values);
        assert!(values[..3 * 32].iter().all(|v| *v == 2.0) && values[3 * 32..].iter().all(|v| *v == 0.0));
    }

    #[test]
    fn a_head_that_the_type_cannot_hold_is_refused() {
        let error = KvCache::new(KvType::Q8_0, KvShape { k_dim: 48, ..SHAPE }).unwrap_err();
        assert!(error.to_string().contains("48"), "{error}");
        assert!(KvCache::new(KvType::F16, KvShape { k_dim: 48, ..SHAPE }).is_ok());
    }
}
