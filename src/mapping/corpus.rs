//! Test data of tests/corpora.

use std::path::PathBuf;

/// A file or folder of the corpora. Fails where it is missing: a test that reads nothing proves nothing.
pub(super) fn path(name: &str) -> PathBuf {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpora")).join(name);
    assert!(
        path.exists(),
        "the test corpora are not there: {}",
        path.display()
    );
    path
}

/// A JSON file of the corpora.
pub(super) fn cases(name: &str) -> serde_json::Value {
    crate::json::tree(&std::fs::read_to_string(path(name)).unwrap()).unwrap()
}
