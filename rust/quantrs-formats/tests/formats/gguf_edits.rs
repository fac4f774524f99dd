//! Editing a header: order of keys, offsets, and what is refused.

use crate::common::golden_bytes;
use quantrs_formats::{GgmlType, GgufFile, Header, NewValue, Value};

fn header() -> Header {
    Header::new(3).unwrap()
}

fn set(header: &mut Header, key: &str, value: i128) -> Result<(), String> {
    header.set(key, "u32".parse().unwrap(), &NewValue::Int(value)).map_err(|e| e.to_string())
}

fn add(header: &mut Header, name: &str, dims: &[u64], type_name: &str) -> Result<u64, String> {
    header.add_tensor(name, dims, GgmlType::by_name(type_name).unwrap()).map_err(|e| e.to_string())
}

#[test]
fn setting_a_key_again_moves_it_to_the_end() {
    let mut header = header();
    for (key, value) in [("a", 1), ("b", 2), ("c", 3), ("a", 4)] {
        set(&mut header, key, value).unwrap();
    }
    assert!(header.keys().eq(["b", "c", "a"]));
    assert_eq!(header.value("a"), Some(Value::U32(4)));
    assert!(header.remove("b").unwrap());
    assert!(!header.remove("b").unwrap());
    assert!(header.keys().eq(["c", "a"]));
}

#[test]
fn a_refused_edit_changes_nothing() {
    let mut header = header();
    set(&mut header, "a", 1).unwrap();
    let before = header.to_bytes();
    assert!(set(&mut header, "a", -1).unwrap_err().contains("key 'a': found -1"));
    assert!(set(&mut header, "", 1).unwrap_err().contains("an empty key"));
    assert!(
        set(&mut header, "general.alignment", 48)
            .unwrap_err()
            .contains("found 48, expected a u32 that is a power of two")
    );
    assert!(Header::new(1).unwrap_err().to_string().contains("GGUF version: found 1, expected 2 or 3"));
    assert!(header.to_bytes() == before);
}

#[test]
fn offsets_are_the_running_sum_padded_to_the_alignment() {
    let mut header = header();
    assert_eq!(add(&mut header, "a", &[3], "F32").unwrap(), 0);
    assert_eq!(add(&mut header, "b", &[256, 2], "Q4_K").unwrap(), 32);
    assert_eq!(add(&mut header, "c", &[1], "I8").unwrap(), 32 + 288);
    assert_eq!(header.data_len(), 32 + 288 + 32);
    assert_eq!(header.to_bytes().len() % 32, 0);
}

#[test]
fn the_alignment_key_decides_padding_and_must_come_before_the_tensors() {
    let mut header = header();
    set(&mut header, "general.alignment", 128).unwrap();
    add(&mut header, "a", &[3], "F32").unwrap();
    assert_eq!(add(&mut header, "b", &[3], "F32").unwrap(), 128);
    assert_eq!(header.to_bytes().len() % 128, 0);
    assert!(set(&mut header, "general.alignment", 64).unwrap_err().contains("before the first tensor"));
    assert!(header.remove("general.alignment").is_err());
    set(&mut header, "general.alignment", 128).unwrap();
    assert_eq!(header.alignment(), 128);
}

#[test]
fn trailing_dimensions_of_one_are_written_as_they_are() {
    let mut header = header();
    add(&mut header, "a", &[2, 3, 1, 1], "F32").unwrap();
    add(&mut header, "b", &[1, 1], "F32").unwrap();
    add(&mut header, "c", &[2, 1, 3], "F32").unwrap();
    let mut bytes = header.to_bytes();
    bytes.resize(bytes.len() + header.data_len() as usize, 0);
    let file = GgufFile::from_bytes(&bytes).unwrap();
    let dims: Vec<&[u64]> = file.tensors().iter().map(|t| &t.dims[..]).collect();
    assert_eq!(dims, [&[2, 3, 1, 1][..], &[1, 1], &[2, 1, 3]]);
}

#[test]
fn tensors_that_no_reader_accepts_are_refused() {
    let mut header = header();
    add(&mut header, "t", &[8], "F32").unwrap();
    let before = header.to_bytes();
    for (name, dims, type_name, message) in [
        ("t", &[8][..], "F32", "the name a second time"),
        ("", &[8], "F32", "a name of 0 bytes"),
        (&"n".repeat(64), &[8], "F32", "a name of 64 bytes"),
        ("u", &[], "F32", "dimensions []"),
        ("u", &[1, 1, 1, 1, 1], "F32", "1 to 4 sizes"),
        ("u", &[8, 0], "F32", "at least 1"),
        ("u", &[100], "Q4_K", "a multiple of 256, the block of Q4_K"),
        ("u", &[1 << 62, 4], "I8", "fewer than 2^63 elements"),
        ("u", &[1 << 62], "F64", "fewer than 2^64 bytes"),
    ] {
        let error = add(&mut header, name, dims, type_name).unwrap_err();
        assert!(error.contains(message), "'{message}' is not in: {error}");
    }
    assert!(header.to_bytes() == before);
}

#[test]
fn an_edited_copy_keeps_the_bytes_of_the_values_it_did_not_touch() {
    let bytes = golden_bytes("tiny-f16.gguf");
    let file = GgufFile::from_bytes(&bytes).unwrap();
    let mut header = file.header();
    set(&mut header, "general.file_type", 15).unwrap();
    let read = GgufFile::from_bytes(&header.to_bytes()).unwrap();
    for key in file.keys().filter(|k| *k != "general.file_type") {
        assert_eq!(read.value(key), file.value(key), "{key}");
    }
    assert_eq!(read.keys().last(), Some("general.file_type"));
}
