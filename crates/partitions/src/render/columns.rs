//! Text in columns.

/// One column: its header, whether its cells are set to the right, and its least
/// width. As in libsmartcols, which fdisk uses, the least width counts only where the cells are
/// not narrower than the header.
pub(super) struct Column {
    pub(super) header: &'static str,
    pub(super) right: bool,
    pub(super) least: usize,
}

pub(super) const fn left(header: &'static str, least: usize) -> Column {
    Column { header, right: false, least }
}

pub(super) const fn right(header: &'static str, least: usize) -> Column {
    Column { header, right: true, least }
}

/// The header and the rows, a blank between columns, nothing behind the last one.
pub(super) fn table(columns: &[Column], rows: &[Vec<String>]) -> String {
    let width = |index: usize, column: &Column| {
        let cells = rows.iter().filter_map(|row| row.get(index)).map(|cell| cell.chars().count());
        let (cells, header) = (cells.max().unwrap_or(0), column.header.len());
        match cells {
            _ if cells < header => header,
            _ if header < column.least => cells.max(column.least),
            _ => cells,
        }
    };
    let widths: Vec<usize> = columns.iter().enumerate().map(|(i, c)| width(i, c)).collect();
    let header: Vec<String> = columns.iter().map(|c| c.header.to_string()).collect();
    let mut text = String::new();
    for row in std::iter::once(&header).chain(rows) {
        let mut line = String::new();
        for ((cell, column), width) in row.iter().zip(columns).zip(&widths) {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(&match column.right {
                true => format!("{cell:>width$}"),
                false => format!("{cell:<width$}"),
            });
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
