//! Differences of texts for people, as `diff -u` shows them.

use similar::TextDiff;

use crate::{paint, print, text};

/// Where a text comes from that the cluster's is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Other {
    /// A folder of unit files.
    Folder,
    /// What a person has just written in an editor.
    Edited,
}

/// Prints how a text of the cluster's changes: it is new, or it goes, where one side is missing.
pub(crate) fn print(
    name: &str,
    before: Option<&str>,
    after: Option<&str>,
    other: Other,
) -> std::io::Result<()> {
    for line in lines(name, before, after, other) {
        match line.as_bytes().first() {
            Some(b'+') => print::line(paint::good(&line))?,
            Some(b'-') => print::line(paint::bad(&line))?,
            _ => print::line(line)?,
        }
    }
    Ok(())
}

/// Returns the lines, without the characters that would do something to a terminal.
fn lines(name: &str, before: Option<&str>, after: Option<&str>, other: Other) -> Vec<String> {
    let side = |text: Option<&str>, of: &str| match text {
        Some(_) => format!("{of}/{name}"),
        None => "/dev/null".to_owned(),
    };
    let other = match other {
        Other::Folder => "folder",
        Other::Edited => "edited",
    };
    let (from, to) = (side(before, "cluster"), side(after, other));
    let difference = TextDiff::from_lines(before.unwrap_or_default(), after.unwrap_or_default());
    let shown = difference.unified_diff().header(&from, &to).to_string();
    shown.lines().map(text::one_line).map(|line| line.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_line_is_shown_with_its_neighbours() {
        let lines = |other| {
            super::lines("a.service", Some("[Service]\nNice=1\n"), Some("[Service]\nNice=2\n"), other)
        };
        assert_eq!(
            lines(Other::Folder),
            [
                "--- cluster/a.service",
                "+++ folder/a.service",
                "@@ -1,2 +1,2 @@",
                " [Service]",
                "-Nice=1",
                "+Nice=2"
            ]
        );
        assert_eq!(lines(Other::Edited)[..2], ["--- cluster/a.service", "+++ edited/a.service"]);
    }

    #[test]
    fn what_is_new_has_no_other_side() {
        let lines = lines("a.service", None, Some("[Service]\n"), Other::Folder);
        assert_eq!(lines[0], "--- /dev/null");
        assert_eq!(lines.last().map(String::as_str), Some("+[Service]"));
    }
}
