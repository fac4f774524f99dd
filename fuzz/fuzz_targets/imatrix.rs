//! Any bytes: refused, or finite weights of at least 0 under every name.
#![no_main]

use libfuzzer_sys::fuzz_target;
use quantrs_formats::Imatrix;

fuzz_target!(|bytes: &[u8]| {
    let Ok(imatrix) = Imatrix::from_bytes(bytes) else { return };
    for name in imatrix.names() {
        let weights = imatrix.values(name).expect("every name has weights");
        assert!(!weights.is_empty() && weights.len() <= bytes.len());
        assert!(weights.iter().all(|w| w.is_finite() && *w >= 0.0));
    }
});
