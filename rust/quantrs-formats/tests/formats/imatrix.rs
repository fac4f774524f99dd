//! Importance matrices, both forms: those of the real tool, and damaged ones.

use crate::common::{ARRAY, File, STRING, U32, array, golden, golden_bytes, key_value, string, tensor, u32_value};
use quantrs_formats::{FormatError, Imatrix, ImatrixSums};

fn refusal(bytes: &[u8]) -> String {
    Imatrix::from_bytes(bytes).unwrap_err().to_string()
}

fn says(bytes: &[u8], part: &str) {
    let message = refusal(bytes);
    assert!(message.contains(part), "'{part}' is not in: {message}");
}

fn i32s(values: &[i32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn legacy_entry(name: &str, calls: i32, values: &[f32]) -> Vec<u8> {
    [i32s(&[name.len() as i32]), name.into(), i32s(&[calls, values.len() as i32]), f32s(values)].concat()
}

/// A GGUF imatrix of the one weight "w": sums `[row_len, matrices]` and counts.
fn gguf(row_len: u64, sums: &[f32], counts: &[f32]) -> Vec<u8> {
    let counts_at = (4 * sums.len() as u64).next_multiple_of(32);
    let file = File {
        key_values: vec![
            key_value("imatrix.datasets", ARRAY, &array(STRING, 2, &[string("a.txt"), string(b"\xff")].concat())),
            u32_value("imatrix.chunk_count", 7),
            u32_value("imatrix.chunk_size", 512),
        ],
        tensors: vec![
            tensor("w.in_sum2", &[row_len, sums.len() as u64 / row_len], 0, 0),
            tensor("w.counts", &[1, counts.len() as u64], 0, counts_at),
        ],
        ..File::default()
    };
    let mut bytes = file.bytes();
    let data_at = bytes.len();
    bytes.extend(f32s(sums));
    bytes.resize(data_at + counts_at as usize, 0);
    bytes.extend(f32s(counts));
    bytes.resize(bytes.len().next_multiple_of(32), 0);
    bytes
}

#[test]
fn both_forms_of_the_real_tool_hold_the_same_weights() {
    let new = Imatrix::open(golden("tiny.imatrix.gguf")).unwrap();
    let old = Imatrix::open(golden("tiny.imatrix.dat")).unwrap();
    assert_eq!(new.names().len(), 7);
    assert_eq!(new.names(), old.names());
    assert_eq!(new.datasets(), old.datasets());
    assert_eq!(new.datasets(), [b"calib.txt".to_vec()]);
    assert_eq!((new.chunk_count(), old.chunk_count()), (3, 3));
    for name in new.names() {
        let (new, old) = (new.values(name).unwrap(), old.values(name).unwrap());
        assert_eq!(new.len(), old.len(), "{name}");
        // The tool scaled the legacy sums by calls / count, one more rounding each way.
        let worst = new.iter().zip(old).map(|(a, b)| ((a - b) / a).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-6, "{name}: {worst}");
    }
    assert_eq!(new.values("no.such.weight"), None);
}

#[test]
fn gguf_weights_are_sums_over_counts_and_one_where_nothing_was_counted() {
    let imatrix = Imatrix::from_bytes(&gguf(2, &[3.0, 1.0, 5.0, 7.0, 0.25, 0.5], &[3.0, 0.0, 0.5])).unwrap();
    // 0.5 rounds to 1, as lround does.
    assert_eq!(imatrix.values("w").unwrap(), [3.0 / 3.0, 1.0f32 / 3.0, 1.0, 1.0, 0.25, 0.5]);
    assert_eq!((imatrix.chunk_count(), imatrix.datasets()), (7, &[b"a.txt".to_vec(), b"\xff".to_vec()][..]));
}

#[test]
fn one_count_applies_to_all_matrices() {
    let imatrix = Imatrix::from_bytes(&gguf(2, &[2.0, 4.0, 6.0, 8.0], &[2.0])).unwrap();
    assert_eq!(imatrix.values("w").unwrap(), [1.0, 2.0, 3.0, 4.0]);
}

#[test]
fn gguf_statistics_that_cannot_be_are_refused() {
    for (bad, text) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (-1.0, "-1")] {
        says(&gguf(2, &[1.0, bad], &[1.0]), &format!("tensor 'w.in_sum2': value 1 is {text}"));
        says(&gguf(2, &[1.0, 1.0], &[bad]), &format!("tensor 'w.counts': value 0 is {text}"));
    }
    says(&gguf(3, &[1.0; 3], &[1.0, 1.0]), "2 counts for 3 sums");
}

#[test]
fn a_gguf_file_that_is_no_imatrix_is_refused() {
    says(&golden_bytes("tiny-f16.gguf"), "no such key, expected a GGUF imatrix");
    let mut without_partner = gguf(2, &[1.0, 2.0], &[1.0]);
    let at = without_partner.windows(8).position(|w| w == b"w.counts").unwrap();
    without_partner[at] = b'v';
    says(&without_partner, "no tensor 'w.counts' to go with it");
    let at = without_partner.windows(9).position(|w| w == b"w.in_sum2").unwrap();
    without_partner[at + 2] = b'x';
    says(&without_partner, "no tensor 'v.in_sum2' to go with it");
    let keys = [array(STRING, 0, b""), 1u32.to_le_bytes().to_vec(), 1u32.to_le_bytes().to_vec()];
    let names = ["imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size"];
    let codes = [ARRAY, U32, U32];
    let key_values = (0..3).map(|i| key_value(names[i], codes[i], &keys[i])).collect();
    says(&File { key_values, ..File::default() }.bytes(), "0 tensors, none named *.in_sum2");
}

#[test]
fn a_gguf_imatrix_of_another_tensor_type_is_refused() {
    let mut bytes = gguf(2, &[1.0, 2.0], &[1.0]);
    let name_at = bytes.windows(9).position(|w| w == b"w.in_sum2").unwrap();
    bytes[name_at + 9 + 4 + 16] = 26;
    says(&bytes, "tensor 'w.in_sum2': found type I32, expected type F32");
}

#[test]
fn legacy_weights_are_values_over_calls_or_the_values_themselves() {
    let entries =
        [legacy_entry("a", 4, &[2.0, 0.0]), legacy_entry("b", 0, &[2.0]), legacy_entry("c", -3, &[5.0])].concat();
    let imatrix = Imatrix::from_bytes(&[i32s(&[3]), entries].concat()).unwrap();
    assert_eq!(imatrix.names(), ["a", "b", "c"]);
    assert_eq!(imatrix.values("a").unwrap(), [0.5, 0.0]);
    assert_eq!(imatrix.values("b").unwrap(), [2.0]);
    assert_eq!(imatrix.values("c").unwrap(), [5.0]);
    assert_eq!((imatrix.chunk_count(), imatrix.datasets().len()), (0, 0));
}

#[test]
fn the_legacy_tail_may_be_missing_in_part() {
    let body = [i32s(&[1]), legacy_entry("a", 1, &[1.0])].concat();
    let with_chunks = Imatrix::from_bytes(&[body.clone(), i32s(&[9])].concat()).unwrap();
    assert_eq!((with_chunks.chunk_count(), with_chunks.datasets().len()), (9, 0));
    let whole = Imatrix::from_bytes(&[body.clone(), i32s(&[9, 5]), b"x.txt".to_vec()].concat()).unwrap();
    assert_eq!(whole.datasets(), [b"x.txt".to_vec()]);
    says(&[body.clone(), i32s(&[9, 6]), b"x.txt".to_vec()].concat(), "data set name: needs 6 bytes");
    says(&[body, b"\x01\x02".to_vec()].concat(), "chunk count: needs 4 bytes");
}

#[test]
fn legacy_truncation_at_every_byte_is_refused() {
    let bytes = golden_bytes("tiny.imatrix.dat");
    let tail = 4 + 4 + "calib.txt".len();
    for n in 0..bytes.len() {
        match Imatrix::from_bytes(&bytes[..n]) {
            Err(FormatError::Truncated { place, left, .. }) => assert_eq!(place.offset + left, n as u64),
            Err(other) => panic!("at {n}: {other}"),
            Ok(_) => assert!(n == bytes.len() - tail || n == bytes.len() - tail + 4, "at {n}"),
        }
    }
}

#[test]
fn legacy_counts_that_cannot_be_are_refused() {
    for bad in [0, -1, i32::MIN] {
        says(&i32s(&[bad]), &format!("entry count: found {bad}"));
        says(&[i32s(&[1, bad]), vec![0; 64]].concat(), &format!("name length of entry 0: found {bad}"));
        says(
            &[i32s(&[1, 1]), b"a".to_vec(), i32s(&[1, bad]), vec![0; 64]].concat(),
            &format!("value count of 'a': found {bad}"),
        );
    }
    says(&i32s(&[i32::MAX]), "the entries: needs");
    says(&[i32s(&[1, 5000]), vec![b'a'; 6000]].concat(), "found 5000, expected a number from 1 to 4096");
    says(
        &[i32s(&[1, 1]), b"a".to_vec(), i32s(&[1, i32::MAX]), vec![0; 64]].concat(),
        "values of 'a': needs 8589934588 bytes",
    );
}

#[test]
fn legacy_names_must_be_utf8_and_unique() {
    says(
        &[i32s(&[1, 2]), b"a\xff".to_vec(), i32s(&[1, 1]), f32s(&[1.0])].concat(),
        "name of entry 0: found the bytes \"a\\xff\"",
    );
    let entries = [legacy_entry("a", 1, &[1.0]), legacy_entry("a", 1, &[1.0])].concat();
    says(&[i32s(&[2]), entries].concat(), "found 'a' a second time (first at byte 4)");
}

#[test]
fn legacy_statistics_that_cannot_be_are_refused() {
    for (bad, text) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf"), (-0.5, "-0.5")] {
        says(&[i32s(&[1]), legacy_entry("a", 1, &[1.0, bad])].concat(), &format!("values of 'a': value 1 is {text}"));
    }
}

#[test]
fn a_large_file_that_is_no_imatrix_is_refused_from_its_first_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("huge.bin");
    let file = std::fs::File::create(&path).unwrap();
    // Sparse: reading it whole would need 1 TiB of memory.
    file.set_len(1 << 40).unwrap();
    let message = Imatrix::open(&path).unwrap_err().to_string();
    assert!(message.contains("entry count: found 0"), "{message}");
}

#[test]
fn sums_are_written_as_the_real_tool_writes_them() {
    let mut sums = ImatrixSums::new(512);
    sums.merge(golden("tiny.imatrix.gguf")).unwrap();
    assert_eq!(sums.to_gguf().unwrap(), golden_bytes("tiny.imatrix.gguf"));
    assert_eq!(sums.to_legacy(), golden_bytes("tiny.imatrix.dat"));
}

#[test]
fn experts_are_summed_apart_and_a_common_count_is_each_ones() {
    let mut sums = ImatrixSums::new(2);
    sums.expect("w", 2, 3).unwrap();
    assert!(sums.add_rows("w", 1, &[1.0, 2.0, 3.0, 0.0, -1.0, 1.0]));
    assert!(!sums.add_rows("w", 1, &[f32::MAX, 0.0, 0.0]));
    assert_eq!(sums.counts().collect::<Vec<_>>(), [("w", &[0, 3][..])]);
    let message = sums.expect("w", 2, 4).unwrap_err().to_string();
    assert!(message.contains("2 counts and 6 sums") && message.contains("one model alone"), "{message}");
    sums.expect("dense", 1, 4).unwrap();
    sums.add_rows("dense", 0, &[0.0; 8]);
    sums.expect("dense", 2, 2).unwrap();
    assert_eq!(sums.counts().next(), Some(("dense", &[2, 2][..])));
}

#[test]
fn sums_go_on_from_their_state_as_if_nothing_had_happened() {
    let empty = || {
        let mut sums = ImatrixSums::new(2);
        sums.expect("w", 2, 3).unwrap();
        sums
    };
    let (mut whole, mut again) = (empty(), empty());
    whole.add_rows("w", 1, &[0.1, 0.2, 0.3]);
    whole.end_sequence();
    let state = whole.state();
    assert!(again.restore(&state));
    assert_eq!(again.n_sequences(), 1);
    for sums in [&mut whole, &mut again] {
        sums.add_rows("w", 0, &[0.7, 0.8, 0.9]);
    }
    assert_eq!(whole.state(), again.state());
    let mut bad = state.clone();
    bad[8..16].copy_from_slice(&f64::NAN.to_le_bytes());
    for wrong in [&state[1..], &[], &bad] {
        assert!(!again.restore(wrong));
    }
    assert_eq!(whole.state(), again.state());
}
