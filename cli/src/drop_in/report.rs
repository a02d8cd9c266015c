//! The report of the configuration that every Go program prints first: a table on standard error.
//!
//! Source of the form: `go-envstruct`, which aligns columns with Go's `text/tabwriter` and two spaces between them.

use super::go_env::{Program, Values};
use std::fmt::Write as _;

/// The table with its header, one row per variable.
pub fn render(program: &Program, values: &Values<'_>) -> String {
    let mut rows = vec![["FIELD NAME:", "TYPE:", "ENV:", "REQUIRED:", "VALUE:"].map(str::to_owned)];
    rows.extend(program.fields.iter().map(|field| {
        let value = if field.shown && !field.setting.secret {
            values.text(field.setting.name)
        } else {
            "(OMITTED)".to_owned()
        };
        [
            field.name.to_owned(),
            field.kind.name().to_owned(),
            field.setting.name.to_owned(),
            field.required.to_string(),
            value,
        ]
    }));
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
            + 2
    };
    let widths: Vec<usize> = (0..4).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        for (cell, width) in row.iter().zip(&widths) {
            write!(text, "{cell:<width$}").ok();
        }
        writeln!(text, "{}", row[4]).ok();
    }
    text
}
