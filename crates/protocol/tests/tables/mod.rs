//! Reads the tables and hex blocks of `WIRE.md`.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, reason = "a document that does not parse is a failed test")]

/// The document.
pub(crate) const WIRE: &str = include_str!("../../WIRE.md");

/// A line of a table, by its column names.
pub(crate) struct Row {
    cells: Vec<(String, String)>,
}

impl Row {
    /// The text in a column.
    pub(crate) fn cell(&self, column: &str) -> &str {
        let found = self.cells.iter().find(|(name, _)| name == column);
        &found.unwrap_or_else(|| panic!("no column {column}")).1
    }

    /// The number in a column, decimal or with `0x`.
    pub(crate) fn number(&self, column: &str) -> usize {
        let text = self.cell(column);
        let parsed =
            text.strip_prefix("0x").map_or_else(|| text.parse(), |hex| usize::from_str_radix(hex, 16));
        parsed.unwrap_or_else(|_| panic!("{text} is not a number"))
    }
}

/// The lines behind the comment `<!-- marker -->`.
fn behind(marker: &str) -> std::str::Lines<'static> {
    let marker = format!("<!-- {marker} -->\n");
    let mut parts = WIRE.split(&marker);
    let behind = parts.nth(1).unwrap_or_else(|| panic!("no {marker}"));
    assert!(parts.next().is_none(), "{marker} twice");
    behind.lines()
}

/// The table behind the comment `<!-- marker -->`.
pub(crate) fn table(marker: &str) -> Vec<Row> {
    let mut lines = behind(marker).take_while(|line| line.starts_with('|'));
    let split = |line: &str| -> Vec<String> {
        let inner = line.strip_prefix('|').and_then(|line| line.strip_suffix('|')).unwrap();
        inner.split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let columns = split(lines.next().unwrap());
    assert!(lines.next().unwrap().starts_with("|---"));
    let rows: Vec<Row> = lines
        .map(|line| {
            let cells = split(line);
            assert_eq!(cells.len(), columns.len(), "{line}");
            Row { cells: columns.iter().cloned().zip(cells).collect() }
        })
        .collect();
    assert!(!rows.is_empty(), "an empty table behind {marker}");
    rows
}

/// The bytes of the hex block behind the comment `<!-- hex: name -->`: offset, up to 16 bytes, a remark behind `|`. A
/// line `*` repeats the line before it up to the next offset.
pub(crate) fn hex(name: &str) -> Vec<u8> {
    let mut lines = behind(&format!("hex: {name}"));
    assert_eq!(lines.next(), Some("```text"));
    let mut bytes: Vec<u8> = Vec::new();
    let mut repeats = false;
    for line in lines.take_while(|line| *line != "```") {
        if line == "*" {
            repeats = true;
            continue;
        }
        let data = line.split('|').next().unwrap();
        let mut words = data.split_whitespace();
        let offset = usize::from_str_radix(words.next().unwrap(), 16).unwrap();
        if repeats {
            let last = bytes[bytes.len() - 16..].to_vec();
            while bytes.len() < offset {
                bytes.extend_from_slice(&last);
            }
            repeats = false;
        }
        assert_eq!(bytes.len(), offset, "{name}: {line}");
        bytes.extend(words.map(|byte| u8::from_str_radix(byte, 16).unwrap()));
    }
    bytes
}
