//! Lists: as tables like systemctl's, or as JSON.

use anyhow::bail;
use comfy_table::{Cell, Color, ContentArrangement, Table, TableStyle};
use serde::Serialize;

use crate::{
    args::{ListOptions, Output},
    print, text,
};

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
pub(crate) fn show<T: Serialize>(
    items: &[T],
    columns: &[Column<T>],
    options: &ListOptions,
    output: Output,
) -> anyhow::Result<()> {
    use std::io::Write as _;
    if output == Output::Json {
        return Ok(print::json(items)?);
    }
    Ok(write!(print::out(), "{}", render(items, columns, options, output)?)?)
}

/// Renders a table.
pub(crate) fn render<T>(
    items: &[T],
    columns: &[Column<T>],
    options: &ListOptions,
    output: Output,
) -> anyhow::Result<String> {
    let columns = chosen(columns, options, output)?;
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
    Ok(text)
}

fn chosen<'a, T>(
    columns: &'a [Column<T>],
    options: &ListOptions,
    output: Output,
) -> anyhow::Result<Vec<&'a Column<T>>> {
    let shown = |column: &&Column<T>| {
        column.shown == Shown::Always || (column.shown == Shown::Wide && output == Output::Wide)
    };
    if options.fields.is_empty() {
        return Ok(columns.iter().filter(shown).collect());
    }
    let mut found = Vec::new();
    for name in &options.fields {
        let Some(column) = columns.iter().find(|column| column.name == name) else {
            let known: Vec<&str> = columns.iter().map(|column| column.name).collect();
            bail!("there is no field `{name}`; the fields are {}", known.join(", "));
        };
        found.push(column);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column<(&str, &str)>; 3] = [
        Column { name: "unit", shown: Shown::Always, text: |row, _| row.0.to_owned() },
        Column { name: "machine", shown: Shown::Always, text: |row, full| format!("{}{full}", row.1) },
        Column { name: "hash", shown: Shown::Wide, text: |_, _| String::new() },
    ];

    fn text(options: &ListOptions, output: Output) -> String {
        render(&[("a.service", "m1"), ("longer.service", "m22")], &COLUMNS, options, output).expect("fields")
    }

    #[test]
    fn columns_line_up_and_what_is_empty_is_a_dash() {
        let options = ListOptions::default();
        assert_eq!(
            text(&options, Output::Table),
            "UNIT            MACHINE\na.service       m1false\nlonger.service  m22false\n"
        );
        assert!(text(&options, Output::Wide).lines().nth(1).is_some_and(|line| line.ends_with('-')));
    }

    #[test]
    fn fields_are_shown_in_the_order_asked_for_and_unknown_ones_are_refused() {
        let mut options = ListOptions { no_legend: true, full: true, ..ListOptions::default() };
        options.fields = vec!["machine".to_owned(), "unit".to_owned()];
        assert_eq!(text(&options, Output::Table), "m1true   a.service\nm22true  longer.service\n");
        options.fields = vec!["colour".to_owned()];
        let error = render(&[("a", "b")], &COLUMNS, &options, Output::Table).expect_err("unknown");
        assert!(error.to_string().contains("unit, machine, hash"), "{error}");
    }
}
