//! The page in the repository is what its samples give, and it can be found.

use std::fs;

use flotilla_figures::page::{self, root};

#[test]
fn the_page_is_what_the_samples_give() {
    if std::env::var_os("UPDATE_DOCS").is_some() {
        page::write(root()).expect("written");
    }
    for (path, text) in page::files(root()).expect("the page") {
        let kept = fs::read_to_string(&path).unwrap_or_default();
        assert!(kept == text, "{} is stale; run `cargo xtask bench report` and commit it", path.display());
    }
}

#[test]
fn the_page_is_linked_from_the_readme() {
    let readme = fs::read_to_string(root().join("README.md")).expect("README.md");
    assert!(readme.contains("(docs/performance.md)"));
}

/// A picture that no chart makes any more would stay for ever.
#[test]
fn every_picture_is_of_a_chart() {
    let files = page::files(root()).expect("the page");
    for entry in fs::read_dir(root().join("docs/performance")).expect("the folder") {
        let path = entry.expect("an entry").path();
        let is_picture = path.extension().is_some_and(|extension| extension == "svg");
        assert!(!is_picture || files.contains_key(&path), "{} belongs to no chart", path.display());
    }
}
