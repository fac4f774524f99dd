//! safetensors headers: what upstream writes is read and written alike, and every kind of damage is refused with its place.

use quantrs_formats::safetensors::{Dtype, NewTensor, SafeTensorsFile, write_header};
use quantrs_formats::{FormatError, Result};
use std::path::Path;

fn parse(bytes: &[u8]) -> Result<SafeTensorsFile> {
    SafeTensorsFile::parse(bytes, Path::new("m.safetensors"))
}

/// A file with this header and `data_bytes` zeros.
fn file(header: &str, data_bytes: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data_bytes, 0);
    bytes
}

/// The message of the refusal holds every one of `parts`, and the file's name.
fn says(bytes: &[u8], parts: &[&str]) {
    let message = match parse(bytes) {
        Ok(_) => panic!("accepted"),
        Err(e) => e.to_string(),
    };
    for part in parts.iter().chain(&["m.safetensors: byte "]) {
        assert!(message.contains(part), "'{part}' is not in: {message}");
    }
}

fn refuses(header: &str, parts: &[&str]) {
    says(&file(header, 8), parts);
}

/// One tensor `a` of eight bytes, with these fields.
fn entry(fields: &str) -> String {
    format!("{{\"a\":{{{fields}}}}}")
}

#[test]
fn tensors_come_in_the_order_of_their_data_with_offsets_from_the_start_of_the_file() {
    let header = concat!(
        r#" {"b" : {"dtype":"F16", "shape":[2,3], "data_offsets":[4,16], "extra":[{"x":null}, -1.5e3, true, "y"]},"#,
        r#""__metadata__":{"format":"pt","\u00fc\ud83d\ude42\n":"\"\\\/"},"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"#,
        r#""empty":{"dtype":"I64","shape":[3,0],"data_offsets":[16,16]}}  "#
    )
    .trim_start();
    let read = parse(&file(header, 16)).unwrap();
    let start = 8 + header.len() as u64;
    let rows: Vec<_> = read
        .tensors()
        .iter()
        .map(|t| (t.name.as_str(), t.dtype.name, t.shape.clone(), t.offset - start, t.nbytes))
        .collect();
    assert_eq!(
        rows,
        [("a", "F32", vec![], 0, 4), ("b", "F16", vec![2, 3], 4, 12), ("empty", "I64", vec![3, 0], 16, 0)]
    );
    let pairs = [("format".to_owned(), "pt".to_owned()), ("\u{fc}\u{1f642}\n".into(), "\"\\/".into())];
    assert_eq!(read.metadata(), pairs);
    assert_eq!(read.file_size(), start + 16);
}

#[test]
fn a_header_is_written_as_upstream_writes_it() {
    let tensor = |name: &str, dtype: &str, shape: &[u64]| NewTensor {
        name: name.into(),
        dtype: Dtype::by_name(dtype).unwrap(),
        shape: shape.into(),
    };
    // Two cases of upstream's own tests: a header that needs padding, and one without tensors.
    let (bytes, offsets) = write_header(&[tensor("attn0", "F32", &[1, 1, 2, 3])], &[]).unwrap();
    let text = r#"{"attn0":{"dtype":"F32","shape":[1,1,2,3],"data_offsets":[0,24]}}"#;
    assert_eq!(bytes, [&72u64.to_le_bytes()[..], text.as_bytes(), b"       "].concat());
    assert_eq!(offsets, [80]);
    let (bytes, _) = write_header(&[], &[("framework".into(), "pt".into())]).unwrap();
    assert_eq!(bytes, [&40u64.to_le_bytes()[..], br#"{"__metadata__":{"framework":"pt"}}     "#].concat());

    // Wide types first, then by name; the offsets come in the order of the call.
    let tensors = [
        tensor("b\u{1}\u{fc}\"", "I8", &[3]),
        tensor("z", "BF16", &[2]),
        tensor("a", "BF16", &[1]),
        tensor("w", "F32", &[]),
    ];
    let (mut bytes, offsets) = write_header(&tensors, &[]).unwrap();
    let start = bytes.len() as u64;
    assert_eq!(offsets, [start + 10, start + 6, start + 4, start]);
    bytes.resize(bytes.len() + 13, 0);
    let read = parse(&bytes).unwrap();
    assert_eq!(read.tensors().iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["w", "a", "z", "b\u{1}\u{fc}\""]);
}

#[test]
fn names_that_no_reader_accepts_are_not_written() {
    let tensor =
        |name: &str, n: u64| NewTensor { name: name.into(), dtype: Dtype::by_name("U8").unwrap(), shape: vec![n, n] };
    for (tensors, part) in [
        (vec![tensor("", 1)], "unique names"),
        (vec![tensor("__metadata__", 1)], "unique names"),
        (vec![tensor("a", 1), tensor("a", 1)], "unique names"),
        (vec![tensor("a", 1 << 32)], "fewer than 2^63 bytes"),
    ] {
        let error = write_header(&tensors, &[]).unwrap_err();
        assert!(matches!(error, FormatError::Edit { .. }) && error.to_string().contains(part), "{error}");
    }
}

#[test]
fn lengths_that_the_file_cannot_have_are_refused_before_anything_is_allocated() {
    says(b"", &["byte 0", "needs 8 bytes", "only 0 more"]);
    says(b"1234567", &["needs 8 bytes", "only 7 more"]);
    says(&(1u64 << 62).to_le_bytes(), &["length of the header", "above the limit of 100000000"]);
    says(&99_999_999u64.to_le_bytes(), &["byte 8, header", "needs 99999999 bytes", "only 0 more"]);
}

#[test]
fn truncation_at_every_byte_is_refused() {
    let whole = file(&entry(r#""dtype":"F32","shape":[2],"data_offsets":[0,8]"#), 8);
    parse(&whole).unwrap();
    for n in 0..whole.len() {
        assert!(parse(&whole[..n]).is_err(), "at {n}");
        let mut header = whole[..n].to_vec();
        if n > 8 {
            // The length tells the truth about the cut text.
            header[..8].copy_from_slice(&(n as u64 - 8).to_le_bytes());
            assert!(parse(&header).is_err(), "at {n}, with its length");
        }
    }
}

#[test]
fn other_files_are_named_for_what_they_are() {
    says(b"version https://git-lfs", &["Git LFS pointer", "git lfs pull"]);
    says(b"PK\x03\x04....", &["zip archive"]);
    says(b"GGUF\x03\0\0\0", &["a GGUF file"]);
}

#[test]
fn what_is_no_json_is_refused_with_its_byte() {
    refuses("", &["byte 8, header", "found the end of the header", "expected '{'"]);
    refuses("notjson!", &["found notjson!", "expected '{'"]);
    refuses(" {}", &["expected '{'"]);
    refuses("{} x", &["byte 11", "nothing after the closing '}'"]);
    refuses(r#"{"a":1}"#, &["byte 13, tensor 'a'", "found 1", "expected '{'"]);
    refuses(r#"{"a" 1}"#, &["after the name 'a'", "expected ':'"]);
    refuses(r#"{"a":{},}"#, &["tensor 'a'", "a field 'dtype'"]);
    refuses(r#"{"a"#, &["tensor name", "expected '\"'"]);
    refuses("{\"a\n\":{}}", &["no control characters"]);
    for escape in [r"\x", r"\u12", r"\ud800", r"\ud800\u0041", r"\udc00", "\\"] {
        refuses(&format!("{{\"{escape}\":{{}}}}"), &["tensor name"]);
    }
    let mut bad = file(&entry(r#""dtype":"F32""#), 0);
    bad[11] = 0xff;
    says(&bad, &["byte 11, header", "\\xff", "expected UTF-8"]);
}

#[test]
fn nested_values_are_bounded() {
    for open in ["[", "{\"x\":"] {
        let deep = format!("{{\"a\":{{\"extra\":{}", open.repeat(100_000));
        refuses(&deep, &["nested values", "above the limit of 32"]);
    }
    refuses(&"[".repeat(100_000), &["expected '{'"]);
    let long = format!("[{}]", vec!["1"; 65].join(","));
    refuses(&entry(&format!(r#""dtype":"F32","shape":{long}"#)), &["shape", "at most 64 numbers"]);
}

#[test]
fn fields_of_the_wrong_kind_are_refused() {
    refuses(&entry(r#""dtype":"Q7","shape":[2],"data_offsets":[0,8]"#), &["tensor 'a', dtype", "Q7", "F8_E4M3"]);
    refuses(&entry(r#""dtype":4,"shape":[2],"data_offsets":[0,8]"#), &["dtype", "found 4"]);
    for number in ["1.5", "-2", "1e3", "01", "18446744073709551616", "\"2\"", "null", ""] {
        refuses(
            &entry(&format!(r#""dtype":"F32","shape":[{number},1],"data_offsets":[0,8]"#)),
            &["tensor 'a', shape", "expected"],
        );
    }
    refuses(&entry(r#""shape":[2],"data_offsets":[0,8]"#), &["a field 'dtype'"]);
    refuses(&entry(r#""dtype":"F32","data_offsets":[0,8]"#), &["a field 'shape'"]);
    refuses(&entry(r#""dtype":"F32","shape":[2]"#), &["a field 'data_offsets'"]);
    refuses(&entry(r#""dtype":"F32","dtype":"F32""#), &["each field once"]);
    refuses(r#"{"__metadata__":[1]}"#, &["__metadata__", "expected '{'"]);
    refuses(r#"{"__metadata__":{"a":1}}"#, &["__metadata__", "expected '\"'"]);
}

#[test]
fn offsets_that_do_not_fit_the_shape_are_refused() {
    let with =
        |shape: &str, offsets: &str| entry(&format!(r#""dtype":"F32","shape":{shape},"data_offsets":{offsets}"#));
    refuses(&with("[3]", "[0,8]"), &["found [0, 8]", "expected 12 bytes, as the shape [3] of F32 needs"]);
    refuses(&with("[2]", "[8,0]"), &["found [8, 0]"]);
    refuses(&with("[2]", "[0]"), &["found 1 numbers", "start and end"]);
    refuses(&with("[2]", "[0,4,8]"), &["at most 2 numbers"]);
    refuses(&with("[1099511627776,1099511627776]", "[0,8]"), &["fewer than 2^64 bytes"]);
    // A size of 0 hides no overflow.
    let hidden = with("[1099511627776,1099511627776,0]", "[0,0]");
    assert_eq!(parse(&file(&hidden, 0)).unwrap().tensors()[0].nbytes, 0);
}

#[test]
fn data_must_lie_end_to_end_within_the_file() {
    let two = |a: &str, b: &str| {
        format!(
            r#"{{"a":{{"dtype":"U8","shape":[4],"data_offsets":{a}}},"b":{{"dtype":"U8","shape":[4],"data_offsets":{b}}}}}"#
        )
    };
    parse(&file(&two("[4,8]", "[0,4]"), 8)).unwrap();
    refuses(&two("[0,4]", "[2,6]"), &["tensor 'b', data_offsets", "overlaps that of 'a'"]);
    refuses(&two("[0,4]", "[0,4]"), &["overlaps"]);
    refuses(&two("[1,5]", "[5,9]"), &["expected 0, where the tensor before it ends"]);
    refuses(&two("[0,4]", "[8,12]"), &["tensor 'b'", "ends at byte", "truncated"]);
    refuses(&two("[0,4]", "[18446744073709551611,18446744073709551615]"), &["ends at byte 18446744073709551615"]);
    says(&file(&two("[0,4]", "[4,8]"), 11), &["end of the last tensor", "3 bytes that no tensor describes"]);
}

#[test]
fn names_are_unique_and_not_empty() {
    let fields = r#"{"dtype":"U8","shape":[0],"data_offsets":[0,0]}"#;
    says(
        &file(&format!("{{\"a\":{fields},\"\\u0061\":{fields}}}"), 0),
        &["found 'a' a second time", "first at byte 9"],
    );
    says(&file(&format!("{{\"\":{fields}}}"), 0), &["a name that is not empty"]);
    says(&file(r#"{"__metadata__":{},"__metadata__":{}}"#, 0), &["a second time"]);
}
