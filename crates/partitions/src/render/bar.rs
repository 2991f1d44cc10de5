//! The disk as a bar to scale.

use crate::{Partition, Table, free_space};

/// A piece of the disk, in sectors.
struct Piece {
    start: u64,
    sectors: u64,
    label: String,
    free: bool,
}

/// Draws the disk `width` characters wide, to scale: each partition with its number (and name,
/// where there is room), free space as dots. Every partition gets at least two characters, which
/// can make the bar wider. Empty for a disk without a table.
///
/// ```text
/// |1 EFI-------|2 root-------------------------|..........|
/// ```
pub fn bar(table: &Table, width: usize) -> String {
    let pieces = pieces(table);
    // Narrower than this nothing can be told apart.
    if width < 10 || pieces.is_empty() || table.disk_sectors == 0 {
        return String::new();
    }
    let cells = width - 1;
    let widths = shares(&pieces, cells, table.disk_sectors);
    let mut line = String::new();
    for (piece, cells) in pieces.iter().zip(widths).filter(|(_, cells)| *cells > 0) {
        line.push('|');
        let inner = cells - 1;
        let label: String = piece.label.chars().take(inner).collect();
        let fill = if piece.free { '.' } else { '-' };
        let used = label.chars().count();
        line.push_str(&label);
        line.extend(std::iter::repeat_n(fill, inner - used));
    }
    line.push('|');
    line
}

fn pieces(table: &Table) -> Vec<Piece> {
    // The extended partition is drawn by what is in it.
    let shown =
        table.partitions.iter().filter(|p| !p.is_extended() && p.start < table.disk_sectors);
    let mut pieces: Vec<Piece> = shown
        .map(|p| Piece { start: p.start, sectors: p.sectors, label: label(p), free: false })
        .collect();
    pieces.extend(free_space(table).into_iter().map(|r| Piece {
        start: r.start,
        sectors: r.sectors,
        label: String::new(),
        free: true,
    }));
    pieces.sort_by_key(|piece| piece.start);
    pieces
}

fn label(p: &Partition) -> String {
    match p.name.as_str() {
        "" => p.number.to_string(),
        name => format!("{} {}", p.number, name.replace(|c: char| c.is_control(), "?")),
    }
}

/// How many characters each piece gets, the separator in front included; together `cells`,
/// unless there are more partitions than that leaves room for.
fn shares(pieces: &[Piece], cells: usize, total: u64) -> Vec<usize> {
    let share = |sectors: u64| {
        let exact = u128::from(sectors.min(total)) * cells as u128 / u128::from(total.max(1));
        usize::try_from(exact).unwrap_or(0)
    };
    let mut widths: Vec<usize> = pieces
        .iter()
        .map(|piece| match share(piece.sectors) {
            // Gaps of a few sectors, as alignment leaves them, are not worth a mark.
            0 | 1 if piece.free => 0,
            n => n.max(2),
        })
        .collect();
    // Rounding leaves some over, the least widths take some: the widest pieces even it out.
    let mut sum: usize = widths.iter().sum();
    while sum != cells {
        let Some(widest) = widths.iter_mut().max_by_key(|width| **width) else { break };
        if sum < cells {
            *widest += 1;
            sum += 1;
        } else if *widest > 2 {
            *widest -= 1;
            sum -= 1;
        } else {
            break;
        }
    }
    widths
}
