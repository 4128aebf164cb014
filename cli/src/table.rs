//! Lists: as tables like systemctl's, or as JSON.

use std::{
    borrow::Cow,
    fmt::Write as _,
    io::{self, Write as _},
    marker::PhantomData,
};

use clap::builder::PossibleValuesParser;
use flotilla_api::lines::{Line, Lines};
use serde::Serialize;
use unicode_width::UnicodeWidthStr as _;

use crate::{
    args::Output,
    exit::{Exit, Failure},
    paint, print, text,
};

/// What is between two columns, in characters.
const GAP: usize = 2;

/// What gaps are filled with.
const SPACES: &str = "                                                                ";

/// What a list shows of each item.
pub(crate) trait Tabled: Sized + 'static {
    /// Every column that there is, in the order in which they are shown.
    const COLUMNS: &'static [Column<Self>];
}

/// Options of the commands that print lists of these.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ListOptions<T: Tabled> {
    /// Do not print the header line
    #[arg(long)]
    pub(crate) no_legend: bool,

    /// Do not shorten ids and hashes
    #[arg(long, short = 'l')]
    pub(crate) full: bool,

    /// Which columns, in which order; not with -o json, which prints everything
    #[arg(long, value_delimiter = ',', value_name = "FIELDS", value_parser = names::<T>())]
    pub(crate) fields: Vec<String>,

    #[arg(skip)]
    of: PhantomData<fn() -> T>,
}

impl<T: Tabled> ListOptions<T> {
    /// Refuses what contradicts itself, before anybody is asked.
    pub(crate) fn check(&self, output: Output) -> anyhow::Result<()> {
        if output == Output::Json && !self.fields.is_empty() {
            let why =
                "--fields chooses columns of a table, and `-o json` prints everything; leave one of them out";
            return Err(Failure::error(Exit::Usage, why));
        }
        Ok(())
    }
}

/// Names the columns, for the command line to refuse others and shells to complete them.
fn names<T: Tabled>() -> PossibleValuesParser {
    PossibleValuesParser::new(T::COLUMNS.iter().map(|column| column.name))
}

/// A column: its name in `--fields`, whether it is shown without being asked for, and its text.
pub(crate) struct Column<T> {
    pub(crate) name: &'static str,
    pub(crate) shown: Shown,
    pub(crate) text: fn(&T, bool) -> String,
}

/// When a column is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    /// Always.
    Always,
    /// With `-o wide`.
    Wide,
    /// Only when `--fields` names it.
    Asked,
}

/// Prints a list in the form that was asked for.
pub(crate) fn show<T: Tabled + Serialize>(
    items: &[T],
    options: &ListOptions<T>,
    output: Output,
) -> anyhow::Result<()> {
    if output == Output::Json {
        return Ok(print::json(items)?);
    }
    let mut table = Table::new(options, output);
    table.add(items)?;
    Ok(table.end()?)
}

/// A table that is printed as its lines come.
///
/// Its columns are as wide as the first lines need, and grow where a later one needs more: lists of a usual
/// length come in one piece and line up.
pub(crate) struct Table<T: Tabled> {
    columns: Vec<&'static Column<T>>,
    widths: Vec<usize>,
    full: bool,
    /// The header line is still to come.
    legend: bool,
    begun: bool,
    colours: bool,
    text: String,
}

impl<T: Tabled> Table<T> {
    /// Begins a table.
    pub(crate) fn new(options: &ListOptions<T>, output: Output) -> Self {
        let columns = chosen(options, output);
        let colours = anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never;
        let widths = vec![0; columns.len()];
        Self {
            columns,
            widths,
            full: options.full,
            legend: !options.no_legend,
            begun: false,
            colours,
            text: String::new(),
        }
    }

    /// Prints more lines.
    pub(crate) fn add(&mut self, items: &[T]) -> io::Result<()> {
        self.render(items);
        self.write()
    }

    fn write(&mut self) -> io::Result<()> {
        let text = std::mem::take(&mut self.text);
        // What is in a cell has no control characters, and colours are in it only where they belong.
        io::stdout().lock().write_all(text.as_bytes())?;
        self.text = text;
        self.text.clear();
        Ok(())
    }

    /// Ends the table: one without a line has its header all the same.
    pub(crate) fn end(mut self) -> io::Result<()> {
        self.add(&[])?;
        io::stdout().lock().flush()
    }

    /// Prints lines that the cluster has made, of the columns that are always shown.
    pub(crate) fn add_lines(&mut self, part: &Lines<'_>) -> io::Result<()> {
        let cells = part.lines.iter().flat_map(|Line(unit, machine, active, sub, note)| {
            [unit, machine, active, sub, note].map(|text| match &**text {
                "" => Cow::Borrowed("-"),
                text => text::one_line(text),
            })
        });
        let cells: Vec<Cow<'_, str>> = cells.collect();
        self.cells(&cells);
        self.write()
    }

    /// Tells whether nothing was printed yet.
    pub(crate) const fn is_new(&self) -> bool {
        !self.begun
    }

    fn render(&mut self, items: &[T]) {
        let texts: Vec<String> = items
            .iter()
            .flat_map(|item| self.columns.iter().map(move |column| (item, column)))
            .map(|(item, column)| {
                let text = (column.text)(item, self.full);
                match text::one_line(&text) {
                    Cow::Borrowed(_) if text.is_empty() => "-".to_owned(),
                    Cow::Borrowed(_) => text,
                    Cow::Owned(text) => text,
                }
            })
            .collect();
        self.cells(&texts);
    }

    /// Adds lines, each of as many cells as there are columns, and the header before the first.
    fn cells(&mut self, texts: &[impl AsRef<str>]) {
        self.begun = true;
        let legend = std::mem::take(&mut self.legend);
        let header: Vec<String> =
            self.columns.iter().filter(|_| legend).map(|column| column.name.to_uppercase()).collect();
        self.widen(&header);
        self.widen(texts);
        self.line(&header);
        texts.chunks(self.columns.len()).for_each(|line| self.line(line));
    }

    fn widen(&mut self, cells: &[impl AsRef<str>]) {
        for line in cells.chunks(self.columns.len()) {
            for (width, cell) in self.widths.iter_mut().zip(line) {
                *width = (*width).max(width_of(cell.as_ref()));
            }
        }
    }

    fn line(&mut self, cells: &[impl AsRef<str>]) {
        let last = cells.len().saturating_sub(1);
        for (at, cell) in cells.iter().enumerate() {
            let cell = cell.as_ref();
            match cell {
                "failed" | "lost" if self.colours => drop(write!(self.text, "{}", paint::bad(cell))),
                "active" | "alive" if self.colours => drop(write!(self.text, "{}", paint::good(cell))),
                _ => self.text.push_str(cell),
            }
            let mut gap = if at == last { 0 } else { self.widths[at] - width_of(cell) + GAP };
            while gap > 0 {
                let some = gap.min(SPACES.len());
                self.text.push_str(&SPACES[..some]);
                gap -= some;
            }
        }
        if !cells.is_empty() {
            self.text.push('\n');
        }
    }
}

/// How far a text reaches on a screen.
fn width_of(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { text.width() }
}

/// A list that is printed as JSON as its items come.
#[derive(Debug, Default)]
pub(crate) struct JsonList {
    begun: bool,
}

impl JsonList {
    /// Prints more items.
    pub(crate) fn add(&mut self, items: &[impl Serialize]) -> io::Result<()> {
        if items.is_empty() {
            return Ok(());
        }
        // A list by itself is `[`, its items, and `]`, each on lines of their own.
        let text = serde_json::to_vec_pretty(items).map_err(io::Error::from)?;
        let within = text.strip_prefix(b"[").and_then(|text| text.strip_suffix(b"\n]")).unwrap_or(&text);
        let mut out = io::stdout().lock();
        out.write_all(if std::mem::replace(&mut self.begun, true) { b"," } else { b"[" })?;
        out.write_all(within)
    }

    /// Ends the list.
    pub(crate) fn end(self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(if self.begun { b"\n]\n" } else { b"[]\n" })?;
        out.flush()
    }
}

fn chosen<T: Tabled>(options: &ListOptions<T>, output: Output) -> Vec<&'static Column<T>> {
    let shown = |column: &&Column<T>| {
        column.shown == Shown::Always || (column.shown == Shown::Wide && output == Output::Wide)
    };
    if options.fields.is_empty() {
        return T::COLUMNS.iter().filter(shown).collect();
    }
    let named = |name: &String| T::COLUMNS.iter().find(|column| column.name == name);
    options.fields.iter().filter_map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Row(&'static str, &'static str);

    impl Tabled for Row {
        const COLUMNS: &'static [Column<Self>] = &[
            Column { name: "unit", shown: Shown::Always, text: |row, _| row.0.to_owned() },
            Column { name: "machine", shown: Shown::Always, text: |row, full| format!("{}{full}", row.1) },
            Column { name: "hash", shown: Shown::Wide, text: |_, _| String::new() },
        ];
    }

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        list: ListOptions<Row>,
    }

    fn text(words: &[&str], output: Output) -> String {
        use clap::Parser as _;
        let line = Line::try_parse_from([&["list"], words].concat()).expect("valid");
        let mut table = Table::new(&line.list, output);
        table.render(&[Row("a.service", "m1"), Row("longer.service", "m22")]);
        table.text
    }

    #[test]
    fn columns_line_up_and_what_is_empty_is_a_dash() {
        assert_eq!(
            text(&[], Output::Table),
            "UNIT            MACHINE\na.service       m1false\nlonger.service  m22false\n"
        );
        assert!(text(&[], Output::Wide).lines().nth(1).is_some_and(|line| line.ends_with('-')));
    }

    #[test]
    fn columns_grow_where_a_later_line_needs_it() {
        use clap::Parser as _;
        let line = Line::try_parse_from(["list"]).expect("valid");
        let mut table = Table::new(&line.list, Output::Table);
        table.render(&[Row("a.service", "m1"), Row("über.service", "m1")]);
        table.render(&[Row("longer-than-that.service", "m1")]);
        table.render(&[Row("a.service", "m1")]);
        assert_eq!(
            table.text,
            "UNIT          MACHINE\na.service     m1false\nüber.service  m1false\n\
             longer-than-that.service  m1false\na.service                 m1false\n"
        );
    }

    #[test]
    fn fields_are_shown_in_the_order_asked_for_and_unknown_ones_are_refused() {
        use clap::Parser as _;
        let words = ["--no-legend", "--full", "--fields", "machine,unit"];
        assert_eq!(text(&words, Output::Table), "m1true   a.service\nm22true  longer.service\n");
        let refused = Line::try_parse_from(["list", "--fields", "colour"]).err().expect("unknown");
        assert_eq!(refused.exit_code(), i32::from(Exit::Usage.number()));
        assert!(refused.to_string().contains("unit, machine, hash"), "{refused}");
    }
}
