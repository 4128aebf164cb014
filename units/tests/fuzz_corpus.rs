//! Replays the fuzz target's corpus: every input that was ever worth keeping.

use std::{fs, path::Path};

#[test]
fn the_corpus_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 12, "the corpus has {} files only", files.len());
    for path in files {
        let bytes = fs::read(&path).unwrap();
        // Whole, and cut off anywhere: a file that was written in part is somebody's input too.
        for end in (0..=bytes.len()).step_by(bytes.len() / 64 + 1).chain([bytes.len()]) {
            println!("{} up to byte {end}", path.display());
            flotilla_units::fuzz(&bytes[..end]);
        }
    }
}
