//! What a misspelt word may have been meant to be.

/// Returns the candidate nearest to a word, if one is near enough: the same but for upper and lower
/// case, or at most one edit for every four characters, two in all.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Longer words are not misspelt options, and the cost below is the product of both lengths.
    const LONGEST: usize = 64;
    if word.len() > LONGEST {
        return None;
    }
    let allowed = (word.chars().count() / 4).clamp(1, 2);
    let distance = |c: &str| if c.eq_ignore_ascii_case(word) { 0 } else { edits(word, c) };
    let near = candidates.into_iter().map(|c| (distance(c), c)).filter(|(d, _)| *d <= allowed);
    near.min_by_key(|(d, _)| *d).map(|(_, c)| c)
}

/// The Levenshtein distance.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let changed = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_edits() {
        for (a, b, want) in [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("flaw", "lawn", 2)] {
            assert_eq!(edits(a, b), want);
            assert_eq!(edits(b, a), want);
        }
    }

    #[test]
    fn suggests_only_what_is_near() {
        let options = ["Conflicts", "MachineOf", "Global"];
        assert_eq!(nearest("Conflict", options), Some("Conflicts"));
        assert_eq!(nearest("machineof", options), Some("MachineOf"));
        assert_eq!(nearest("MachineIn", options), Some("MachineOf"));
        assert_eq!(nearest("Restart", options), None);
        assert_eq!(nearest(&"x".repeat(1000), options), None);
    }
}
