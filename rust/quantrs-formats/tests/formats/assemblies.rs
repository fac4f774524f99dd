//! Assembled models: what they tell of themselves, and what is refused.

use quantrs_formats::{
    AssembledTensor, Assembly, At, Codes, FormatError, GgmlType, Gguf, Header, Less, NewValue, Packed, Part, RowOrder,
    ScaleType, Scales, Source, Stored, Value, Values, Zeros,
};
use std::sync::Arc;

fn header() -> Header {
    let mut header = Header::new(3).unwrap();
    header.set("general.architecture", "string".parse().unwrap(), &NewValue::Bytes(b"llama".to_vec())).unwrap();
    header
}

fn memory(n_bytes: usize) -> Source {
    Source::Memory { label: "state".into(), bytes: Arc::new(vec![7u8; n_bytes]) }
}

fn part(offset: u64, stored: &str, n_rows: u64) -> Part {
    let values = Values::Stored(Stored::by_name(stored).unwrap());
    Part { source: 0, offset, values, n_rows, order: RowOrder::AsStored }
}

fn tensor(dims: &[u64], type_name: &str, parts: &[Part]) -> AssembledTensor {
    let assembly = Arc::new(Assembly { parts: parts.to_vec(), add: 0.0 });
    AssembledTensor {
        name: "t".repeat(100),
        dims: dims.to_vec(),
        ggml_type: GgmlType::by_name(type_name).unwrap(),
        assembly,
    }
}

fn assembled(tensors: Vec<AssembledTensor>) -> quantrs_formats::Result<Gguf> {
    Gguf::assembled(&header(), vec![memory(4096)], tensors)
}

fn refuses(tensor: AssembledTensor, parts: &[&str]) {
    let error = assembled(vec![tensor]).map(drop).expect_err("accepted");
    let message = error.to_string();
    assert!(matches!(error, FormatError::Edit { .. }), "{message}");
    for part in parts {
        assert!(message.contains(part), "'{part}' is not in: {message}");
    }
}

#[test]
fn an_assembly_has_the_headers_metadata_and_the_bytes_of_its_sources() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shard");
    std::fs::write(&path, [0; 100]).unwrap();
    let sources = vec![memory(4096), Source::File(path.clone())];
    let in_file = Part { source: 1, ..part(36, "BF16", 1) };
    let tensors = vec![tensor(&[32, 1, 1, 1, 3], "BF16", &[part(64, "BF16", 2), in_file])];
    let model = Gguf::assembled(&header(), sources, tensors).unwrap();
    assert!(model.is_assembled());
    assert_eq!(model.value("general.architecture"), Some(Value::String(b"llama")));
    assert_eq!((model.file_size(), model.split_sizes()), (4196, vec![1, 0]));
    assert_eq!(model.paths().collect::<Vec<_>>(), [path]);
    let info = &model.tensors()[0];
    assert_eq!((info.offset, info.nbytes, info.file, info.name.len()), (64, 192, 0, 100));
    assert_eq!(model.sources()[0].memory_checksum(), Some(crc32fast::hash(&[7; 4096])));
}

#[test]
fn parts_must_make_up_the_tensor() {
    refuses(tensor(&[32, 4], "F16", &[part(0, "F16", 3)]), &["3 rows in its parts", "expected 4"]);
    refuses(tensor(&[32, 4], "F16", &[]), &["0 rows in its parts"]);
    refuses(tensor(&[32, 4], "F16", &[part(0, "F16", 4), part(0, "F16", 0)]), &["part 1: 0 rows"]);
    refuses(tensor(&[32, 4], "F16", &[part(0, "F16", 4), part(0, "F16", u64::MAX)]), &["part 1"]);
    refuses(tensor(&[32, 4], "F16", &[part(0, "Q4_K", 4)]), &["part 0", "whole blocks of 256"]);
}

#[test]
fn parts_must_lie_within_their_source() {
    refuses(
        tensor(&[32, 4], "F16", &[part(4000, "F16", 4)]),
        &["values in bytes 4000 to 4256 of state", "within its 4096 bytes"],
    );
    refuses(tensor(&[32, 4], "F16", &[part(u64::MAX, "F16", 4)]), &["part 0"]);
    refuses(tensor(&[32, 4], "F16", &[Part { source: 1, ..part(0, "F16", 4) }]), &["source 1", "one of 1"]);
    let missing = Gguf::assembled(&header(), vec![Source::File("/no/such/file".into())], Vec::new());
    assert!(matches!(missing, Err(FormatError::Io { action: "open", .. })));
}

#[test]
fn orders_must_suit_the_rows() {
    for n_heads in [0, 3, 4] {
        let order = RowOrder::HalvesToPairs { n_heads };
        refuses(
            tensor(&[32, 4], "F16", &[Part { order, ..part(0, "F16", 4) }]),
            &["an even number of them for each head"],
        );
    }
    let transposed = Part { order: RowOrder::Transposed, ..part(0, "Q8_0", 4) };
    refuses(tensor(&[32, 4], "Q8_0", &[transposed]), &["plain values to be transposed"]);
}

#[test]
fn dimensions_names_and_additions_are_checked() {
    refuses(tensor(&[32, 0], "F16", &[]), &["dimensions [32, 0]"]);
    refuses(tensor(&[], "F16", &[]), &["dimensions []"]);
    refuses(tensor(&[1 << 40, 1 << 40], "F16", &[]), &["fewer than 2^63 bytes"]);
    refuses(tensor(&[31, 1], "Q8_0", &[]), &["a multiple of 32"]);
    refuses(AssembledTensor { name: String::new(), ..tensor(&[1], "F16", &[part(0, "F16", 1)]) }, &["an empty name"]);
    let added = |type_name: &str, add: f32| {
        let parts = vec![part(0, "F16", 1)];
        AssembledTensor { assembly: Arc::new(Assembly { parts, add }), ..tensor(&[256], type_name, &[]) }
    };
    refuses(added("Q4_K", 1.0), &["1 to be added to values of type Q4_K"]);
    refuses(added("F32", f32::NAN), &["a finite number"]);
    let twice = vec![tensor(&[1], "F16", &[part(0, "F16", 1)]); 2];
    assert!(assembled(twice).unwrap_err().to_string().contains("the name a second time"));
    let mut full = header();
    full.add_tensor("t", &[1], GgmlType::by_name("F32").unwrap()).unwrap();
    assert!(Gguf::assembled(&full, Vec::new(), Vec::new()).unwrap_err().to_string().contains("key/values alone"));
}

/// 32 rows of 64 four-bit codes in groups of 32, everything at the start of the source.
fn packed(codes: Codes) -> Packed {
    let at = At { source: 0, offset: 0 };
    let scales = Scales { at, scale_type: ScaleType::F16, group_rows: 1, transposed: false, divisor: None };
    Packed { codes, group_size: 32, scales, zeros: Zeros::Middle, g_idx: None }
}

fn packed_tensor(dims: &[u64], packed: Packed) -> AssembledTensor {
    let values = Values::Packed(packed);
    tensor(dims, "F32", &[Part { values, ..part(0, "F32", dims[1]) }])
}

#[test]
fn every_piece_of_packed_rows_must_lie_within_its_source() {
    let ok = packed(Codes::Rows { bits: 4 });
    assert!(assembled(vec![packed_tensor(&[64, 32], ok)]).is_ok());
    let outside = At { source: 0, offset: 4095 };
    let refused = |packed: Packed, what: &str| {
        refuses(packed_tensor(&[64, 32], packed), &[what, "of state", "within its 4096 bytes"]);
    };
    refused(Packed { scales: Scales { at: outside, ..ok.scales }, ..ok }, "part 0: scales in bytes 4095 to 4223");
    refused(Packed { scales: Scales { divisor: Some(outside), ..ok.scales }, ..ok }, "divisor in bytes 4095 to 4099");
    refused(Packed { g_idx: Some(outside), ..ok }, "g_idx in bytes 4095 to 4351");
    refused(Packed { zeros: Zeros::Rows(outside), ..ok }, "zero points in bytes 4095 to 4127");
    refused(Packed { zeros: Zeros::I8(outside), ..ok }, "zero points in bytes 4095 to 4159");
    let columns = Packed { codes: Codes::Columns { bits: 4 }, ..ok };
    refused(
        Packed { zeros: Zeros::Columns { at: outside, less: Less::OneBorrowing }, ..columns },
        "zero points in bytes 4095 to 4127",
    );
    let awq = Packed { codes: Codes::Awq, zeros: Zeros::Awq(outside), ..ok };
    refused(awq, "zero points in bytes 4095 to 4127");
    let elsewhere = At { source: 3, offset: 0 };
    refuses(packed_tensor(&[64, 32], Packed { g_idx: Some(elsewhere), ..ok }), &["part 0 in source 3", "one of 1"]);
    let past_2_64 = At { source: 0, offset: u64::MAX };
    refuses(
        packed_tensor(&[64, 32], Packed { g_idx: Some(past_2_64), ..ok }),
        &["g_idx in bytes 18446744073709551615 to"],
    );
    for codes in [Codes::Rows { bits: 8 }, Codes::Columns { bits: 8 }, Codes::I8, Codes::F8E4M3] {
        refuses(packed_tensor(&[64, 65], packed(codes)), &["codes in bytes 0 to 4160", "within its 4096 bytes"]);
    }
    refuses(packed_tensor(&[64, 256], packed(Codes::F4E2M1)), &["codes in bytes 0 to 8192"]);
    refuses(packed_tensor(&[64, 256], packed(Codes::Awq)), &["codes in bytes 0 to 8192"]);
}

#[test]
fn sizes_that_codes_cannot_have_are_refused() {
    let rows = |bits| packed(Codes::Rows { bits });
    for bits in [0, 1, 9, u32::MAX] {
        refuses(packed_tensor(&[64, 32], rows(bits)), &["part 0: codes of", "2 to 8 bits"]);
    }
    refuses(packed_tensor(&[64, 32], Packed { group_size: 0, ..rows(4) }), &["groups of 0 columns"]);
    let no_rows = Scales { group_rows: 0, ..rows(4).scales };
    refuses(packed_tensor(&[64, 32], Packed { scales: no_rows, ..rows(4) }), &["and 0 rows", "at least 1"]);
    refuses(packed_tensor(&[60, 32], packed(Codes::Columns { bits: 4 })), &["codes of 32 rows of 60", "whole words"]);
    refuses(packed_tensor(&[64, 30], packed(Codes::Awq)), &["codes of 30 rows of 64", "whole words"]);
    refuses(packed_tensor(&[63, 2], packed(Codes::F4E2M1)), &["codes of 2 rows of 63"]);
    let at = At { source: 0, offset: 0 };
    let columns =
        Packed { zeros: Zeros::Columns { at, less: Less::OneBorrowing }, ..packed(Codes::Columns { bits: 4 }) };
    refuses(packed_tensor(&[64, 30], columns), &["zero points of 30 rows", "whole words"]);
    let at3 = Packed { zeros: Zeros::Columns { at, less: Less::OneBorrowing }, ..packed(Codes::Columns { bits: 3 }) };
    refuses(packed_tensor(&[64, 32], at3), &["zero points of another kind"]);
    let mixed = Packed { zeros: Zeros::Awq(at), ..rows(4) };
    refuses(packed_tensor(&[64, 32], mixed), &["zero points of another kind than codes rows"]);
    let squares = Packed { zeros: Zeros::Rows(at), scales: Scales { group_rows: 8, ..rows(4).scales }, ..rows(4) };
    refuses(packed_tensor(&[64, 32], squares), &["zero points, and scales of 8 rows"]);
    let floats = Packed { g_idx: Some(at), ..packed(Codes::F8E4M3) };
    refuses(packed_tensor(&[64, 32], floats), &["g_idx, and codes f8_e4m3"]);
    refuses(packed_tensor(&[1 << 33, 1 << 33], rows(4)), &["fewer than 2^63 bytes"]);
    refuses(packed_tensor(&[1 << 30, 1 << 30], rows(4)), &["codes in bytes 0 to 576460752303423488"]);
    let transposed = Part { order: RowOrder::Transposed, values: Values::Packed(rows(4)), ..part(0, "F32", 32) };
    refuses(tensor(&[64, 32], "F32", &[transposed]), &["transposed with 0 heads", "plain values to be transposed"]);
}
