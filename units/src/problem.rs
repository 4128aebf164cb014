//! What is wrong with a unit file, said so that the reader can mend it.
//!
//! Owns the errors that have a place in a file and how they are shown. It finds
//! none of them itself.

use std::{fmt, sync::Arc};

use crate::{GlobError, MAX_BYTES, MAX_VALUES, NameError, UnitType};

/// How many problems of one file are told; the rest is counted. More than a screen helps nobody, and
/// the place of each one costs a walk through the file.
pub const MAX_PROBLEMS: usize = 50;

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProblemKind {
    /// The file is larger than [`MAX_BYTES`].
    #[error(
        "the unit file has {bytes} bytes, and at most {MAX_BYTES} are allowed; large content belongs into a file \
         of its own on the machine"
    )]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The file is not UTF-8.
    #[error("byte {at} (0x{byte:02x}) is not UTF-8; save the file as UTF-8")]
    NotUtf8 {
        /// How many bytes before it are good.
        at: usize,
        /// The byte.
        byte: u8,
    },
    /// The file has a NUL byte.
    #[error("byte {at} is NUL; expected text")]
    Nul {
        /// How many bytes are before it.
        at: usize,
    },
    /// A line begins with `[` and is not a section header.
    #[error("this is not a section header; expected `[` and a name and `]` alone on the line")]
    BadHeader,
    /// An assignment before the first section header.
    #[error("this stands before the first section header; expected for example [Unit] above it")]
    OutsideSection,
    /// A line that is neither a comment nor a header nor an assignment.
    #[error("this line has no `=`; expected `Option=value`, a [Section] header, or a comment (`#` or `;`)")]
    NoEquals,
    /// An assignment to nothing.
    #[error("there is no option name before the `=`")]
    NoOption,
    /// A section that systemd would ignore in this unit.
    #[error("a {unit_type} unit has no section [{section}], systemd would ignore it{}", instead(expected))]
    WrongSection {
        /// The section's name.
        section: String,
        /// The type that the unit's name says.
        unit_type: UnitType,
        /// What may have been meant.
        expected: Option<String>,
    },
    /// The section that gives the unit its meaning is missing.
    #[error("a {unit_type} unit needs a section [{section}], and there is none")]
    MissingSection {
        /// The section's name.
        section: &'static str,
        /// The type that the unit's name says.
        unit_type: UnitType,
    },
    /// Units of this type are not made from files.
    #[error("{unit_type} units are not made from unit files; systemd makes them itself ({page})")]
    NoFiles {
        /// The type that the unit's name says.
        unit_type: UnitType,
        /// The manual page that says so.
        page: &'static str,
    },
    /// Both spellings of our section.
    #[error("[X-Flotilla] and [X-Fleet] are the same section; keep one of them")]
    BothSections,
    /// An option of our section that does not exist.
    #[error("[{section}] has no option `{option}`{}", instead_of_all(suggestion))]
    UnknownOption {
        /// The section as it is written.
        section: String,
        /// The option as it is written.
        option: String,
        /// What may have been meant.
        suggestion: Option<String>,
    },
    /// A value that the option does not take.
    #[error("{option}= does not take `{value}`: {why}")]
    BadValue {
        /// The option.
        option: &'static str,
        /// The value.
        value: String,
        /// What was expected.
        why: String,
    },
    /// Our section has more values than are allowed.
    #[error(
        "there are more than {MAX_VALUES} values in [X-Flotilla]; expected fewer, patterns cover many units"
    )]
    TooManyValues,
    /// A value that is not a unit name.
    #[error("{option}= expects unit names: {error}")]
    BadName {
        /// The option.
        option: &'static str,
        /// What is wrong with the name.
        error: NameError,
    },
    /// A value that is not a pattern.
    #[error("{option}= expects patterns of unit names: {error}")]
    BadGlob {
        /// The option.
        option: &'static str,
        /// What is wrong with the pattern.
        error: GlobError,
    },
    /// Something that is planned and does not exist.
    #[error("{option}={value} is not yet available; expected {expected}")]
    NotAvailable {
        /// The option.
        option: &'static str,
        /// The value.
        value: String,
        /// What is available.
        expected: &'static str,
    },
    /// Two options that no machine could meet together, or that have no meaning together.
    #[error("{first}= and {second}= contradict each other: {why}")]
    Contradiction {
        /// The option that was first.
        first: &'static str,
        /// The option that does not go with it.
        second: &'static str,
        /// Why not.
        why: String,
    },
    /// An option that has nothing to work on in this unit.
    #[error("{option}= has no meaning here: {why}")]
    Pointless {
        /// The option.
        option: &'static str,
        /// Why not.
        why: String,
    },
    /// There are more problems than are told.
    #[error("there are {0} more problems")]
    More(usize),
}

fn instead(suggestion: &Option<String>) -> String {
    suggestion.as_ref().map_or_else(String::new, |s| format!("; did you mean `{s}`?"))
}

fn instead_of_all(suggestion: &Option<String>) -> String {
    match suggestion {
        Some(_) => instead(suggestion),
        None => format!("; it has {}", crate::option_names().join(", ")),
    }
}

/// One problem and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, as the caller named it.
    pub file: Arc<str>,
    /// Where in the file; `None` when it concerns the whole.
    pub place: Option<Place>,
    /// What is wrong.
    pub kind: ProblemKind,
}

/// A place in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The line, from 1.
    pub line: usize,
    /// The character in the line, from 1.
    pub column: usize,
    /// The line's text, cut to [`SHOWN_CHARS`].
    pub text: String,
}

/// How many characters of a line are shown with a problem: four lines of a usual terminal.
pub const SHOWN_CHARS: usize = 320;

impl Place {
    pub(crate) fn of(text: &str, at: usize) -> Self {
        let (mut line, mut start) = (1, 0);
        for raw in crate::syntax::lines(text) {
            start = raw.start;
            if at < raw.end || raw.end == text.len() {
                break;
            }
            line += 1;
        }
        let shown = text[start..].split(['\n', '\r']).next().unwrap_or_default();
        let at = at.max(start);
        Self {
            line,
            column: text.get(start..at).map_or(0, |before| before.chars().count()) + 1,
            text: shown.chars().take(SHOWN_CHARS).collect(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(Place { line, column, .. }) => write!(f, "{}:{line}:{column}: {}", self.file, self.kind),
            None => write!(f, "{}: {}", self.file, self.kind),
        }
    }
}

impl std::error::Error for Problem {}

impl Problem {
    /// Returns the message followed by the line with a caret below the place.
    #[must_use]
    pub fn render(&self) -> String {
        let Some(Place { line, column, text }) = &self.place else { return self.to_string() };
        let number = line.to_string();
        // A tab stays a tab, so that the caret stands below its character on any terminal; control
        // characters of somebody else's file do not reach the terminal.
        let plain = |c: char| if c == '\t' || !c.is_control() { c } else { '\u{fffd}' };
        let shown: String = text.chars().map(plain).collect();
        let mut out = format!("{self}\n{number} | {shown}");
        if *column <= SHOWN_CHARS {
            let indent = text.chars().take(column - 1).map(|c| if c == '\t' { '\t' } else { ' ' });
            out.push_str(&format!("\n{} | {}^", " ".repeat(number.len()), indent.collect::<String>()));
        }
        out
    }
}

/// All problems of a file, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Sorts problems by their place and keeps the first [`MAX_PROBLEMS`]; `Ok` when there are none.
    pub(crate) fn check(file: &Arc<str>, text: &str, mut found: Found) -> Result<(), Self> {
        if found.is_empty() {
            return Ok(());
        }
        found.problems.sort_by_key(|(at, _)| *at);
        let more = found.problems.len().saturating_sub(MAX_PROBLEMS) + found.dropped;
        found.problems.truncate(MAX_PROBLEMS);
        let problem = |(at, kind): (Option<usize>, _)| Problem {
            file: file.clone(),
            place: at.map(|at| Place::of(text, at)),
            kind,
        };
        let mut problems: Vec<Problem> = found.problems.into_iter().map(problem).collect();
        if more > 0 {
            problems.push(Problem { file: file.clone(), place: None, kind: ProblemKind::More(more) });
        }
        Err(Self(problems))
    }

    /// Returns the problems in the order of the file.
    #[must_use]
    pub fn as_slice(&self) -> &[Problem] {
        &self.0
    }

    /// Returns all problems, each with its line and a caret.
    #[must_use]
    pub fn render(&self) -> String {
        self.0.iter().map(Problem::render).collect::<Vec<_>>().join("\n")
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if n > 0 { "\n" } else { "" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Problems as they are found: at which byte of the text, and what.
#[derive(Debug, Clone, Default)]
pub(crate) struct Found {
    problems: Vec<(Option<usize>, ProblemKind)>,
    /// How many more there were after [`MAX_FOUND`].
    dropped: usize,
}

/// How many problems are kept until they are sorted: a file that is rubbish as a whole has one per
/// line, which would take a hundred times its size.
const MAX_FOUND: usize = 20 * MAX_PROBLEMS;

impl Found {
    pub(crate) fn at(&mut self, at: usize, kind: ProblemKind) {
        self.push(Some(at), kind);
    }

    pub(crate) fn whole(&mut self, kind: ProblemKind) {
        self.push(None, kind);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    pub(crate) fn into_kinds(self) -> Vec<ProblemKind> {
        self.problems.into_iter().map(|(_, kind)| kind).collect()
    }

    fn push(&mut self, at: Option<usize>, kind: ProblemKind) {
        if self.problems.len() < MAX_FOUND {
            self.problems.push((at, kind));
        } else {
            self.dropped += 1;
        }
    }
}
