//! Rules about manifests and the lock file.

use std::collections::BTreeSet;

use toml::{Table, Value};

use crate::Finding;

/// Packages that are published; nothing else is.
pub const PUBLISHED: &[&str] = &["surety-protocol", "surety-client"];

/// Versions below which a dependency has a known fault that touches us.
pub const FLOORS: &[(&str, [u64; 3])] = &[
    ("quinn-proto", [0, 11, 15]),
    ("rustls", [0, 23, 18]),
    ("rustls-webpki", [0, 103, 13]),
    ("rkyv", [0, 8, 17]),
    ("ruint", [1, 20, 0]),
    ("bytes", [1, 11, 1]),
    ("crossbeam-channel", [0, 5, 15]),
];

/// Crates that stay out, and why.
pub const BANNED: &[(&str, &str)] = &[("bincode", "unmaintained; rkyv is the one codec")];

/// Every foreign dependency of the workspace has its reason in a comment right above it.
#[must_use]
pub fn dependencies_have_reasons(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut is_inside = false;
    let mut above = "";
    for (at, line) in text.lines().enumerate() {
        if line.starts_with('[') {
            is_inside = line == "[workspace.dependencies]";
        }
        let is_dependency = is_inside && line.contains(" = ") && !line.starts_with('#');
        let is_ours = line.contains("path = \"");
        if is_dependency && !is_ours && !above.starts_with("# ") {
            let name = line.split(' ').next().unwrap_or_default();
            findings.push(Finding::at(
                path,
                at + 1,
                format!("{name}: say in a comment above why it is here"),
            ));
        }
        above = line;
    }
    findings
}

/// Nothing stands in the workspace's list that no member uses.
#[must_use]
pub fn dependencies_are_used(workspace: &Table, members: &[Table]) -> Vec<Finding> {
    let listed = workspace.get("workspace").and_then(|workspace| workspace.get("dependencies"));
    let is_used = |name: &str| {
        let sections = ["dependencies", "dev-dependencies", "build-dependencies"];
        members.iter().any(|member| {
            sections.iter().any(|section| member.get(*section).is_some_and(|table| table.get(name).is_some()))
        })
    };
    let names = listed.and_then(Value::as_table).into_iter().flat_map(Table::keys);
    let unused = names.filter(|name| !is_used(name));
    unused.map(|name| Finding::of("Cargo.toml", format!("no member uses {name}: take it out"))).collect()
}

/// A member inherits version, edition and lints, and is published only if it is one of the two.
#[must_use]
pub fn member_is_in_step(path: &str, manifest: &Table) -> Vec<Finding> {
    let mut findings = Vec::new();
    let Some(package) = manifest.get("package").and_then(Value::as_table) else {
        return vec![Finding::of(path, "a manifest without a package")];
    };
    let inherits = |value: Option<&Value>| {
        value.and_then(|value| value.get("workspace")).and_then(Value::as_bool) == Some(true)
    };
    for key in ["version", "edition", "rust-version", "license"] {
        if !inherits(package.get(key)) {
            findings.push(Finding::of(path, format!("write `{key}.workspace = true`")));
        }
    }
    if !inherits(manifest.get("lints")) {
        findings.push(Finding::of(path, "write `[lints] workspace = true`"));
    }
    let name = package.get("name").and_then(Value::as_str).unwrap_or_default();
    let has_text = |key: &str| package.get(key).is_some_and(|value| value.as_str() != Some(""));
    if PUBLISHED.contains(&name) {
        if package.contains_key("publish") {
            findings.push(Finding::of(path, format!("{name} is published: no `publish` key")));
        }
        for key in ["description", "keywords", "categories", "readme"].iter().filter(|key| !has_text(key)) {
            findings.push(Finding::of(path, format!("{name} is published and has no {key}")));
        }
    } else if !inherits(package.get("publish")) {
        findings.push(Finding::of(path, "write `publish.workspace = true`"));
    }
    for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
        let table = manifest.get(section).and_then(Value::as_table);
        for (name, value) in table.into_iter().flatten() {
            // A published crate names the members that only its examples need by path, so that they stay out of the package.
            let is_path_for_tests = section == "dev-dependencies" && value.get("path").is_some();
            if !inherits(Some(value)) && !is_path_for_tests {
                let message =
                    format!("{section}.{name}: write `workspace = true`, so that its reason is written once");
                findings.push(Finding::of(path, message));
            }
        }
    }
    findings
}

/// The workspace's own version is the one that its crates ask of each other, and its toolchain is the pinned one.
#[must_use]
pub fn versions_agree(manifest: &Table, toolchain: &Table, changelog: &str) -> Vec<Finding> {
    let path = "Cargo.toml";
    let mut findings = Vec::new();
    let workspace = manifest.get("workspace");
    let package = workspace.and_then(|workspace| workspace.get("package"));
    let text =
        |key: &str| package.and_then(|package| package.get(key)).and_then(Value::as_str).unwrap_or_default();
    let version = text("version");
    let dependencies =
        workspace.and_then(|workspace| workspace.get("dependencies")).and_then(Value::as_table);
    for (name, value) in dependencies.into_iter().flatten() {
        let Some(target) = value.get("path").and_then(Value::as_str) else { continue };
        if target.starts_with("..") || target.starts_with('/') {
            findings.push(Finding::of(path, format!("{name} lies outside the repository")));
        }
        let asked = value.get("version").and_then(Value::as_str);
        let expected = PUBLISHED.contains(&name.as_str()).then_some(version);
        if asked != expected {
            findings.push(Finding::of(path, format!("{name}: version {asked:?}, expected {expected:?}")));
        }
    }
    let channel = toolchain.get("toolchain").and_then(|table| table.get("channel")).and_then(Value::as_str);
    let rust = text("rust-version");
    if !channel.is_some_and(|channel| channel == rust || channel.starts_with(&format!("{rust}."))) {
        findings.push(Finding::of(
            "rust-toolchain.toml",
            format!("channel {channel:?}, but rust-version {rust}"),
        ));
    }
    if !changelog.contains(&format!("## [{version}]")) {
        findings.push(Finding::of("CHANGELOG.md", format!("no section `## [{version}]`")));
    }
    findings
}

/// Locked versions keep the floors, come from the registry, and are releases.
#[must_use]
pub fn lock_is_sound(lock: &Table) -> Vec<Finding> {
    let path = "Cargo.lock";
    let mut findings = Vec::new();
    let packages = lock.get("package").and_then(Value::as_array);
    for package in packages.into_iter().flatten() {
        let text = |key: &str| package.get(key).and_then(Value::as_str).unwrap_or_default();
        let (name, version, source) = (text("name"), text("version"), text("source"));
        let floor = FLOORS.iter().find(|(floored, _)| *floored == name);
        if let Some((_, floor)) = floor.filter(|(_, floor)| numbers(version) < *floor) {
            findings.push(Finding::of(path, format!("{name} {version}, at least {floor:?} needed")));
        }
        if let Some((_, why)) = BANNED.iter().find(|(banned, _)| *banned == name) {
            findings.push(Finding::of(path, format!("{name}: {why}")));
        }
        if !source.is_empty() && !source.starts_with("registry+https://github.com/rust-lang/crates.io-index")
        {
            findings.push(Finding::of(path, format!("{name} comes from {source}")));
        }
        let release = version.split('+').next().unwrap_or_default();
        if release.contains('-') {
            findings.push(Finding::of(path, format!("{name} {version} is no release")));
        }
    }
    findings
}

/// The lock file of the fuzz targets, a workspace of their own, is of the members as they are and of the versions that ship:
/// otherwise the first fuzz run changes it, and what is fuzzed is not what runs.
#[must_use]
pub fn fuzz_lock_is_in_step(fuzz: &Table, lock: &Table, members: &[Table]) -> Vec<Finding> {
    let path = "fuzz/Cargo.lock";
    let mut findings = Vec::new();
    for package in packages(fuzz) {
        let (name, version) = (text_of(package, "name"), text_of(package, "version"));
        let mut shipped = packages(lock).filter(|shipped| text_of(shipped, "name") == name).peekable();
        if shipped.peek().is_some() && !shipped.any(|shipped| text_of(shipped, "version") == version) {
            findings.push(Finding::of(path, format!("{name} {version} is not in Cargo.lock")));
        }
        let is_it =
            |member: &&Table| member.get("package").is_some_and(|member| text_of(member, "name") == name);
        if let Some(member) = members.iter().find(is_it)
            && locked_dependencies(package) != declared_dependencies(member)
        {
            findings
                .push(Finding::of(path, format!("{name} has other dependencies now: build a fuzz target")));
        }
    }
    findings
}

fn packages(lock: &Table) -> impl Iterator<Item = &Value> {
    lock.get("package").and_then(Value::as_array).into_iter().flatten()
}

fn text_of<'a>(table: &'a Value, key: &str) -> &'a str {
    table.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// Names alone: a version follows where there are several.
fn locked_dependencies(package: &Value) -> BTreeSet<&str> {
    let dependencies = package.get("dependencies").and_then(Value::as_array);
    let names = dependencies.into_iter().flatten().filter_map(Value::as_str);
    names.filter_map(|dependency| dependency.split(' ').next()).collect()
}

/// Of every platform; those of tests alone are not locked elsewhere.
fn declared_dependencies(member: &Table) -> BTreeSet<&str> {
    let platforms = member.get("target").and_then(Value::as_table).into_iter().flatten();
    let tables = platforms.filter_map(|(_, platform)| platform.as_table()).chain([member]);
    let sections =
        tables.flat_map(|table| ["dependencies", "build-dependencies"].map(|section| table.get(section)));
    sections.flatten().filter_map(Value::as_table).flat_map(Table::keys).map(String::as_str).collect()
}

/// The three numbers of a version.
fn numbers(version: &str) -> [u64; 3] {
    let mut parts = version.split(['.', '-', '+']).map(|part| part.parse().unwrap_or(0));
    [(); 3].map(|()| parts.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(findings: &[Finding], expect: usize) {
        assert_eq!(findings.len(), expect, "{findings:?}");
    }

    #[test]
    fn reasons() {
        let check = |text: &str, expect: usize| check(&dependencies_have_reasons("Cargo.toml", text), expect);
        check(
            "[workspace.dependencies]\n# Why.\na = \"1\"\n# Ours.\nb = { path = \"b\" }\nc = { path = \"c\" }\n",
            0,
        );
        check("[workspace.dependencies]\n# Why.\na = \"1\"\nb = \"1\"\n", 1);
        check("[workspace.dependencies]\n\na = \"1\"\n", 1);
        check("[workspace.lints.rust]\na = \"1\"\n", 0);
    }

    #[test]
    fn uses() {
        let workspace: Table = "[workspace.dependencies]\na = \"1\"\nb = \"1\"\n".parse().unwrap();
        let member =
            |section: &str, name: &str| -> Table { format!("[{section}]\n{name} = {{}}\n").parse().unwrap() };
        check(
            &dependencies_are_used(
                &workspace,
                &[member("dependencies", "a"), member("dev-dependencies", "b")],
            ),
            0,
        );
        check(&dependencies_are_used(&workspace, &[member("dependencies", "a")]), 1);
        check(&dependencies_are_used(&workspace, &[]), 2);
    }

    #[test]
    fn members() {
        let check = |text: &str, expect: usize| {
            check(&member_is_in_step("x/Cargo.toml", &text.parse().unwrap()), expect)
        };
        let common = "version.workspace = true\nedition.workspace = true\nrust-version.workspace = true\nlicense.workspace = true\n";
        let lints = "[lints]\nworkspace = true\n";
        let own = format!("[package]\nname = \"wal\"\n{common}publish.workspace = true\n{lints}");
        check(&own, 0);
        check(&format!("{own}[dependencies]\na = {{ workspace = true }}\n"), 0);
        check(&format!("{own}[dependencies]\na = \"1\"\n"), 1);
        check(&format!("{own}[dev-dependencies]\na = {{ path = \"../a\" }}\n"), 0);
        check(&format!("{own}[dependencies]\na = {{ path = \"../a\" }}\n"), 1);
        check(&format!("[package]\nname = \"wal\"\n{common}{lints}"), 1);
        check(&format!("[package]\nname = \"wal\"\n{common}publish.workspace = true\n"), 1);
        check(&own.replace("version.workspace = true\nedition", "version = \"2\"\nedition"), 1);
        let named = "description = \"d\"\nkeywords = [\"k\"]\ncategories = [\"c\"]\nreadme = \"README.md\"\n";
        check(&format!("[package]\nname = \"surety-client\"\n{common}{named}{lints}"), 0);
        check(&format!("[package]\nname = \"surety-client\"\n{common}{lints}"), 4);
        check(&format!("[package]\nname = \"surety-client\"\n{common}{named}publish = false\n{lints}"), 1);
    }

    #[test]
    fn versions() {
        let manifest = |dependencies: &str| -> Table {
            let package = "[workspace.package]\nversion = \"0.1.0\"\nrust-version = \"1.95\"\n";
            format!("{package}[workspace.dependencies]\n{dependencies}").parse().unwrap()
        };
        let toolchain: Table = "[toolchain]\nchannel = \"1.95.0\"\n".parse().unwrap();
        let changelog = "## [0.1.0]\n";
        let both = "surety-protocol = { path = \"a\", version = \"0.1.0\" }\nwal = { path = \"b\" }\n";
        check(&versions_agree(&manifest(both), &toolchain, changelog), 0);
        check(&versions_agree(&manifest(&both.replace("0.1.0", "0.2.0")), &toolchain, changelog), 1);
        check(
            &versions_agree(&manifest("wal = { path = \"b\", version = \"0.1.0\" }"), &toolchain, changelog),
            1,
        );
        check(&versions_agree(&manifest("wal = { path = \"../b\" }"), &toolchain, changelog), 1);
        check(&versions_agree(&manifest(both), &Table::new(), changelog), 1);
        check(&versions_agree(&manifest(both), &toolchain, "## [0.0.9]\n"), 1);
    }

    #[test]
    fn locks() {
        let lock = |name: &str, version: &str, source: &str| -> Table {
            format!("[[package]]\nname = \"{name}\"\nversion = \"{version}\"\nsource = \"{source}\"\n")
                .parse()
                .unwrap()
        };
        let registry = "registry+https://github.com/rust-lang/crates.io-index";
        check(&lock_is_sound(&lock("quinn-proto", "0.11.15", registry)), 0);
        check(&lock_is_sound(&lock("quinn-proto", "0.12.0", registry)), 0);
        check(&lock_is_sound(&lock("quinn-proto", "0.11.14", registry)), 1);
        check(&lock_is_sound(&lock("ruint", "1.19.9", registry)), 1);
        check(&lock_is_sound(&lock("bincode", "2.0.0", registry)), 1);
        check(&lock_is_sound(&lock("a", "1.0.0", "git+https://example.org/a")), 1);
        check(&lock_is_sound(&lock("a", "1.0.0-rc.1", registry)), 1);
        check(&lock_is_sound(&lock("a", "1.0.0+b-1", registry)), 0);
        check(&lock_is_sound(&"[[package]]\nname = \"ours\"\nversion = \"0.1.0\"\n".parse().unwrap()), 0);
    }

    #[test]
    fn fuzz_locks() {
        let lock = |a: &str, dependencies: &str| -> Table {
            let ours = format!(
                "[[package]]\nname = \"wal\"\nversion = \"0.1.0\"\ndependencies = [{dependencies}]\n"
            );
            format!("{ours}[[package]]\nname = \"a\"\nversion = \"{a}\"\n").parse().unwrap()
        };
        let wal: Table = "[package]\nname = \"wal\"\n[dependencies]\na = {}\n[dev-dependencies]\nb = {}\n\
                          [target.'cfg(loom)'.dependencies]\nc = {}\n"
            .parse()
            .unwrap();
        let shipped = lock("1.0.0", "\"a\", \"b\", \"c\"");
        let check = |fuzz: &Table, expect| {
            check(&fuzz_lock_is_in_step(fuzz, &shipped, core::slice::from_ref(&wal)), expect);
        };
        check(&lock("1.0.0", "\"a 1.0.0\", \"c\""), 0);
        check(&lock("1.0.1", "\"a\", \"c\""), 1);
        check(&lock("1.0.0", "\"a\""), 1);
        check(&lock("1.0.0", "\"a\", \"c\", \"d\""), 1);
        check(&"[[package]]\nname = \"libfuzzer-sys\"\nversion = \"0.4.0\"\n".parse().unwrap(), 0);
    }
}
