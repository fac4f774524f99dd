//! One test per kind of damage: each is refused, and the message says where and what.

use std::collections::BTreeSet;

use crate::common::{ARRAY, File, STRING, U8, U16, array, golden_bytes, key_value, string, tensor, u32_value};
use quantrs_formats::{FormatError, GgufFile};

const F32: u32 = 0;
const Q4_K: u32 = 12;

fn refusal(bytes: &[u8]) -> FormatError {
    match GgufFile::from_bytes(bytes) {
        Ok(_) => panic!("accepted"),
        Err(e) => e,
    }
}

fn refusal_of(file: &File) -> FormatError {
    refusal(&file.bytes())
}

/// The message holds every one of `parts`.
fn says(error: &FormatError, parts: &[&str]) {
    let message = error.to_string();
    for part in parts {
        assert!(message.contains(part), "'{part}' is not in: {message}");
    }
}

fn with_tensors(tensors: &[Vec<u8>], data_bytes: usize) -> File {
    File { tensors: tensors.to_vec(), data_bytes, ..File::default() }
}

fn with_key_values(key_values: &[Vec<u8>]) -> File {
    File { key_values: key_values.to_vec(), ..File::default() }
}

#[test]
fn truncation_at_every_byte_of_the_header_is_refused_and_every_kind_of_field_is_named() {
    let bytes = golden_bytes("tiny-f16.gguf");
    let header_bytes = GgufFile::from_bytes(&bytes).unwrap().data_offset() as usize;
    let mut fields = BTreeSet::new();
    for n in 0..header_bytes {
        match refusal(&bytes[..n]) {
            FormatError::Truncated { place, needed, left } => {
                assert!(needed > left, "at {n}: {needed} {left}");
                assert_eq!(place.offset + left, n as u64, "at {n}");
                // Names and numbers out: what remains is the kind of field.
                let quoted = place.field.split('\'').step_by(2).collect::<Vec<_>>().join("*");
                fields.insert(quoted.replace(|c: char| c.is_ascii_digit(), ""));
            }
            // Only the padding after the last entry is missing.
            FormatError::OutOfFile { .. } => assert!(header_bytes - n < 32, "at {n}"),
            other => panic!("at {n}: {other}"),
        }
    }
    for field in [
        "magic",
        "version",
        "tensor count",
        "key/value count",
        "length of key of key/value ",
        "key of key/value ",
        "type of key *",
        "value of key *",
        "length of value of key *",
        "element type of key *",
        "element count of key *",
        "the  elements of key *",
        "length of name of tensor ",
        "name of tensor ",
        "dimension count of tensor *",
        "dimension  of tensor *",
        "type of tensor *",
        "offset of tensor *",
    ] {
        assert!(fields.contains(field), "'{field}' is not in {fields:?}");
    }
}

#[test]
fn truncation_inside_the_tensor_data_is_refused() {
    let bytes = golden_bytes("tiny-f16.gguf");
    for n in [1, 1000, 100_000] {
        let error = refusal(&bytes[..bytes.len() - n]);
        assert!(
            matches!(error, FormatError::OutOfFile { file_size, .. } if file_size == (bytes.len() - n) as u64),
            "{error}"
        );
    }
}

#[test]
fn other_files_are_named_for_what_they_are() {
    says(&refusal(b"\x80\x02}q\x00"), &["byte 0, magic", "found \"\\x80\\x02}q\"", "expected \"GGUF\""]);
    says(&refusal(b"version https://git-lfs.github.com/spec/v1"), &["Git LFS pointer", "git lfs pull"]);
    says(&refusal(b"PK\x03\x04...."), &["zip archive"]);
    says(&refusal(b"tjgg\x03\0\0\0"), &["before GGUF"]);
}

#[test]
fn version_1_is_refused() {
    says(
        &refusal_of(&File { version: 1, ..File::default() }),
        &["byte 4, version", "found 1", "expected 2 or 3", "convert"],
    );
}

#[test]
fn unknown_versions_are_refused() {
    says(&refusal_of(&File { version: 4, ..File::default() }), &["found 4", "newer quantrs"]);
    says(&refusal_of(&File { version: 0, ..File::default() }), &["found 0"]);
}

#[test]
fn big_endian_is_refused_by_name() {
    let error = refusal_of(&File { version: 3u32.swap_bytes(), ..File::default() });
    says(&error, &["found 3 in big-endian bytes", "gguf_convert_endian"]);
}

#[test]
fn huge_counts_are_refused_before_anything_is_read_for_them() {
    for count in [u64::MAX, 1 << 62, 1 << 32] {
        says(
            &refusal_of(&File { n_key_values: Some(count), ..File::default() }),
            &["byte 24", &format!("the {count} key/values")],
        );
        says(
            &refusal_of(&File { n_tensors: Some(count), ..File::default() }),
            &["byte 24", &format!("the {count} tensor entries")],
        );
        for code in [U8, U16, STRING] {
            let file = with_key_values(&[key_value("k", ARRAY, &array(code, count, b""))]);
            says(&refusal_of(&file), &[&format!("the {count} elements of key 'k'")]);
        }
    }
}

#[test]
fn huge_string_lengths_are_refused() {
    for len in [u64::MAX, u64::MAX - 40, 1 << 40] {
        let long = [&len.to_le_bytes()[..], b"x"].concat();
        says(
            &refusal_of(&with_key_values(&[key_value("k", STRING, &long)])),
            &["value of key 'k'", &format!("needs {len} bytes")],
        );
        says(
            &refusal_of(&with_key_values(&[key_value("k", ARRAY, &array(STRING, 1, &long))])),
            &["element 0 of key 'k'"],
        );
        let mut key = File::default();
        key.key_values.push([&long[..], &[0; 16]].concat());
        says(&refusal_of(&key), &["key of key/value 0"]);
        let mut name = File::default();
        name.tensors.push([&long[..], &[0; 32]].concat());
        says(&refusal_of(&name), &["name of tensor 0"]);
    }
}

#[test]
fn nested_arrays_are_refused() {
    let mut bomb = array(U8, 0, b"");
    for _ in 0..10_000 {
        bomb = array(ARRAY, 1, &bomb);
    }
    says(
        &refusal_of(&with_key_values(&[key_value("k", ARRAY, &bomb)])),
        &["element type of key 'k'", "an array inside an array"],
    );
}

#[test]
fn unknown_value_types_are_refused() {
    for code in [13, 255, u32::MAX] {
        says(
            &refusal_of(&with_key_values(&[key_value("k", code, &[0; 8])])),
            &["type of key 'k'", &format!("found {code}")],
        );
        let file = with_key_values(&[key_value("k", ARRAY, &array(code, 1, &[0; 8]))]);
        says(&refusal_of(&file), &["element type of key 'k'", &format!("found {code}")]);
    }
}

#[test]
fn empty_and_duplicate_keys_are_refused() {
    says(&refusal_of(&with_key_values(&[u32_value("", 1)])), &["byte 32, key of key/value 0", "an empty key"]);
    let file = with_key_values(&[u32_value("a", 1), u32_value("b", 1), u32_value("a", 2)]);
    says(&refusal_of(&file), &["byte 66, key of key/value 2", "'a' a second time (first at byte 32)"]);
}

#[test]
fn bad_utf8_is_refused_in_keys_and_names() {
    says(
        &refusal_of(&with_key_values(&[u32_value("x", 1), key_value(b"a\xff", U8, &[0])])),
        &["key of key/value 1", "a\\xff"],
    );
    says(&refusal_of(&with_tensors(&[tensor(b"t\xc3", &[8], F32, 0)], 32)), &["name of tensor 0", "t\\xc3"]);
}

#[test]
fn bad_utf8_in_values_is_kept_as_bytes_with_a_notice() {
    let strings = [string("fine"), string(b"\xff"), string(b"\xfe\xfe")].concat();
    let file = with_key_values(&[
        key_value("name", STRING, &string(b"a\xff")),
        key_value("tokens", ARRAY, &array(STRING, 3, &strings)),
        key_value("fine", STRING, &string("é")),
    ]);
    let bytes = file.bytes();
    let read = GgufFile::from_bytes(&bytes).unwrap();
    assert_eq!(read.value("name"), Some(quantrs_formats::Value::String(b"a\xff")));
    let notices = read.notices();
    assert_eq!(notices.len(), 2, "{notices:?}");
    assert!(notices[0].contains("'name'"), "{notices:?}");
    assert!(notices[1].contains("2 of 3 strings are not UTF-8 (the first is element 1)"), "{notices:?}");
    assert!(read.header().to_bytes() == bytes, "round trip");
}

#[test]
fn alignments_that_cannot_be_are_refused() {
    for alignment in [0, 3, 24, 33, 1 << 31] {
        let error = refusal_of(&with_key_values(&[u32_value("general.alignment", alignment)]));
        says(&error, &["value of key 'general.alignment'", &format!("found {alignment}"), "a power of two"]);
    }
    let file = with_key_values(&[key_value("general.alignment", STRING, &string("32"))]);
    says(&refusal_of(&file), &["found a value of type string"]);
}

#[test]
fn another_alignment_moves_the_data_section() {
    let file = File {
        key_values: vec![u32_value("general.alignment", 256)],
        tensors: vec![tensor("a", &[1], F32, 0), tensor("b", &[1], F32, 256)],
        alignment: 256,
        data_bytes: 512,
        ..File::default()
    };
    let read = GgufFile::from_bytes(&file.bytes()).unwrap();
    assert_eq!((read.alignment(), read.data_offset(), read.tensors()[1].offset), (256, 256, 512));
    assert_eq!(read.notices(), Vec::<String>::new());
}

#[test]
fn tensor_names_that_ggml_refuses_are_refused() {
    says(&refusal_of(&with_tensors(&[tensor("", &[8], F32, 0)], 32)), &["name of tensor 0", "found 0 bytes"]);
    says(&refusal_of(&with_tensors(&[tensor("n".repeat(64), &[8], F32, 0)], 32)), &["found 64 bytes", "1 to 63 bytes"]);
    assert!(GgufFile::from_bytes(&with_tensors(&[tensor("n".repeat(63), &[8], F32, 0)], 32).bytes()).is_ok());
    let twice = [tensor("a", &[8], F32, 0), tensor("b", &[8], F32, 32), tensor("a", &[8], F32, 64)];
    says(&refusal_of(&with_tensors(&twice, 96)), &["'a' a second time (first at byte 24)"]);
}

#[test]
fn dimension_counts_above_four_are_refused() {
    for n in [5, 1000] {
        says(
            &refusal_of(&with_tensors(&[tensor("t", &vec![1; n], F32, 0)], 32)),
            &["dimension count of tensor 't'", &format!("found {n}")],
        );
    }
}

#[test]
fn dimension_products_that_overflow_are_refused() {
    let products: [&[u64]; 5] = [
        &[u64::MAX],
        &[1 << 63],
        &[1 << 32, 1 << 32],
        &[256, 1 << 20, 1 << 20, 1 << 20],
        &[1 << 16, 1 << 16, 1 << 16, 1 << 16],
    ];
    for dims in products {
        says(
            &refusal_of(&with_tensors(&[tensor("t", dims, F32, 0)], 32)),
            &["dimensions of tensor 't'", "fewer than 2^63 elements"],
        );
    }
    // Countable elements, but more bytes than a u64 holds.
    let error = refusal_of(&with_tensors(&[tensor("t", &[1 << 31, 1 << 31], 28, 0)], 32));
    says(&error, &["dimensions of tensor 't'", "fewer than 2^64 bytes"]);
}

#[test]
fn dimensions_of_zero_are_refused() {
    for dims in [&[0][..], &[8, 0], &[8, 1, 0]] {
        says(&refusal_of(&with_tensors(&[tensor("t", dims, F32, 0)], 32)), &["dimensions of tensor 't'", "at least 1"]);
    }
}

#[test]
fn a_tensor_without_dimensions_is_one_element_with_a_notice() {
    let read = GgufFile::from_bytes(&with_tensors(&[tensor("t", &[], F32, 0)], 32).bytes()).unwrap();
    assert_eq!((&read.tensors()[0].dims[..], read.tensors()[0].nbytes), (&[1][..], 4));
    assert!(read.notices()[0].contains("no dimensions"));
}

#[test]
fn rows_that_are_not_whole_blocks_are_refused() {
    let error = refusal_of(&with_tensors(&[tensor("t", &[100, 2], Q4_K, 0)], 512));
    says(&error, &["dimensions of tensor 't'", "found [100, 2]", "a multiple of 256 (the block of Q4_K)"]);
}

#[test]
fn removed_type_ids_are_refused() {
    for id in [4, 5, 31, 32, 33, 36, 37, 38] {
        let error = refusal_of(&with_tensors(&[tensor("t", &[256], id, 0)], 512));
        says(&error, &["type of tensor 't'", &format!("found {id}, which ggml has removed")]);
    }
}

#[test]
fn unknown_type_ids_are_opaque_up_to_the_next_tensor_with_a_notice() {
    let tensors = [tensor("new", &[7, 3], 43, 0), tensor("f", &[8], F32, 96), tensor("newer", &[5], u32::MAX, 128)];
    let read = GgufFile::from_bytes(&with_tensors(&tensors, 160).bytes()).unwrap();
    let sizes: Vec<u64> = read.tensors().iter().map(|t| t.nbytes).collect();
    assert_eq!(sizes, [96, 32, 32]);
    let notices = read.notices();
    assert!(
        notices.len() == 1
            && notices[0].contains("2 tensors have a type id that is not known (the first is 'new', type id 43)"),
        "{notices:?}"
    );
    says(&refusal_of(&with_tensors(&tensors, 128)), &["type of tensor 'newer'", "without data"]);
    says(&refusal_of(&with_tensors(&tensors[2..], 64)), &["offset of tensor 'newer'", "ends at byte"]);
}

#[test]
fn offsets_past_the_end_are_refused() {
    for offset in [32, 64, 1 << 40, 1 << 63, u64::MAX - 31] {
        let error = refusal_of(&with_tensors(&[tensor("t", &[8], F32, offset)], 32));
        assert!(matches!(error, FormatError::OutOfFile { file_size: 96, .. }), "{error}");
        says(&error, &["offset of tensor 't'"]);
    }
}

#[test]
fn offsets_off_the_alignment_are_refused() {
    let error = refusal_of(&with_tensors(&[tensor("t", &[8], F32, 4)], 64));
    says(&error, &["offset of tensor 't'", "found 4", "a multiple of the alignment, 32"]);
}

#[test]
fn overlapping_tensors_are_refused() {
    for (type_id, offset) in [(F32, 0), (F32, 32), (99, 0), (99, 32)] {
        let tensors = [tensor("a", &[16], F32, 0), tensor("b", &[8], type_id, offset)];
        let error = refusal_of(&with_tensors(&tensors, 64));
        assert!(matches!(error, FormatError::Overlap { .. }), "{error}");
        says(&error, &["offset of tensor 'b'", "overlaps that of 'a'"]);
    }
    let nested = [tensor("inner", &[8], F32, 64), tensor("outer", &[64], F32, 0)];
    says(&refusal_of(&with_tensors(&nested, 256)), &["'inner'", "overlaps that of 'outer'"]);
}

#[test]
fn gaps_and_another_order_are_accepted_with_a_notice() {
    for offsets in [[32, 0], [0, 64], [32, 64]] {
        let tensors = [tensor("a", &[8], F32, offsets[0]), tensor("b", &[8], F32, offsets[1])];
        let read = GgufFile::from_bytes(&with_tensors(&tensors, 96).bytes()).unwrap();
        assert!(read.notices()[0].contains("without gaps"), "{offsets:?}: {:?}", read.notices());
    }
}

#[test]
fn missing_final_padding_and_trailing_bytes_are_accepted_with_a_notice() {
    let tensors = [tensor("a", &[3], F32, 0)];
    for (data_bytes, notice) in [
        (12, Some("cut short by 20 bytes")),
        (31, Some("cut short by 1 bytes")),
        (32, None),
        (40, Some("8 bytes follow")),
    ] {
        let read = GgufFile::from_bytes(&with_tensors(&tensors, data_bytes).bytes()).unwrap();
        match notice {
            Some(text) => assert!(read.notices()[0].contains(text), "{:?}", read.notices()),
            None => assert!(read.notices().is_empty()),
        }
    }
    says(&refusal_of(&with_tensors(&tensors, 11)), &["its data ends at byte 76", "the file has 75 bytes"]);
}

#[test]
fn a_file_without_tensors_may_lack_its_padding() {
    let mut bytes = with_key_values(&[u32_value("a", 1)]).bytes();
    assert!(GgufFile::from_bytes(&bytes).unwrap().notices().is_empty());
    bytes.truncate(24 + 17);
    let read = GgufFile::from_bytes(&bytes).unwrap();
    assert_eq!((read.data_offset(), read.notices()), (64, vec!["the padding after the header is missing".to_owned()]));
}
