//! Pages of documentation as scripts: what they show somebody type, and what they show it prints.
//!
//! A page's `console` blocks are read in order. A line that begins with `$ ` is typed, lines that begin
//! with `> ` go on with it, and what follows is what is printed. `[..]` stands for any text of a line,
//! and a line `...` for any lines, where machines' ids, times and the like are not what is meant.

use std::fmt::Write as _;

/// One command of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The line of the page that it begins at, from 1.
    pub line: usize,
    /// What is typed, in several lines perhaps.
    pub command: String,
    /// What is printed.
    pub printed: Vec<String>,
}

/// Returns the commands of a page.
#[must_use]
pub fn steps(page: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut inside = false;
    for (at, line) in page.lines().enumerate() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if let Some(command) = line.strip_prefix("$ ").filter(|_| inside) {
            steps.push(Step { line: at + 1, command: command.to_owned(), printed: Vec::new() });
        } else if let Some(step) = steps.last_mut().filter(|_| inside) {
            match line.strip_prefix("> ").or_else(|| (line == ">").then_some("")) {
                Some(more) if step.printed.is_empty() => {
                    step.command.push('\n');
                    step.command.push_str(more);
                }
                _ => step.printed.push(line.to_owned()),
            }
        }
    }
    steps
}

/// Tells whether what was printed is what the page says.
#[must_use]
pub fn is_printed(step: &Step, output: &str) -> bool {
    let lines: Vec<&str> = output.lines().map(str::trim_end).collect();
    let page: Vec<&str> = step.printed.iter().map(|line| line.trim_end()).collect();
    // Blank lines at the end are the page's layout.
    let trimmed = |lines: &[&str]| lines.iter().rposition(|line| !line.is_empty()).map_or(0, |last| last + 1);
    lines_match(&page[..trimmed(&page)], &lines[..trimmed(&lines)])
}

fn lines_match(page: &[&str], lines: &[&str]) -> bool {
    match page.split_first() {
        None => lines.is_empty(),
        Some((&"...", rest)) => (0..=lines.len()).any(|skip| lines_match(rest, &lines[skip..])),
        Some((first, rest)) => lines
            .split_first()
            .is_some_and(|(line, others)| line_matches(first, line) && lines_match(rest, others)),
    }
}

fn line_matches(page: &str, line: &str) -> bool {
    let mut parts = page.split("[..]");
    let Some(mut rest) = parts.next().and_then(|first| line.strip_prefix(first)) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// Returns the page with what was printed, command by command, in place of what it does not say rightly.
#[must_use]
pub fn rewritten(page: &str, outputs: &[String]) -> String {
    let steps = steps(page);
    let mut text = String::new();
    let mut steps = steps.iter().zip(outputs).peekable();
    let mut printed = false;
    for (at, line) in page.lines().enumerate() {
        let ends = line.starts_with("```");
        if let Some((step, output)) = steps.next_if(|(step, _)| step.line == at + 1) {
            let said = step.printed.join("\n");
            let shown = if is_printed(step, output) { said.as_str() } else { output.trim_end() };
            let command = step.command.replace("\n", "\n> ").replace("> \n", ">\n");
            let _ = writeln!(text, "$ {command}");
            if !shown.is_empty() || step.printed.iter().any(String::is_empty) {
                let _ = writeln!(text, "{shown}");
            }
            printed = true;
        } else if ends || !printed {
            let _ = writeln!(text, "{line}");
            printed = false;
        }
    }
    text
}

/// Says how what was printed differs from the page, for whoever mends either.
#[must_use]
pub fn difference(step: &Step, output: &str) -> String {
    let mut text = format!("line {}: $ {}\n-- the page says:\n", step.line, step.command);
    for line in &step.printed {
        let _ = writeln!(text, "{line}");
    }
    let _ = write!(text, "-- printed was:\n{output}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "Text\n```console\n$ cat > a <<EOF\n> one\n>\n> two\n> EOF\n$ list\nA  [..]  x\n...\nend\n\n```\n\
                        ```ini\n$ not this\n```\n";

    #[test]
    fn a_page_is_read_as_it_is_shown() {
        let steps = steps(PAGE);
        assert_eq!(steps.len(), 2);
        assert_eq!(steps[0].command, "cat > a <<EOF\none\n\ntwo\nEOF");
        assert_eq!((steps[1].line, steps[1].printed.len()), (8, 4));
    }

    #[test]
    fn a_page_is_rewritten_where_it_is_wrong() {
        let outputs = |list: &str| [String::new(), list.to_owned()];
        assert_eq!(
            rewritten(PAGE, &outputs("A 1  x\nend\n")),
            PAGE.replace("A  [..]  x\n...\nend\n\n", "A 1  x\nend\n")
        );
        assert_eq!(rewritten(PAGE, &outputs("A  1  x\nend\n")), PAGE);
    }

    #[test]
    fn what_is_printed_matches_line_by_line() {
        let list = &steps(PAGE)[1];
        for good in ["A  1  x\nend\n", "A  1 2  x\nmore\nand more\nend"] {
            assert!(is_printed(list, good), "{good}");
        }
        for bad in ["", "A  1  x\n", "A  1  y\nend", "A  1  x\nend\nmore", "B  1  x\nend"] {
            assert!(!is_printed(list, bad), "{bad}");
        }
        let exact = Step { line: 1, command: String::new(), printed: vec!["a".to_owned()] };
        assert!(is_printed(&exact, "a  \n") && !is_printed(&exact, "ab\n"));
    }
}
