//! The unit files of the guide and of the README are taken or refused as they say.
//!
//! A block that begins with ```` ```systemd NAME ```` is a valid unit file of that name. One that begins with
//! ```` ```systemd refused NAME ```` is refused, in the words of the ```` ```text ```` block right after it.

// What these tests share says what must hold in the shortest way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{fs, path::Path};

use flotilla_units::{Problems, UnitFile, UnitName};

/// A fenced block: what stands behind the fence, and the text inside.
struct Block {
    info: String,
    text: String,
}

fn blocks_of(page: &str) -> Vec<Block> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(page);
    let page = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for line in page.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(info), None) => open = Some(Block { info: info.to_owned(), text: String::new() }),
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(block)) => block.text += &format!("{line}\n"),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block is never closed");
    blocks
}

fn check(name: &str, text: &str) -> Result<(), Problems> {
    let unit: UnitName = name.parse().unwrap_or_else(|e| panic!("{name}: {e}"));
    UnitFile::parse(name, text.as_bytes())?.validate(&unit).map(drop)
}

#[test]
fn unit_files_of_the_guide_are_taken_or_refused_as_it_says() {
    let blocks = blocks_of("docs/guide/unit-files.md");
    let (mut taken, mut refused) = (0, 0);
    for (at, block) in blocks.iter().enumerate() {
        let words: Vec<&str> = block.info.split(' ').collect();
        match words[..] {
            ["systemd", "refused", name] => {
                refused += 1;
                let problems = check(name, &block.text).expect_err(name);
                let said = &blocks[at + 1];
                assert_eq!(said.info, "text", "what is said about {name} follows it");
                assert_eq!(problems.render(), said.text.trim_end(), "{name}");
            }
            ["systemd", name] => {
                taken += 1;
                if let Err(problems) = check(name, &block.text) {
                    panic!("{}", problems.render());
                }
            }
            ["text"] => {}
            _ => panic!("`{}` is no kind of block that is tested", block.info),
        }
    }
    assert!(taken >= 7 && refused >= 5, "{taken} taken, {refused} refused: has the page changed its form?");
}

#[test]
fn the_readmes_unit_file_is_taken() {
    let blocks = blocks_of("README.md");
    let block = blocks.iter().find(|b| b.info == "systemd web@.service").unwrap();
    if let Err(problems) = check("web@.service", &block.text) {
        panic!("{}", problems.render());
    }
}
