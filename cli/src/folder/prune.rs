//! Whether a folder is certain enough to take away by what it does not have.
//!
//! A folder that is missing a unit says the same as one whose unit was taken out. So `--prune` is taken only
//! where the set was named by a person, there are unit files at all, and no file may be one that was mistyped.

use std::{fs, path::Path, path::PathBuf};

use flotilla_units::UnitType;

use super::Folder;

/// The sections by whose first line a file is known as one for systemd: those of the types of units that there
/// are, and flotilla's and fleet's own.
const SECTIONS: [&str; 14] = [
    "Unit",
    "Install",
    "Service",
    "Socket",
    "Timer",
    "Path",
    "Mount",
    "Automount",
    "Swap",
    "Slice",
    "Scope",
    "Target",
    "X-Flotilla",
    "X-Fleet",
];

/// How many bytes of a file are looked at for its first section: more than people write above it.
const HEAD_BYTES: usize = 16 * 1024;

/// Why nothing may be taken away.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CannotPrune {
    /// Nobody said which set it is.
    #[error(
        "--prune destroys what the set made, and nobody said which set {folder} is: `{set}` is only the folder's \
         name, and another folder may have it too; expected `set = \"NAME\"` in its flotilla.toml, or --set NAME"
    )]
    Unnamed {
        /// The folder.
        folder: String,
        /// Its name.
        set: String,
    },
    /// There is nothing in it.
    #[error(
        "there is no unit file in {folder}, and --prune would destroy all that the set `{set}` made; if that is \
         meant, `flotctl destroy` does it. Was it checked out?"
    )]
    Empty {
        /// The folder.
        folder: String,
        /// The set.
        set: String,
    },
    /// What looks like a unit is none.
    #[error(
        "{} looks like a unit file and has no unit's name, and --prune might destroy the unit that it is meant to \
         be; expected NAME.service or another type, or a name that begins with a dot",
        .0.display()
    )]
    LooksLikeUnit(PathBuf),
}

impl Folder {
    /// Checks that what the folder does not have may be destroyed.
    pub(crate) fn may_prune(&self, path: &Path) -> Result<(), CannotPrune> {
        let (folder, set) = (path.display().to_string(), self.set.clone());
        if !self.set_is_named {
            return Err(CannotPrune::Unnamed { folder, set });
        }
        if self.files.is_empty() {
            return Err(CannotPrune::Empty { folder, set });
        }
        match self.ignored.iter().find(|path| looks_like_a_unit(path)) {
            Some(path) => Err(CannotPrune::LooksLikeUnit(path.clone())),
            None => Ok(()),
        }
    }
}

/// Tells whether a file that is no unit may have been meant as one: by its name, or by how it begins.
fn looks_like_a_unit(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    // `web.service.bak`, `web.sevice`.
    let by_name = name.split(['.', '~']).skip(1).any(is_nearly_a_type);
    by_name || begins_as_a_unit(path)
}

/// Tells whether a word is a unit's type, but for one letter that is missing, too many, another or exchanged
/// with the next.
fn is_nearly_a_type(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    // Of a short word one letter more makes another word: `.pat`, `.swab`.
    let types = UnitType::ALL.iter().map(|kind| kind.suffix());
    types.into_iter().any(|kind| word == kind || (kind.len() > 4 && is_one_edit_away(&word, kind)))
}

fn is_one_edit_away(one: &str, other: &str) -> bool {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let same = one.iter().zip(&other).take_while(|(a, b)| a == b).count();
    let (rest, of_other) = (&one[same..], &other[same..]);
    let swapped = matches!((rest, of_other), ([a, b, more @ ..], [c, d, others @ ..])
        if (a, b) == (d, c) && more == others);
    let without = |letters: &[char]| letters.get(1..).map(<[char]>::to_vec).unwrap_or_default();
    swapped
        || without(rest) == of_other
        || rest == without(of_other)
        || (!rest.is_empty() && !of_other.is_empty() && without(rest) == without(of_other))
}

/// Tells whether the first line of a file that says anything is the head of a section of unit files. One that
/// cannot be read as text is none.
fn begins_as_a_unit(path: &Path) -> bool {
    let Ok(mut bytes) = fs::read(path) else { return false };
    bytes.truncate(HEAD_BYTES);
    let text = String::from_utf8_lossy(&bytes);
    let mut lines =
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', ';']));
    let first = lines.next().and_then(|line| line.strip_prefix('[')?.strip_suffix(']'));
    first.is_some_and(|section| SECTIONS.iter().any(|known| section.eq_ignore_ascii_case(known)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_been_meant_as_a_unit_is_known_by_its_name_or_its_first_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            looks_like_a_unit(&path)
        };
        for name in
            ["web.sevice", "web.srevice", "web.services", "web.Service", "web.service.bak", "web.service~"]
        {
            assert!(file(name, "x"), "{name}");
        }
        for name in ["README.md", "Makefile", "web.txt", "notes.pat", "serve.sh", "web.json", "a.servant"] {
            assert!(!file(name, "text\n[Service]\n"), "{name}");
        }
        assert!(file("web", "\n# the shop's\n[Unit]\nDescription=x\n"));
        assert!(file("10.conf", "[service]\nNice=5\n"));
        assert!(!file("Cargo.toml", "[package]\nname = 'x'\n"));
    }
}
