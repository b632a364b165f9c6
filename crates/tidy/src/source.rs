//! Rules about single source files.

use crate::Finding;

/// Lines that a file may have; longer ones want to be split by sense.
pub const LINES_MAX: usize = 900;

/// Words that pure crates do not say outside their tests, and why.
const IMPURE: &[(&str, &str)] = &[
    ("std::", "pure crates are `no_std`: use `core` and `alloc`"),
    ("Instant", "time comes in as an argument"),
    ("SystemTime", "time comes in as an argument"),
    ("rand", "randomness comes in as an argument"),
    ("getrandom", "randomness comes in as an argument"),
    ("async", "pure crates return what is to be done instead of waiting for it"),
    ("await", "pure crates return what is to be done instead of waiting for it"),
    ("println!", "effects are returned values"),
    ("eprintln!", "effects are returned values"),
    ("f32", "no floats near money"),
    ("f64", "no floats near money"),
];

/// The same text with comments and the insides of strings blanked, so that words in it are code. Lines stay.
#[must_use]
pub fn code_only(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (length, is_code) = token(rest, first);
        let (piece, behind) = rest.split_at(length);
        if is_code {
            code.push_str(piece);
        } else {
            code.extend(piece.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        }
        rest = behind;
    }
    code
}

/// How long the piece at the start of `rest` is, and whether it is code.
fn token(rest: &str, first: char) -> (usize, bool) {
    if rest.starts_with("//") {
        (rest.find('\n').unwrap_or(rest.len()), false)
    } else if rest.starts_with("/*") {
        (block_comment(rest), false)
    } else if first == '"' {
        (string(rest), false)
    } else if let Some(hashes) = raw_string_hashes(rest) {
        let end = format!("\"{}", "#".repeat(hashes));
        let open = 2 + hashes;
        (rest[open..].find(&end).map_or(rest.len(), |at| open + at + end.len()), false)
    } else if first == '\'' {
        character(rest).map_or((1, true), |length| (length, false))
    } else if first.is_alphanumeric() || first == '_' {
        (rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len()), true)
    } else {
        (first.len_utf8(), true)
    }
}

fn block_comment(rest: &str) -> usize {
    let mut depth = 0_usize;
    for (at, pair) in rest.as_bytes().windows(2).enumerate() {
        match pair {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => continue,
        }
        if depth == 0 {
            return at + 2;
        }
    }
    rest.len()
}

fn string(rest: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in rest.bytes().enumerate().skip(1) {
        match byte {
            b'"' if !escaped => return at + 1,
            b'\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    rest.len()
}

/// The number of `#` of a raw string that starts here.
fn raw_string_hashes(rest: &str) -> Option<usize> {
    let behind = rest.strip_prefix('r')?;
    let hashes = behind.len() - behind.trim_start_matches('#').len();
    behind[hashes..].starts_with('"').then_some(hashes)
}

/// The length of a character literal; `None` for a lifetime.
fn character(rest: &str) -> Option<usize> {
    let mut chars = rest.char_indices().skip(1);
    let (_, first) = chars.next()?;
    if first == '\\' {
        let (at, _) = chars.nth(1).into_iter().chain(chars).find(|(_, c)| *c == '\'')?;
        return Some(at + 1);
    }
    let (at, second) = chars.next()?;
    (second == '\'').then_some(at + 1)
}

/// True if `word` stands in `line` by itself, not as a part of a longer name.
#[must_use]
pub fn says(line: &str, word: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back().is_some_and(is_name);
        let ends_in_name = word.chars().next_back().is_some_and(is_name);
        let after = ends_in_name && line[at + word.len()..].chars().next().is_some_and(is_name);
        !before && !after
    })
}

/// The lines before the tests at the end of a file, counted from 1.
pub(crate) fn lines_before_tests(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines: Vec<&str> = code.lines().collect();
    let is_start = |at: usize| {
        lines[at].trim() == "#[cfg(test)]" && lines.get(at + 1).is_some_and(|next| next.starts_with("mod "))
    };
    let end = (0..lines.len()).find(|at| is_start(*at)).unwrap_or(lines.len());
    lines.into_iter().take(end).enumerate().map(|(at, line)| (at + 1, line))
}

/// A file opens with its one job.
#[must_use]
pub fn opens_with_its_job(path: &str, text: &str) -> Vec<Finding> {
    let opens = text.trim_start_matches("#!/usr/bin/env run-cargo-script\n").starts_with("//! ");
    if opens { Vec::new() } else { vec![Finding::of(path, "open the file with `//!` and its one job")] }
}

/// A file is small enough to be read.
#[must_use]
pub fn is_readable(path: &str, text: &str) -> Vec<Finding> {
    let lines = text.lines().count();
    let message = format!("{lines} lines, at most {LINES_MAX}: split it by sense");
    if lines > LINES_MAX { vec![Finding::of(path, message)] } else { Vec::new() }
}

/// Nothing is left undone, and no test is switched off.
#[must_use]
pub fn is_finished(path: &str, text: &str) -> Vec<Finding> {
    // Spelled in two parts, so that this file does not catch itself.
    let anywhere = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    let in_code =
        [concat!("db", "g!"), concat!("to", "do!"), concat!("unimple", "mented!"), concat!("#[ig", "nore")];
    let code = if path.ends_with(".rs") { code_only(text) } else { String::new() };
    let lines = text.lines().map(|line| (line, &anywhere[..]));
    let code_lines = code.lines().map(|line| (line, &in_code[..]));
    lines
        .enumerate()
        .chain(code_lines.enumerate())
        .flat_map(|(at, (line, words))| {
            let said = words
                .iter()
                .filter(move |word| says(line, word) || line.contains(**word) && word.starts_with('#'));
            said.map(move |word| Finding::at(path, at + 1, format!("`{word}`: finish it")))
        })
        .collect()
}

/// The only crates with `unsafe`: files and their buffers; cache hints and large pages.
const UNSAFE_HOMES: [&str; 2] = ["crates/storage/", "crates/memory/"];

fn may_be_unsafe(path: &str) -> bool {
    UNSAFE_HOMES.iter().any(|home| path.starts_with(home))
}

/// `unsafe` lives in two small crates alone, each block with its reason.
#[must_use]
pub fn unsafe_is_confined(path: &str, text: &str) -> Vec<Finding> {
    let code = code_only(text);
    let lines: Vec<&str> = text.lines().collect();
    let has_reason = |at: usize| {
        let above = lines[..at].iter().rev().take_while(|line| line.trim_start().starts_with("//"));
        above.chain([&lines[at]]).any(|line| line.contains("SAFETY: "))
    };
    let is_home = may_be_unsafe(path);
    code.lines()
        .enumerate()
        .filter(|(_, line)| says(line, "unsafe"))
        .filter_map(|(at, _)| match (is_home, has_reason(at)) {
            (false, _) => {
                Some(Finding::at(path, at + 1, "`unsafe` lives in crates/storage and crates/memory alone"))
            }
            (true, false) => Some(Finding::at(path, at + 1, "say why it is sound: `// SAFETY: `")),
            (true, true) => None,
        })
        .collect()
}

/// Reads the environment, but only where everything is compiled with `--cfg sabotage`; elsewhere it is a literal.
const SABOTAGE: &str = "crates/protocol/src/sabotage.rs";

/// The code of a pure crate takes everything as an argument. Its tests may do as they like.
#[must_use]
pub fn is_pure(path: &str, text: &str) -> Vec<Finding> {
    if path == SABOTAGE {
        return Vec::new();
    }
    let code = code_only(text);
    let mut findings = Vec::new();
    for (line, content) in lines_before_tests(&code) {
        for (word, why) in IMPURE.iter().filter(|(word, _)| says(content, word)) {
            findings.push(Finding::at(path, line, format!("`{word}` in a pure crate: {why}")));
        }
    }
    findings
}

/// A pure crate's root says that it is one.
#[must_use]
pub fn declares_purity(path: &str, text: &str) -> Vec<Finding> {
    let code = code_only(text);
    let forbids_unsafe = (!may_be_unsafe(path)).then_some("#![forbid(unsafe_code)]");
    ["#![no_std]"]
        .into_iter()
        .chain(forbids_unsafe)
        .filter(|attribute| !code.lines().any(|line| line.trim() == *attribute))
        .map(|attribute| Finding::of(path, format!("a pure crate's root says `{attribute}`")))
        .collect()
}

/// Paths of somebody's machine do not belong into the repository.
#[must_use]
pub fn is_at_home_everywhere(path: &str, text: &str) -> Vec<Finding> {
    let places = [
        concat!("/wo", "rk/"),
        concat!("/fa", "rm/"),
        concat!("/ro", "ot/"),
        concat!("/ho", "me/"),
        concat!("/Us", "ers/"),
    ];
    let lines = text.lines().enumerate();
    let found = lines.filter_map(|(at, line)| {
        let place = places.iter().find(|place| line.contains(**place))?;
        Some(Finding::at(path, at + 1, format!("`{place}` is a path of one machine")))
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines at which a rule finds something.
    fn check(rule: fn(&str, &str) -> Vec<Finding>, path: &str, text: &str, expect: &[usize]) {
        let lines: Vec<usize> = rule(path, text).iter().map(|finding| finding.line).collect();
        assert_eq!(lines, expect, "{path}: {text}");
    }

    #[test]
    fn code_is_told_from_words() {
        let check = |text: &str, expect: &str| assert_eq!(code_only(text), expect, "{text}");
        check("a // b\nc", "a     \nc");
        check("a /* b /* c */ d */ e", "a                   e");
        check(r#"f("un\"safe") g"#, "f(          ) g");
        check("r#\"a\"b\"# x", "         x");
        check("bar\"x\" y", "bar    y");
        check("let c = '\"'; d", "let c =    ; d");
        check(r"let c = '\''; d", "let c =     ; d");
        check(r"let c = '\u{1f}'; d", "let c =         ; d");
        check("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}");
        check("\"open", "     ");
    }

    #[test]
    fn words_are_whole() {
        assert!(says("use std::fs;", "std::") && says("x: f64", "f64") && says("(Instant)", "Instant"));
        assert!(!says("my_std::x", "std::") && !says("f64x2", "f64") && !says("Instantly", "Instant"));
        assert!(!says("forbid(unsafe_code)", "unsafe") && says("unsafe {", "unsafe"));
    }

    #[test]
    fn headers() {
        check(opens_with_its_job, "a.rs", "//! Does a thing.\n", &[]);
        check(opens_with_its_job, "a.rs", "// Does a thing.\n", &[0]);
        check(opens_with_its_job, "a.rs", "use x;\n//! Late.\n", &[0]);
    }

    #[test]
    fn lengths() {
        check(is_readable, "a.rs", &"\n".repeat(LINES_MAX), &[]);
        check(is_readable, "a.rs", &"\n".repeat(LINES_MAX + 1), &[0]);
    }

    #[test]
    fn leftovers() {
        check(is_finished, "a.rs", "fn a() {}\n", &[]);
        check(is_finished, "a.rs", concat!("x\n// TO", "DO later\n"), &[2]);
        check(is_finished, "a.md", concat!("FIX", "ME\n"), &[1]);
        check(is_finished, "a.rs", concat!("x(db", "g!(1));\n"), &[1]);
        check(is_finished, "a.rs", concat!("#[ig", "nore]\n#[ig", "nore = \"slow\"]\n"), &[1, 2]);
        check(is_finished, "a.rs", concat!("// never a db", "g! here\n"), &[]);
        check(is_finished, "a.rs", "let s = \"autodoc\";\n", &[]);
    }

    #[test]
    fn unsafe_blocks() {
        let reasoned = "// SAFETY: nobody else has it.\nunsafe { x() }\n";
        check(unsafe_is_confined, "crates/storage/src/a.rs", reasoned, &[]);
        check(unsafe_is_confined, "crates/storage/src/a.rs", "unsafe { x() }\n", &[1]);
        check(unsafe_is_confined, "crates/memory/src/a.rs", reasoned, &[]);
        check(unsafe_is_confined, "crates/wal/src/a.rs", reasoned, &[2]);
        check(unsafe_is_confined, "crates/wal/src/a.rs", "#![forbid(unsafe_code)] // unsafe\n", &[]);
    }

    #[test]
    fn purity() {
        let tested = "fn a() {}\n#[cfg(test)]\nmod tests {\n    use std::collections::HashMap;\n}\n";
        check(is_pure, "a.rs", tested, &[]);
        check(is_pure, "a.rs", "use std::fs;\n", &[1]);
        check(is_pure, "a.rs", "fn a(t: Instant) -> f64 {}\n", &[1, 1]);
        check(is_pure, "a.rs", "use core::time::Duration;\n// std::fs is not for us\n", &[]);
        check(is_pure, "a.rs", "let x = rand::random();\nasync fn a() {}\n", &[1, 2]);
        check(declares_purity, "lib.rs", "#![no_std]\n#![forbid(unsafe_code)]\n", &[]);
        check(declares_purity, "lib.rs", "// #![no_std]\n#![forbid(unsafe_code)]\n", &[0]);
        check(declares_purity, "lib.rs", "#![no_std]\n", &[0]);
        check(declares_purity, "crates/memory/src/lib.rs", "#![no_std]\n", &[]);
        check(declares_purity, "lib.rs", "", &[0, 0]);
    }

    #[test]
    fn places() {
        check(is_at_home_everywhere, "a.md", "see docs/flow.svg and /var/lib/surety\n", &[]);
        check(is_at_home_everywhere, "a.md", concat!("x\nsee /ho", "me/me/notes\n"), &[2]);
    }
}
