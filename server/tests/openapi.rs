//! The committed OpenAPI document is the one that the code makes.
#![allow(missing_docs, clippy::unwrap_used)]

use std::{fs, path::Path};

#[test]
fn the_committed_document_is_the_codes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../api/openapi.json");
    let made = flotilla_server::openapi().to_pretty_json().unwrap() + "\n";
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        fs::write(&path, &made).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == made,
        "api/openapi.json is stale; run `UPDATE_OPENAPI=1 cargo test -p flotilla-server --test openapi` and \
         commit it"
    );
}
