//! Lists: as tables like systemctl's, or as JSON.

use std::marker::PhantomData;

use clap::builder::PossibleValuesParser;
use comfy_table::{Cell, Color, ContentArrangement, Table, TableStyle};
use serde::Serialize;

use crate::{
    args::Output,
    exit::{Exit, Failure},
    print, text,
};

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
    use std::io::Write as _;
    if output == Output::Json {
        return Ok(print::json(items)?);
    }
    Ok(write!(print::out(), "{}", render(items, options, output))?)
}

/// Renders a table.
fn render<T: Tabled>(items: &[T], options: &ListOptions<T>, output: Output) -> String {
    let columns = chosen(options, output);
    let mut table = Table::new();
    table.load_style(TableStyle::new()).set_content_arrangement(ContentArrangement::Disabled);
    if !options.no_legend {
        table.set_header(columns.iter().map(|column| column.name.to_uppercase()));
    }
    for item in items {
        table.add_row(columns.iter().map(|column| {
            let text = text::one_line(&(column.text)(item, options.full)).into_owned();
            let cell = Cell::new(if text.is_empty() { "-" } else { &text });
            match text.as_str() {
                "failed" | "lost" => cell.fg(Color::Red),
                "active" | "alive" => cell.fg(Color::Green),
                _ => cell,
            }
        }));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
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
        render(&[Row("a.service", "m1"), Row("longer.service", "m22")], &line.list, output)
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
    fn fields_are_shown_in_the_order_asked_for_and_unknown_ones_are_refused() {
        use clap::Parser as _;
        let words = ["--no-legend", "--full", "--fields", "machine,unit"];
        assert_eq!(text(&words, Output::Table), "m1true   a.service\nm22true  longer.service\n");
        let refused = Line::try_parse_from(["list", "--fields", "colour"]).err().expect("unknown");
        assert_eq!(refused.exit_code(), i32::from(Exit::Usage.number()));
        assert!(refused.to_string().contains("unit, machine, hash"), "{refused}");
    }
}
