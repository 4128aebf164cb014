//! What people see: transcripts that are documentation as well. None of them needs a cluster.
#![allow(missing_docs)]

#[test]
fn transcripts_are_true() {
    let cases = trycmd::TestCases::new();
    cases.insert_var("[VERSION]", env!("CARGO_PKG_VERSION")).expect("a variable");
    cases.case("tests/cmd/*.md").env("NO_COLOR", "1").env("HOME", "/nonexistent");
}
