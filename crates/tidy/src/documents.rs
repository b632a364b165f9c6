//! Rules that hold the documents to what they speak of.

use crate::Finding;

/// The commands in a document's fenced shell blocks, without comments, in order.
#[must_use]
pub fn commands(text: &str) -> Vec<&str> {
    let mut commands = Vec::new();
    let mut is_shell = false;
    for line in text.lines() {
        if let Some(language) = line.strip_prefix("```") {
            is_shell = !is_shell && matches!(language, "sh" | "bash" | "console");
            continue;
        }
        let command = line.split(" #").next().unwrap_or_default().trim().trim_start_matches("$ ");
        if is_shell && !command.is_empty() && !command.starts_with('#') {
            commands.push(command);
        }
    }
    commands
}

/// The README begins with the two commands that CI runs.
#[must_use]
pub fn first_commands_are_run(readme: &str, ci: &str) -> Vec<Finding> {
    let expected = ["cargo run --release -- demo", "cargo test --workspace"];
    let found = commands(readme);
    let mut findings = Vec::new();
    if found.iter().take(2).copied().ne(expected) {
        findings.push(Finding::of("README.md", format!("the first two commands are {expected:?}")));
    }
    for command in expected {
        let is_run = ci.lines().any(|line| !line.trim_start().starts_with('#') && line.contains(command));
        if !is_run {
            findings
                .push(Finding::of(".ci/run", format!("does not run `{command}`, which the README promises")));
        }
    }
    findings
}

/// The map names every member, and no directory that is not there.
#[must_use]
pub fn map_is_complete(architecture: &str, members: &[&str]) -> Vec<Finding> {
    let path = "ARCHITECTURE.md";
    let rows: Vec<&str> = architecture
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(directory, _)| directory)
        .filter(|name| name.starts_with("crates/") || matches!(*name, "benches" | "loadtest"))
        .collect();
    let missing = members.iter().filter(|member| !rows.contains(member));
    let stale = rows.iter().filter(|row| !members.contains(row));
    let missing = missing.map(|member| Finding::of(path, format!("the map does not name {member}")));
    let stale = stale.map(|row| Finding::of(path, format!("the map names {row}, which is no member")));
    missing.chain(stale).collect()
}

/// Links to files of the repository lead somewhere.
#[must_use]
pub fn links_lead_somewhere(path: &str, text: &str, exists: impl Fn(&str) -> bool) -> Vec<Finding> {
    let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
    let mut findings = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let targets =
            line.split("](").skip(1).filter_map(|behind| behind.split_once(')')).map(|(target, _)| target);
        for target in targets.filter(|target| !target.contains("://") && !target.starts_with('#')) {
            let file = target.split('#').next().unwrap_or_default().trim_end_matches('/');
            if !exists(&resolve(directory, file)) {
                findings.push(Finding::at(path, at + 1, format!("`{target}` does not exist")));
            }
        }
    }
    findings
}

/// A relative path, from the root of the repository.
fn resolve(directory: &str, target: &str) -> String {
    let mut parts: Vec<&str> = directory.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/').filter(|part| !matches!(*part, "" | ".")) {
        if part == ".." {
            parts.pop();
        } else {
            parts.push(part);
        }
    }
    parts.join("/")
}

/// A document that names a version of a format names the one that the code has.
#[must_use]
pub fn version_is_the_code_s(versioning: &str, code: &str, constant: &str, row: &str) -> Vec<Finding> {
    let value = code.lines().find_map(|line| {
        let name = line.trim_start().trim_start_matches("pub ").strip_prefix("const ")?;
        let (_, value) = name.strip_prefix(constant)?.strip_prefix(": ")?.split_once(" = ")?;
        Some(value.trim_end_matches(';'))
    });
    let Some(value) = value else {
        return vec![Finding::of("VERSIONING.md", format!("the code has no constant {constant}"))];
    };
    let expected = format!("| {row} | {value} |");
    if versioning.lines().any(|line| line.starts_with(&expected)) {
        Vec::new()
    } else {
        vec![Finding::of("VERSIONING.md", format!("no row that begins `{expected}`, as {constant} says"))]
    }
}

/// Every test that a document names in code quotes (words joined by at least two `_`) is a function of this name.
#[must_use]
pub fn tests_exist(path: &str, text: &str, is_function: impl Fn(&str) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let quoted = line.split('`').skip(1).step_by(2);
        let is_word = |word: &&str| {
            word.matches('_').count() >= 2
                && word.bytes().all(|b| b == b'_' || b.is_ascii_lowercase() || b.is_ascii_digit())
        };
        for name in quoted.filter(is_word).filter(|name| !is_function(name)) {
            findings.push(Finding::at(path, at + 1, format!("there is no test {name}")));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(findings: &[Finding], expect: usize) {
        assert_eq!(findings.len(), expect, "{findings:?}");
    }

    #[test]
    fn shell_blocks() {
        let text = "```rust\nlet a = 1;\n```\n```sh\n# a remark\n$ cargo a # why\n\ncargo b\n```\ncargo c\n";
        assert_eq!(commands(text), ["cargo a", "cargo b"]);
    }

    #[test]
    fn the_two_commands() {
        let readme = "```sh\ncargo run --release -- demo\ncargo test --workspace   # all\n```\n";
        let ci = "step cargo run --release -- demo --seconds 5\nstep cargo test --workspace\n";
        check(&first_commands_are_run(readme, ci), 0);
        check(&first_commands_are_run("```sh\ncargo build\n```\n", ci), 1);
        check(&first_commands_are_run(readme, "# cargo test --workspace\n"), 2);
    }

    #[test]
    fn maps() {
        let map = "| `crates/wal` | the log |\n| `benches` | figures |\n| `docs` | pictures |\n";
        check(&map_is_complete(map, &["crates/wal", "benches"]), 0);
        check(&map_is_complete(map, &["crates/wal", "benches", "crates/engine"]), 1);
        check(&map_is_complete(map, &["benches"]), 1);
    }

    #[test]
    fn links() {
        let exists = |path: &str| matches!(path, "crates/wal/FORMAT.md" | "README.md");
        let check =
            |path: &str, text: &str, expect: usize| check(&links_lead_somewhere(path, text, exists), expect);
        check("README.md", "[a](crates/wal/FORMAT.md#x) [b](https://example.org) [c](#here)", 0);
        check("crates/wal/README.md", "[a](FORMAT.md) and [b](../../README.md)", 0);
        check("crates/wal/README.md", "[a](WIRE.md)\n[b](../README.md)", 2);
    }

    #[test]
    fn versions() {
        let code = "/// The version.\npub const PROTOCOL_VERSION: u16 = 1;\n";
        let check = |versioning: &str, constant: &str, expect: usize| {
            check(&version_is_the_code_s(versioning, code, constant, "wire"), expect);
        };
        check("| wire | 1 | crates/protocol |\n", "PROTOCOL_VERSION", 0);
        check("| wire | 2 | crates/protocol |\n", "PROTOCOL_VERSION", 1);
        check("| wire | 1 |\n", "FORMAT_VERSION", 1);
    }

    #[test]
    fn named_tests() {
        let exists = |name: &str| name == "a_thing_is_so";
        check(
            &tests_exist("a.md", "`a_thing_is_so`, `cargo test`, `two_words`, `-Z build_std_x`", exists),
            0,
        );
        check(&tests_exist("a.md", "nothing\n`a_thing_is_so` and `a_thing_is_not`", exists), 1);
    }
}
