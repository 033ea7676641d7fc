//! How numbers and times look to people.

use std::time::Duration;

use engine::collection::Amount;
use engine::metadata::Timestamp;

use crate::timestamp::rfc3339;

/// Bytes in the largest binary unit that they fill.
pub(super) fn bytes(count: u64) -> String {
    bytesize::ByteSize(count).display().iec().to_string()
}

/// A number of things and their bytes.
pub(super) fn amount(amount: Amount) -> String {
    match amount {
        Amount { count, bytes: 0 } => count.to_string(),
        Amount { count, bytes } => format!("{count} ({})", self::bytes(bytes)),
    }
}

/// Microseconds.
pub(super) fn microseconds(us: u64) -> String {
    let time = Duration::from_micros(us);
    match us {
        0..10_000 => format!("{:.1} ms", time.as_secs_f64() * 1e3),
        10_000..1_000_000 => format!("{} ms", time.as_millis()),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

/// A point in time, given in milliseconds since the Unix epoch.
pub(super) fn time(ms: u64) -> String {
    rfc3339(Timestamp(ms))
}

/// A table whose first column is to the left, and all others to the right.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let lines = rows.iter().map(|row| {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
            0 => format!("{cell:width$}"),
            _ => format!("{cell:>width$}"),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_read() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(amount(Amount { count: 3, bytes: 0 }), "3");
        assert_eq!(amount(Amount { count: 3, bytes: 1 << 20 }), "3 (1.0 MiB)");
        assert_eq!(microseconds(1234), "1.2 ms");
        assert_eq!(microseconds(123_456), "123 ms");
        assert_eq!(microseconds(12_345_678), "12.3 s");
        let rows = [["name", "size"], ["a", "10"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table(&rows), "name  size\na       10\n");
    }
}
