//! No order depends on a hash table: whoever walks through one in a pure crate says why that is so.

use crate::Finding;
use crate::source::{code_only, lines_before_tests};

/// Types whose iteration has an order that depends on history.
const TABLES: &[&str] = &["HashMap", "HashSet", "HashTable", "Map", "Set"];

/// What walks through a table.
const WALKS: &[&str] = &[
    ".iter()",
    ".iter_mut()",
    ".into_iter()",
    ".keys()",
    ".values()",
    ".values_mut()",
    ".into_values()",
    ".drain(",
    ".retain(",
    ".extract_if(",
];

/// The mark of a reason, in a comment beside the walk or in the comment above its statement.
pub const REASON: &str = "// ORDER: ";

/// Finds walks through the hash tables of one crate that have no reason. `files` are paths and texts.
///
/// Tables are known by the names of the fields and bindings that are declared with their types; in other files than the
/// one that declares it, a name counts only as a field of `self`.
#[must_use]
pub fn tables_are_not_walked(files: &[(&str, &str)]) -> Vec<Finding> {
    let codes: Vec<String> = files.iter().map(|(_, text)| live_code(text)).collect();
    let mut tables: Vec<(usize, String)> = Vec::new();
    for (index, code) in codes.iter().enumerate() {
        tables.extend(code.lines().filter_map(declared_table).map(|name| (index, name)));
    }
    let mut findings = Vec::new();
    for (index, (path, text)) in files.iter().enumerate() {
        let lines: Vec<&str> = text.lines().collect();
        for (line, name) in walks(&codes[index], &tables, index) {
            if !has_reason(&lines, line) {
                let message =
                    format!("`{name}` is a hash table: sort, or say `{REASON}` why no order depends on it");
                findings.push(Finding::at(path, line + 1, message));
            }
        }
    }
    findings
}

/// The code before the tests; lines keep their numbers.
fn live_code(text: &str) -> String {
    let code = code_only(text);
    lines_before_tests(&code).map(|(_, line)| format!("{line}\n")).collect()
}

/// The name that a line declares with a table's type.
fn declared_table(line: &str) -> Option<String> {
    let (before, kind) = line.split_once(": ")?;
    let (head, _) = kind.trim_start_matches('&').trim_start_matches("mut ").split_once('<')?;
    let is_table = TABLES.contains(&head.rsplit("::").next()?);
    let name = before.trim().rsplit([' ', '(']).next()?.to_owned();
    (is_table && !name.is_empty() && !line.contains("fn ")).then_some(name)
}

/// Lines, counted from 0, where a table is walked through.
fn walks(code: &str, tables: &[(usize, String)], index: usize) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (declared_in, name) in tables {
        for (at, _) in code.match_indices(name.as_str()) {
            let before = code[..at].chars().next_back();
            let behind = code[at + name.len()..].trim_start();
            let is_own_field = code[..at].ends_with("self.");
            let is_whole = !before.is_some_and(|c| c.is_alphanumeric() || c == '_');
            let is_walk = WALKS.iter().any(|walk| behind.starts_with(walk)) || is_loop(&code[..at], behind);
            if is_whole && is_walk && (is_own_field || *declared_in == index) {
                found.push((code[..at].matches('\n').count(), name.clone()));
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

/// True for `for x in &table {`.
fn is_loop(before: &str, behind: &str) -> bool {
    let line = before.rsplit('\n').next().unwrap_or_default();
    behind.starts_with('{') && line.trim_start().starts_with("for ") && line.contains(" in ")
}

/// True if the line, or the comment above its statement, gives the reason.
fn has_reason(lines: &[&str], at: usize) -> bool {
    let is_inside_statement = |line: &&&str| {
        let line = line.trim();
        !(line.is_empty() || line.ends_with([';', '{', '}'])) || line.starts_with("//")
    };
    let above = lines[..at].iter().rev().take_while(is_inside_statement);
    lines[at].contains(REASON) || above.into_iter().any(|line| line.contains(REASON))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(files: &[(&str, &str)], expect: &[usize]) {
        let lines: Vec<usize> = tables_are_not_walked(files).iter().map(|finding| finding.line).collect();
        assert_eq!(lines, expect, "{files:?}");
    }

    #[test]
    fn walks_need_a_reason() {
        let declared = "struct A {\n    ids: HashMap<u64, u64, Mix>,\n    list: Vec<u64>,\n}\n";
        let with = |rest: &str| format!("{declared}{rest}");
        check(&[("a.rs", &with("fn f(&self) { self.ids.get(&1); self.list.iter(); }\n"))], &[]);
        check(&[("a.rs", &with("fn f(&self) { self.ids.iter().sum() }\n"))], &[5]);
        check(&[("a.rs", &with("let x = self\n    .ids\n    .values()\n    .sum();\n"))], &[6]);
        check(&[("a.rs", &with("for x in &self.ids {\n}\n"))], &[5]);
        check(&[("a.rs", &with("// ORDER: a sum has none.\nlet x = self.ids.values().sum();\n"))], &[]);
        check(&[("a.rs", &with("let x = self.ids.values().sum(); // ORDER: a sum has none.\n"))], &[]);
        check(&[("a.rs", &with("// ORDER: a sum.\nx();\nlet x = self.ids.values().sum();\n"))], &[7]);
        check(&[("a.rs", &with("#[cfg(test)]\nmod tests {\n fn f() { a.ids.iter(); }\n}\n"))], &[]);
    }

    #[test]
    fn a_name_counts_elsewhere_only_as_a_field() {
        let declared = ("a.rs", "struct A {\n    ids: Map<u64, u64>,\n}\n");
        check(&[declared, ("b.rs", "fn f(ids: &[u64]) { ids.iter(); }\n")], &[]);
        check(&[declared, ("b.rs", "fn f(&self) { self.ids.iter(); }\n")], &[1]);
        check(&[declared, ("b.rs", "fn f(b: &B) { b.ids.iter(); }\n")], &[]);
        check(&[("a.rs", "struct A {\n    ids: Vec<HashTable<u64>>,\n}\nfn f() { a.ids.iter() }\n")], &[]);
        check(
            &[("a.rs", "struct A {\n    ids: hashbrown::HashTable<u64>,\n}\nfn f() { a.ids.iter() }\n")],
            &[4],
        );
        check(&[("a.rs", "struct A {\n    ids: BTreeMap<u64, u64>,\n}\nfn f() { a.ids.iter() }\n")], &[]);
    }
}
