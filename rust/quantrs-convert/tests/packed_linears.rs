//! Quantized linears in every layout, packed here bit by bit as the layouts are defined, against the definition of their values.

use quantrs_blocks::by_name;
use quantrs_convert::{ConvertError, ReadBuffers, TensorReader, containing_types};
use quantrs_formats::{
    AssembledTensor, Assembly, At, Codes, GgmlType, Gguf, Header, Less, Packed, Part, RowOrder, ScaleType, Scales,
    Source, Values, Zeros,
};
use quantrs_simd::{Level, f16_bits, f16_value};
use std::sync::Arc;

const N_ROWS: usize = 48;
const N_COLS: usize = 320;

/// What a linear is, however it lies.
#[derive(Clone)]
struct Linear {
    bits: usize,
    group_size: usize,
    /// `[N_ROWS, N_COLS]`, unsigned.
    codes: Vec<u8>,
    /// `[N_ROWS, n_groups]`
    zeros: Vec<u8>,
    scales: Vec<f32>,
    /// `[N_COLS]`
    groups: Vec<u32>,
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }
}

impl Linear {
    fn new(bits: usize, group_size: usize, symmetric: bool) -> Linear {
        let mut random = Random(bits as u64 * 31 + group_size as u64);
        let n_groups = N_COLS.div_ceil(group_size);
        let zero = |random: &mut Random| if symmetric { 1 << (bits - 1) } else { (random.next() % (1 << bits)) as u8 };
        Linear {
            bits,
            group_size,
            codes: (0..N_ROWS * N_COLS).map(|_| (random.next() % (1 << bits)) as u8).collect(),
            zeros: (0..N_ROWS * n_groups).map(|_| zero(&mut random)).collect(),
            scales: (0..N_ROWS * n_groups).map(|_| f16_value(f16_bits(0.001 + random.next() as f32 * 2e-11))).collect(),
            groups: (0..N_COLS).map(|col| (col / group_size) as u32).collect(),
        }
    }

    fn n_groups(&self) -> usize {
        N_COLS.div_ceil(self.group_size)
    }

    fn values(&self) -> Vec<f32> {
        let value = |row: usize, col: usize| {
            let at = row * self.n_groups() + self.groups[col] as usize;
            f32::from(i16::from(self.codes[row * N_COLS + col]) - i16::from(self.zeros[at])) * self.scales[at]
        };
        (0..N_ROWS * N_COLS).map(|i| value(i / N_COLS, i % N_COLS)).collect()
    }

    fn scales_by_group(&self) -> Vec<u8> {
        let n = self.n_groups();
        let all = (0..n).flat_map(|g| (0..N_ROWS).map(move |row| self.scales[row * n + g]));
        all.flat_map(|scale| f16_bits(scale).to_le_bytes()).collect()
    }

    fn scales_by_row(&self) -> Vec<u8> {
        self.scales.iter().flat_map(|scale| f16_bits(*scale).to_le_bytes()).collect()
    }

    fn g_idx(&self) -> Vec<u8> {
        self.groups.iter().flat_map(|group| group.to_le_bytes()).collect()
    }

    /// Streams of `bits` along the second of `[n, m]` codes; word i of stream s lies where `place` says.
    fn streams(&self, codes: &dyn Fn(usize, usize) -> u8, n: usize, m: usize, by_word: bool) -> Vec<u8> {
        let n_words = (m * self.bits).div_ceil(32);
        let mut out = vec![0; 4 * n * n_words];
        for (s, i, k) in (0..n).flat_map(|s| (0..m).flat_map(move |i| (0..self.bits).map(move |k| (s, i, k)))) {
            let bit = i * self.bits + k;
            let word = if by_word { bit / 32 * n + s } else { s * n_words + bit / 32 };
            out[4 * word + bit % 32 / 8] |= (codes(s, i) >> k & 1) << (bit % 8);
        }
        out
    }

    fn code(&self, row: usize, col: usize) -> u8 {
        self.codes[row * N_COLS + col]
    }

    fn zero(&self, row: usize, group: usize) -> u8 {
        self.zeros[row * self.n_groups() + group]
    }
}

/// AWQ's words of `[n, N_ROWS]` codes: nibble k of a word is output `[0, 2, 4, 6, 1, 3, 5, 7][k]` of eight.
fn awq_words(code: &dyn Fn(usize, usize) -> u8, n: usize) -> Vec<u8> {
    let word = |i: usize, c: usize| {
        [0, 2, 4, 6, 1, 3, 5, 7].iter().enumerate().map(|(k, j)| u32::from(code(8 * c + j, i)) << (4 * k)).sum::<u32>()
    };
    (0..n).flat_map(|i| (0..N_ROWS / 8).flat_map(move |c| word(i, c).to_le_bytes())).collect()
}

/// A source that grows piece by piece.
#[derive(Default)]
struct Pieces(Vec<u8>);

impl Pieces {
    fn add(&mut self, bytes: &[u8]) -> At {
        self.0.extend([0xa5; 12]);
        let offset = self.0.len() as u64;
        self.0.extend(bytes);
        At { source: 0, offset }
    }
}

fn scales(at: At, transposed: bool) -> Scales {
    Scales { at, scale_type: ScaleType::F16, group_rows: 1, transposed, divisor: None }
}

/// A linear in a layout: the pieces, where the codes are, and how all lies.
type Laid = (Pieces, At, Packed);

fn gptq(w: &Linear, less: Less) -> Laid {
    let mut pieces = Pieces::default();
    let at = pieces.add(&w.streams(&|row, col| w.code(row, col), N_ROWS, N_COLS, true));
    let bits = w.bits as u32;
    let mask = ((1u32 << bits) - 1) as u8;
    let lane = |group: usize, row: usize| w.zero(row, group).wrapping_sub(u8::from(less == Less::OneWrapping)) & mask;
    let mut zeros = w.streams(&lane, w.n_groups(), N_ROWS, false);
    if less == Less::OneBorrowing {
        let ones = (0..32 / bits).map(|i| 1u32 << (i * bits)).sum::<u32>();
        for word in zeros.as_chunks_mut::<4>().0 {
            *word = u32::from_le_bytes(*word).wrapping_sub(ones).to_le_bytes();
        }
    }
    let zeros = Zeros::Columns { at: pieces.add(&zeros), less };
    let scales = scales(pieces.add(&w.scales_by_group()), true);
    let g_idx = Some(pieces.add(&w.g_idx()));
    (pieces, at, Packed { codes: Codes::Columns { bits }, group_size: w.group_size as u64, scales, zeros, g_idx })
}

fn awq(w: &Linear) -> Laid {
    let mut pieces = Pieces::default();
    let at = pieces.add(&awq_words(&|row, col| w.code(row, col), N_COLS));
    let zeros = Zeros::Awq(pieces.add(&awq_words(&|row, group| w.zero(row, group), w.n_groups())));
    let scales = scales(pieces.add(&w.scales_by_group()), true);
    (pieces, at, Packed { codes: Codes::Awq, group_size: w.group_size as u64, scales, zeros, g_idx: None })
}

fn packed_rows(w: &Linear, with_zeros: bool) -> Laid {
    let mut pieces = Pieces::default();
    let at = pieces.add(&w.streams(&|row, col| w.code(row, col), N_ROWS, N_COLS, false));
    let zeros = w.streams(&|group, row| w.zero(row, group), w.n_groups(), N_ROWS, true);
    let zeros = if with_zeros { Zeros::Rows(pieces.add(&zeros)) } else { Zeros::Middle };
    let scales = scales(pieces.add(&w.scales_by_row()), false);
    let codes = Codes::Rows { bits: w.bits as u32 };
    (pieces, at, Packed { codes, group_size: w.group_size as u64, scales, zeros, g_idx: None })
}

/// As [`packed_rows`], with a byte for each zero point.
fn with_signed_zeros(w: &Linear) -> Laid {
    let (mut pieces, at, packed) = packed_rows(w, false);
    let signed: Vec<u8> = w.zeros.iter().map(|zero| zero.wrapping_sub(1 << (w.bits - 1))).collect();
    let zeros = Zeros::I8(pieces.add(&signed));
    (pieces, at, Packed { zeros, ..packed })
}

fn signed_bytes(w: &Linear, with_zeros: bool) -> Laid {
    let mut pieces = Pieces::default();
    let signed = |codes: &[u8]| codes.iter().map(|code| code.wrapping_sub(128)).collect::<Vec<u8>>();
    let at = pieces.add(&signed(&w.codes));
    let zeros = if with_zeros { Zeros::I8(pieces.add(&signed(&w.zeros))) } else { Zeros::Middle };
    let scales = scales(pieces.add(&w.scales_by_row()), false);
    (pieces, at, Packed { codes: Codes::I8, group_size: w.group_size as u64, scales, zeros, g_idx: None })
}

fn model(laid: Laid, type_name: &str, order: RowOrder) -> Gguf {
    let (pieces, At { source, offset }, packed) = laid;
    let part = Part { source, offset, values: Values::Packed(packed), n_rows: N_ROWS as u64, order };
    let tensor = AssembledTensor {
        name: "t".into(),
        dims: vec![N_COLS as u64, N_ROWS as u64],
        ggml_type: GgmlType::by_name(type_name).unwrap(),
        assembly: Arc::new(Assembly { parts: vec![part], add: 0.0 }),
    };
    let memory = Source::Memory { label: "memory".into(), bytes: Arc::new(pieces.0) };
    Gguf::assembled(&Header::new(3).unwrap(), vec![memory], vec![tensor]).unwrap()
}

fn read(model: &Gguf) -> Result<Vec<u8>, ConvertError> {
    let sources = model.open_sources();
    let reader = TensorReader::new(Level::detect(), &sources, &model.tensors()[0])?;
    let mut all = vec![0; reader.nbytes()];
    reader.read_all(&mut all)?;
    for level in Level::all() {
        let mut same = vec![0; all.len()];
        TensorReader::new(level, &sources, &model.tensors()[0])?.read_all(&mut same)?;
        assert!(same == all, "at {}", level.name());
    }
    // Any range of whole super-blocks or rows is what the whole has there.
    let (mut buffers, row_bytes) = (ReadBuffers::default(), all.len() / N_ROWS);
    let unit = 256 / reader.format().block_len * reader.format().block_bytes;
    for start in [0, 5 * row_bytes, 5 * row_bytes + unit] {
        for end in [5 * row_bytes + unit, 7 * row_bytes, all.len()] {
            if start < end {
                let mut out = vec![0; end - start];
                reader.read_at(start, &mut out, &mut buffers)?;
                assert!(out == all[start..end], "bytes {start} to {end}");
            }
        }
    }
    Ok(all)
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

fn types(model: &Gguf) -> Vec<&'static str> {
    containing_types(&model.open_sources(), &model.tensors()[0]).unwrap()
}

/// The values are those of the definition, in float32 and in every block type that is said to hold them.
fn agrees(w: &Linear, laid: &dyn Fn() -> Laid, what: &str) {
    let expected = w.values();
    let as_floats = model(laid(), "F32", RowOrder::AsStored);
    assert!(floats(&read(&as_floats).unwrap()) == expected, "{what}");
    for name in types(&as_floats) {
        let blocks = read(&model(laid(), name, RowOrder::AsStored)).unwrap();
        let mut values = vec![0.0; expected.len()];
        by_name(name).unwrap().dequantize.unwrap()(Level::detect(), &blocks, &mut values);
        assert!(values == expected, "{what} as {name}");
    }
}

#[test]
fn every_layout_has_the_values_of_the_definition() {
    for (bits, group_size) in (2..=8).flat_map(|bits| [16, 32, 128, N_COLS].map(|group_size| (bits, group_size))) {
        for symmetric in [true, false] {
            let w = &Linear::new(bits, group_size, symmetric);
            let what = |layout: &str| format!("{layout}, {bits} bits, groups of {group_size}, symmetric {symmetric}");
            if (N_ROWS * bits).is_multiple_of(32) {
                agrees(w, &|| gptq(w, Less::Nothing), &what("gptq v2"));
                agrees(w, &|| gptq(w, Less::OneWrapping), &what("gptq v1, each alone"));
                if 32 % bits == 0 {
                    agrees(w, &|| gptq(w, Less::OneBorrowing), &what("gptq v1"));
                }
            }
            if bits == 4 {
                agrees(w, &|| awq(w), &what("awq"));
            }
            agrees(w, &|| packed_rows(w, true), &what("packed rows"));
            if symmetric {
                agrees(w, &|| packed_rows(w, false), &what("packed rows without zero points"));
            }
            agrees(w, &|| with_signed_zeros(w), &what("packed rows with signed zero points"));
            if bits == 8 {
                agrees(w, &|| signed_bytes(w, true), &what("signed bytes"));
            }
            if bits == 8 && symmetric {
                agrees(w, &|| signed_bytes(w, false), &what("signed bytes without zero points"));
            }
        }
    }
}

#[test]
fn columns_may_belong_to_groups_in_any_order() {
    let mut w = Linear::new(4, 32, false);
    w.groups = (0..N_COLS).map(|col| (col * 7 % w.n_groups()) as u32).collect();
    agrees(&w, &|| gptq(&w, Less::OneBorrowing), "scattered groups");
    assert!(types(&model(gptq(&w, Less::OneBorrowing), "F32", RowOrder::AsStored)).is_empty());
}

#[test]
fn rows_of_heads_change_places_with_their_scales() {
    let w = Linear::new(4, 32, true);
    let values = w.values();
    let mut expected = values.clone();
    let (n_heads, d) = (4, N_ROWS / 4);
    for (h, j, i) in (0..n_heads).flat_map(|h| (0..2).flat_map(move |j| (0..d / 2).map(move |i| (h, j, i)))) {
        let (from, to) = (h * d + j * (d / 2) + i, h * d + 2 * i + j);
        expected[to * N_COLS..][..N_COLS].copy_from_slice(&values[from * N_COLS..][..N_COLS]);
    }
    let order = RowOrder::HalvesToPairs { n_heads: n_heads as u64 };
    for laid in [gptq(&w, Less::OneBorrowing), awq(&w), packed_rows(&w, false)] {
        assert!(floats(&read(&model(laid, "F32", order)).unwrap()) == expected);
    }
    let blocks = read(&model(gptq(&w, Less::OneBorrowing), "Q4_0", order)).unwrap();
    let mut decoded = vec![0.0; expected.len()];
    by_name("Q4_0").unwrap().dequantize.unwrap()(Level::detect(), &blocks, &mut decoded);
    assert!(decoded == expected);
}

#[test]
fn blocks_are_named_only_where_they_hold_every_value() {
    let of = |w: &Linear| types(&model(packed_rows(w, true), "F32", RowOrder::AsStored));
    assert_eq!(of(&Linear::new(4, 64, true)), ["Q4_0", "Q8_0"]);
    assert_eq!(of(&Linear::new(2, N_COLS, true)), ["Q4_0", "Q8_0"]);
    assert_eq!(of(&Linear::new(4, 64, false)), ["Q8_0"]);
    assert_eq!(of(&Linear::new(8, 32, true)), ["Q8_0"]);
    assert!(of(&Linear::new(8, 32, false)).is_empty(), "differences of up to 255");
    assert!(of(&Linear::new(4, 16, true)).is_empty(), "two scales in a block");
    let mut w = Linear::new(4, 64, true);
    w.scales[7] = 1e-6;
    let mut laid = packed_rows(&w, false);
    laid.2.scales.scale_type = ScaleType::F32;
    let wide: Vec<u8> = w.scales.iter().flat_map(|scale| scale.to_le_bytes()).collect();
    laid.2.scales.at = laid.0.add(&wide);
    assert!(types(&model(laid, "F32", RowOrder::AsStored)).is_empty(), "a scale that float16 does not hold");
    let as_q4_0 = read(&model(packed_rows(&Linear::new(4, 64, false), true), "Q4_0", RowOrder::AsStored));
    assert!(as_q4_0.unwrap_err().to_string().contains("one that Q4_0 contains"));
}

#[test]
fn eight_bit_floats_have_a_scale_per_row_tensor_or_square() {
    // Codes without the two NaNs.
    let codes: Vec<u8> = (0..N_ROWS * N_COLS).map(|i| if i % 128 == 127 { 0 } else { (i % 256) as u8 }).collect();
    let unscaled: Vec<f32> = {
        let mut all = vec![0.0; codes.len()];
        for (value, code) in all.iter_mut().zip(&codes) {
            let (exponent, mantissa) = (i32::from(code >> 3 & 15), f32::from(code & 7));
            let magnitude =
                if exponent == 0 { mantissa / 512.0 } else { (1.0 + mantissa / 8.0) * 2f32.powi(exponent - 7) };
            *value = if code & 0x80 == 0 { magnitude } else { -magnitude };
        }
        all
    };
    for (group_rows, group_size) in [(1, N_COLS), (N_ROWS, N_COLS), (32, 128)] {
        let (n_down, n_across) = (N_ROWS.div_ceil(group_rows), N_COLS.div_ceil(group_size));
        let values: Vec<f32> = (0..n_down * n_across).map(|i| 0.25 + i as f32).collect();
        let mut pieces = Pieces::default();
        let at = pieces.add(&codes);
        let bytes: Vec<u8> = values.iter().flat_map(|v| ((v.to_bits() >> 16) as u16).to_le_bytes()).collect();
        let rows = group_rows as u64;
        let scales = Scales { scale_type: ScaleType::Bf16, group_rows: rows, ..scales(pieces.add(&bytes), false) };
        let packed =
            Packed { codes: Codes::F8E4M3, group_size: group_size as u64, scales, zeros: Zeros::Middle, g_idx: None };
        let found = floats(&read(&model((pieces, at, packed), "F32", RowOrder::AsStored)).unwrap());
        for (i, (found, unscaled)) in found.iter().zip(&unscaled).enumerate() {
            let scale = values[i / N_COLS / group_rows * n_across + i % N_COLS / group_size];
            assert_eq!(*found, unscaled * scale, "value {i}, {group_rows} x {group_size}");
        }
    }
}

#[test]
fn four_bit_floats_are_scaled_by_floats_or_powers_of_two() {
    let magnitudes = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
    let codes: Vec<u8> = (0..N_ROWS * N_COLS / 2).map(|i| (i * 7 % 256) as u8).collect();
    let value = |code: u8| magnitudes[usize::from(code & 7)] * if code & 8 == 0 { 1.0 } else { -1.0 };
    let unscaled: Vec<f32> = codes.iter().flat_map(|byte| [value(byte & 15), value(byte >> 4)]).collect();
    for powers in [true, false] {
        let group_size = if powers { 32 } else { 16 };
        let n_groups = N_COLS / group_size;
        // Exponents plus 127; or 8-bit floats 1.0, 1.125 ... that are divided by 3.
        let bytes: Vec<u8> =
            (0..N_ROWS * n_groups).map(|i| if powers { 100 + i % 40 } else { 0x38 + i % 8 } as u8).collect();
        let mut pieces = Pieces::default();
        let at = pieces.add(&codes);
        let scale_type = if powers { ScaleType::F8E8M0 } else { ScaleType::F8E4M3 };
        let divisor = (!powers).then(|| pieces.add(&3f32.to_le_bytes()));
        let scales = Scales { scale_type, divisor, ..scales(pieces.add(&bytes), false) };
        let packed =
            Packed { codes: Codes::F4E2M1, group_size: group_size as u64, scales, zeros: Zeros::Middle, g_idx: None };
        let all = pieces.0.clone();
        let m = model((pieces, at, packed), "F32", RowOrder::AsStored);
        let found = floats(&read(&m).unwrap());
        let expected = |i: usize| {
            let byte = bytes[i / N_COLS * n_groups + i % N_COLS / group_size];
            let scale =
                if powers { 2f32.powi(i32::from(byte) - 127) } else { (1.0 + f32::from(byte - 0x38) / 8.0) / 3.0 };
            unscaled[i] * scale
        };
        assert!((0..found.len()).all(|i| found[i] == expected(i)), "powers {powers}");
        assert_eq!(types(&m), if powers { vec!["MXFP4"] } else { vec![] });
        if powers {
            let blocks = read(&model((Pieces(all), at, packed), "MXFP4", RowOrder::AsStored)).unwrap();
            let mut decoded = vec![0.0; found.len()];
            by_name("MXFP4").unwrap().dequantize.unwrap()(Level::detect(), &blocks, &mut decoded);
            assert!(decoded == found);
        }
    }
}

#[test]
fn what_makes_no_sense_is_named() {
    let fails = |laid: Laid, parts: [&str; 2]| {
        let model = model(laid, "F32", RowOrder::AsStored);
        let error = containing_types(&model.open_sources(), &model.tensors()[0]).unwrap_err();
        let message = error.to_string();
        assert!(matches!(error, ConvertError::Packed { .. }), "{message}");
        assert_eq!(read(&model).unwrap_err().to_string(), message);
        for part in parts {
            assert!(message.contains(part), "'{part}' is not in: {message}");
        }
    };
    let mut w = Linear::new(4, 32, true);
    w.groups[9] = 10;
    fails(gptq(&w, Less::OneBorrowing), ["t: g_idx: found group 10 of column 9", "expected 0 to 9"]);
    w.groups[9] = u32::MAX;
    fails(gptq(&w, Less::OneBorrowing), ["group -1 of column 9", "expected 0 to 9"]);
    let mut w = Linear::new(4, 32, true);
    w.scales[13] = f32::INFINITY;
    fails(packed_rows(&w, false), ["t: scales: found inf for row 1, group 3", "the file is damaged"]);
    let mut laid = packed_rows(&Linear::new(4, 32, true), false);
    laid.2.zeros = Zeros::I8(laid.0.add(&[8; N_ROWS * N_COLS / 32]));
    fails(laid, ["t: zero points: found 8 for row 0, group 0", "one of 4 bits"]);
    for divisor in [0.0, f32::NAN] {
        let mut laid = packed_rows(&Linear::new(4, 32, true), false);
        laid.2.scales.divisor = Some(laid.0.add(&f32::to_le_bytes(divisor)));
        fails(laid, ["the scales' divisor", "a finite number, not 0"]);
    }
}

/// Any description that passes the check can be read to its end, or is an error: whatever the bytes are, nothing panics.
#[test]
fn what_passes_the_check_can_be_read() {
    let mut random = Random(99);
    let bytes: Vec<u8> = (0..40_000).map(|_| random.next() as u8).collect();
    let source = Source::Memory { label: "noise".into(), bytes: Arc::new(bytes) };
    let (mut n_passed, mut n_read) = (0, 0);
    for _ in 0..20_000 {
        let mut pick = |most: u64| random.next() % (most + 1);
        let bits = pick(9) as u32;
        let at = At { source: 0, offset: 4 * pick(2000) };
        let place = |n: u64| At { source: 0, offset: 4 * (n * 2654435761 % 9000) };
        let codes =
            [Codes::Rows { bits }, Codes::Columns { bits }, Codes::Awq, Codes::I8, Codes::F8E4M3, Codes::F4E2M1]
                [pick(5) as usize];
        let less = [Less::Nothing, Less::OneBorrowing, Less::OneWrapping][pick(2) as usize];
        let zeros = [
            Zeros::Middle,
            Zeros::Columns { at: place(pick(9000)), less },
            Zeros::Awq(place(pick(9000))),
            Zeros::Rows(place(pick(9000))),
            Zeros::I8(place(pick(9000))),
        ][pick(4) as usize];
        let scales = Scales {
            at: place(pick(9000)),
            scale_type: [ScaleType::F32, ScaleType::F16, ScaleType::Bf16, ScaleType::F8E4M3, ScaleType::F8E8M0]
                [pick(4) as usize],
            group_rows: [1, 1, 3, pick(200), u64::MAX][pick(4) as usize],
            transposed: pick(1) == 0,
            divisor: (pick(3) == 0).then(|| place(pick(9000))),
        };
        let group_size = [1, 16, 32, 128, pick(400), u64::MAX][pick(5) as usize];
        let g_idx = (pick(7) == 0).then(|| place(pick(9000)));
        let packed = Packed { codes, group_size, scales, zeros, g_idx };
        let n_cols = [32, 64, 96, 256, 320, 1 + pick(300)][pick(5) as usize];
        let n_rows = [2, 8, 16, 32, 1 + pick(60)][pick(4) as usize];
        let order = match pick(3) {
            0 => RowOrder::HalvesToPairs { n_heads: 1 + pick(3) },
            _ => RowOrder::AsStored,
        };
        let name = ["F32", "F32", "BF16", "Q4_0", "Q8_0", "MXFP4"][pick(5) as usize];
        let part = Part { source: 0, offset: at.offset, values: Values::Packed(packed), n_rows, order };
        let tensor = AssembledTensor {
            name: "t".into(),
            dims: vec![n_cols, n_rows],
            ggml_type: GgmlType::by_name(name).unwrap(),
            assembly: Arc::new(Assembly { parts: vec![part], add: 0.0 }),
        };
        let Ok(model) = Gguf::assembled(&Header::new(3).unwrap(), vec![source.clone()], vec![tensor]) else { continue };
        n_passed += 1;
        let sources = model.open_sources();
        let types = containing_types(&sources, &model.tensors()[0]);
        let Ok(reader) = TensorReader::new(Level::detect(), &sources, &model.tensors()[0]) else { continue };
        let types = types.expect("the same is read for the reader");
        assert!(["F32", "BF16"].contains(&name) || types.contains(&name), "{name} is not one of {types:?}");
        let mut all = vec![0; reader.nbytes()];
        n_read += usize::from(reader.read_all(&mut all).is_ok());
    }
    assert!(n_passed > 1000 && n_read > 200, "{n_passed} passed, {n_read} were read");
}
