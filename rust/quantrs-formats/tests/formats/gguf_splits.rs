//! Models in several files.

use std::path::{Path, PathBuf};

use crate::common::{File, I32, STRING, U16, golden, golden_bytes, key_value, string, tensor};
use quantrs_formats::{FormatError, Gguf, Value};

const NAMES: [&str; 3] = ["split-00001-of-00003.gguf", "split-00002-of-00003.gguf", "split-00003-of-00003.gguf"];

/// The three parts, copied where they can be damaged.
fn copy_of_parts(dir: &Path) -> Vec<PathBuf> {
    let copy = |name| {
        let to = dir.join(name);
        std::fs::write(&to, golden_bytes(name)).unwrap();
        to
    };
    NAMES.into_iter().map(copy).collect()
}

fn refusal(path: &Path) -> String {
    let error = Gguf::open(path).unwrap_err();
    assert!(matches!(error, FormatError::Split { .. }), "{error}");
    error.to_string()
}

/// A part with the split keys and F32 tensors of eight values.
fn part(number: u16, count: u16, total: i32, tensors: &[&str]) -> Vec<u8> {
    File {
        key_values: vec![
            key_value("split.no", U16, &number.to_le_bytes()),
            key_value("split.count", U16, &count.to_le_bytes()),
            key_value("split.tensors.count", I32, &total.to_le_bytes()),
        ],
        tensors: tensors.iter().enumerate().map(|(i, name)| tensor(name, &[8], 0, 32 * i as u64)).collect(),
        data_bytes: 32 * tensors.len(),
        ..File::default()
    }
    .bytes()
}

#[test]
fn the_first_part_opens_the_whole_model() {
    let gguf = Gguf::open(golden(NAMES[0])).unwrap();
    assert_eq!(gguf.paths().map(|p| p.file_name().unwrap().to_str().unwrap()).collect::<Vec<_>>(), NAMES);
    assert_eq!(gguf.split_sizes(), [2, 2, 1]);
    assert_eq!(gguf.tensors().iter().map(|t| t.file).collect::<Vec<_>>(), [0, 0, 1, 1, 2]);
    assert_eq!(gguf.value("split.tensors.count"), Some(Value::I32(5)));
    assert_eq!(gguf.notices(), Vec::<String>::new());
    let bytes: u64 = NAMES.iter().map(|name| std::fs::metadata(golden(name)).unwrap().len()).sum();
    assert_eq!(gguf.file_size(), bytes);
}

#[test]
fn a_missing_part_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let parts = copy_of_parts(dir.path());
    std::fs::remove_file(&parts[1]).unwrap();
    let message = refusal(&parts[0]);
    assert!(message.contains("split-00002-of-00003.gguf: found no such file, expected part 2 of 3"), "{message}");
}

#[test]
fn another_part_points_to_the_first() {
    let message = refusal(&golden(NAMES[1]));
    assert!(
        message.contains("found part 2 of a split model") && message.contains("split-00001-of-00003.gguf"),
        "{message}"
    );
}

#[test]
fn a_renamed_part_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["model.gguf", "model-00001-of-00002.gguf", "model-1-of-00003.gguf", "model-0000x-of-00003.gguf"] {
        let path = dir.path().join(name);
        std::fs::copy(golden(NAMES[0]), &path).unwrap();
        let message = refusal(&path);
        assert!(message.contains("MODEL-00001-of-00003.gguf"), "{message}");
    }
}

#[test]
fn parts_of_different_models_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let paths = [dir.path().join("m-00001-of-00002.gguf"), dir.path().join("m-00002-of-00002.gguf")];
    let second_parts = [
        (part(1, 2, 2, &["b"]), None),
        (part(0, 2, 2, &["b"]), Some("found split.no = 0, expected split.no = 1")),
        (part(1, 3, 2, &["b"]), Some("found split.count = 3, expected split.count = 2")),
        (part(1, 2, 2, &["a"]), Some("found tensor 'a', which")),
        (part(1, 2, 2, &["b", "c"]), Some("found 3 tensors in all parts, expected 2")),
        (File::default().bytes(), Some("found no key split.no")),
    ];
    std::fs::write(&paths[0], part(0, 2, 2, &["a"])).unwrap();
    for (bytes, message) in second_parts {
        std::fs::write(&paths[1], bytes).unwrap();
        match message {
            None => assert_eq!(Gguf::open(&paths[0]).unwrap().split_sizes(), [1, 1]),
            Some(text) => assert!(refusal(&paths[0]).contains(text), "{}", refusal(&paths[0])),
        }
    }
}

#[test]
fn split_keys_of_the_wrong_kind_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m-00001-of-00002.gguf");
    for value in [key_value("split.count", I32, &(-2i32).to_le_bytes()), key_value("split.count", STRING, &string("2"))]
    {
        std::fs::write(&path, File { key_values: vec![value], ..File::default() }.bytes()).unwrap();
        assert!(refusal(&path).contains("as split.count, expected a whole number"), "{}", refusal(&path));
    }
    let wide = key_value("split.count", 10, &u64::MAX.to_le_bytes());
    std::fs::write(&path, File { key_values: vec![wide], ..File::default() }.bytes()).unwrap();
    assert!(refusal(&path).contains("expected a name like"), "{}", refusal(&path));
}

#[test]
fn a_damaged_part_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let parts = copy_of_parts(dir.path());
    std::fs::write(&parts[2], b"GGUF").unwrap();
    let message = Gguf::open(&parts[0]).unwrap_err().to_string();
    assert!(message.contains("split-00003-of-00003.gguf: byte 4, version"), "{message}");
}
