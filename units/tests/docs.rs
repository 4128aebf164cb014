//! The unit files of the reference and of the README are taken or refused as they say, and every option is in
//! the reference and in the manual page.
//!
//! A block that begins with ```` ```systemd NAME ```` is a valid unit file of that name. One that begins with
//! ```` ```systemd refused NAME ```` is refused, in the words of the ```` ```text ```` block right after it.

// What these tests share says what must hold in the shortest way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{fs, path::Path};

use flotilla_units::{Problems, UnitFile, UnitName, option_names};

/// A fenced block: what stands behind the fence, and the text inside.
struct Block {
    info: String,
    text: String,
}

fn read(page: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(page);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn blocks_of(page: &str) -> Vec<Block> {
    let page = read(page);
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
fn unit_files_of_the_reference_are_taken_or_refused_as_it_says() {
    let blocks = blocks_of("docs/unit-file.md");
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
    assert!(taken >= 22 && refused >= 7, "{taken} taken, {refused} refused: has the page changed its form?");
}

#[test]
fn every_option_has_a_chapter_with_an_example_and_a_line_in_the_overview_and_the_manual() {
    let page = "docs/unit-file.md";
    let (text, manual) = (read(page), read("docs/man/flotilla.unit.5"));
    let blocks = blocks_of(page);
    for option in option_names() {
        let chapters = text.lines().filter(|line| *line == format!("### {option}=")).count();
        assert_eq!(chapters, 1, "{page} has {chapters} chapters about {option}=");
        let overview = format!("| [`{option}=`](#{}) |", option.to_lowercase());
        assert!(text.contains(&overview), "{page} lacks {option}= in its overview");
        let taken = |block: &&Block| block.info.starts_with("systemd ") && !block.info.contains(" refused ");
        let used = |block: &Block| block.text.lines().any(|line| line.starts_with(&format!("{option}=")));
        assert!(blocks.iter().filter(taken).any(used), "{page} has no example with {option}=");
        assert!(manual.contains(&format!("\n.I {option}=\n")), "flotilla.unit(5) lacks {option}=");
    }
}

#[test]
fn unit_files_of_other_pages_are_taken() {
    for (page, count) in [("README.md", 1), ("docs/getting-started.md", 2)] {
        let blocks = blocks_of(page);
        let files: Vec<_> =
            blocks.iter().filter_map(|b| Some((b.info.strip_prefix("systemd ")?, &b.text))).collect();
        assert_eq!(files.len(), count, "{page}");
        for (name, text) in files {
            if let Err(problems) = check(name, text) {
                panic!("{page}: {}", problems.render());
            }
        }
    }
}
