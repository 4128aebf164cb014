//! The committed OpenAPI document, and the reference made of it, are what the code makes.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "openapi/reference.rs"]
mod reference;

use std::{fs, path::Path};

fn check(file: &str, made: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        fs::write(&path, made).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == made,
        "{file} is stale; run `UPDATE_OPENAPI=1 cargo test -p flotilla-server --test openapi` and commit it"
    );
}

#[test]
fn the_committed_document_is_the_codes() {
    check("api/openapi.json", &(flotilla_server::openapi().to_pretty_json().unwrap() + "\n"));
}

#[test]
fn the_committed_reference_is_the_documents() {
    let document = serde_json::to_value(flotilla_server::openapi()).unwrap();
    check("docs/api.md", &reference::page(&document));
}
