//! Parsers never hold more than a constant times the file, whatever the file claims to contain.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use quantrs_formats::{GgufFile, Imatrix};

/// Counts the bytes that this thread holds (negative: it freed what others allocated), and the most it ever held.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

// SAFETY: every call is passed on to the system's allocator unchanged; the counters are plain cells of this thread.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.set(HELD.get() + layout.size() as isize);
        PEAK.set(PEAK.get().max(HELD.get()));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.set(HELD.get() - layout.size() as isize);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most that was held on top of what was held before.
fn peak_bytes(work: impl FnOnce()) -> usize {
    let before = HELD.get();
    PEAK.set(before);
    work();
    (PEAK.get() - before) as usize
}

/// Header of version 3 with these counts, then `body` over and over up to about a MB.
fn repeated(n_tensors: u64, n_key_values: u64, body: impl Fn(u64) -> Vec<u8>) -> Vec<u8> {
    let mut out = b"GGUF\x03\0\0\0".to_vec();
    out.extend(n_tensors.to_le_bytes());
    out.extend(n_key_values.to_le_bytes());
    for i in 0..n_tensors.max(n_key_values).min(40_000) {
        out.extend(body(i));
    }
    out
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

/// A key/value with a one-byte value.
fn small_key_value(i: u64) -> Vec<u8> {
    [&string(&format!("{i:x}"))[..], &[0; 5]].concat()
}

/// A tensor of unknown type without dimensions.
fn small_tensor(i: u64) -> Vec<u8> {
    [&string(&format!("{i:x}"))[..], &0u32.to_le_bytes(), &99u32.to_le_bytes(), &(32 * i).to_le_bytes()].concat()
}

#[test]
fn gguf_headers_never_take_more_than_a_constant_times_the_file() {
    let claims = [u64::MAX, 1 << 62, 1 << 40, 1 << 33];
    let mut files: Vec<Vec<u8>> = Vec::new();
    for claim in claims {
        files.push(repeated(claim, 0, small_tensor));
        files.push(repeated(0, claim, small_key_value));
        let long_string = [&string("k")[..], &8u32.to_le_bytes(), &claim.to_le_bytes(), &[0; 64]].concat();
        files.push(repeated(0, 1, |_| long_string.clone()));
        let long_array =
            [&string("k")[..], &9u32.to_le_bytes(), &8u32.to_le_bytes(), &claim.to_le_bytes(), &[0; 64]].concat();
        files.push(repeated(0, 1, |_| long_array.clone()));
    }
    files.push(repeated(0, 40_000, small_key_value));
    files.push(repeated(40_000, 0, small_tensor));
    for (i, file) in files.iter().enumerate() {
        let peak = peak_bytes(|| drop(GgufFile::from_bytes(file)));
        assert!(peak < 16 * file.len() + 4096, "file {i}: {peak} bytes held for a file of {}", file.len());
    }
}

#[test]
fn imatrix_files_never_take_more_than_a_constant_times_the_file() {
    let entry = |i: u32| {
        let name = format!("{i:x}");
        let head = [&(name.len() as u32).to_le_bytes()[..], name.as_bytes(), &1u32.to_le_bytes(), &1u32.to_le_bytes()]
            .concat();
        [&head[..], &1f32.to_le_bytes()].concat()
    };
    let entries: Vec<u8> = (0..40_000).flat_map(entry).collect();
    for claim in [40_000, 50_000, i32::MAX as u32] {
        let file = [&claim.to_le_bytes()[..], &entries].concat();
        let peak = peak_bytes(|| drop(Imatrix::from_bytes(&file)));
        assert!(peak < 32 * file.len(), "{claim}: {peak} bytes held for a file of {}", file.len());
    }
    let long =
        [&1u32.to_le_bytes()[..], &1u32.to_le_bytes(), b"a", &1u32.to_le_bytes(), &i32::MAX.to_le_bytes(), &[0; 64]]
            .concat();
    let peak = peak_bytes(|| drop(Imatrix::from_bytes(&long)));
    assert!(peak < 4096, "{peak}");
}
