//! The repository against its own rules.
#![allow(clippy::unwrap_used, reason = "a repository that cannot be read has failed")]

use tidy::layers::{self, LAYERS};
use tidy::{Finding, Repository, documents, manifests, order, source};
use toml::Table;

/// Fails with every finding in a line of its own.
fn expect_none(findings: impl IntoIterator<Item = Finding>) {
    let lines: Vec<String> = findings.into_iter().map(|finding| finding.to_string()).collect();
    assert!(lines.is_empty(), "\n{}\n", lines.join("\n"));
}

/// Applies a rule to every file with one of these endings.
fn each(endings: &[&str], rule: impl Fn(&str, &str) -> Vec<Finding>) {
    let repository = Repository::here();
    let is_meant = |path: &str| endings.iter().any(|ending| path.ends_with(ending));
    let files: Vec<_> = repository.files.iter().filter(|file| is_meant(&file.path)).collect();
    assert!(!files.is_empty(), "no file that ends in {endings:?}");
    expect_none(files.iter().flat_map(|file| rule(&file.path, &file.text)));
}

const TEXT: &[&str] =
    &[".rs", ".md", ".toml", ".yml", ".yaml", ".sh", ".ci/run", ".ci/campaign", ".svg", ".service"];

fn parse(repository: &Repository, path: &str) -> Table {
    let file = repository.file(path).unwrap_or_else(|| panic!("no {path}"));
    file.text.parse().unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn text<'a>(repository: &'a Repository, path: &str) -> &'a str {
    &repository.file(path).unwrap_or_else(|| panic!("no {path}")).text
}

#[test]
fn files_open_with_their_job() {
    each(&[".rs"], source::opens_with_its_job);
}

#[test]
fn files_are_readable() {
    each(&[".rs"], source::is_readable);
}

#[test]
fn nothing_is_left_undone() {
    each(TEXT, source::is_finished);
}

#[test]
fn unsafe_lives_in_storage() {
    each(&[".rs"], source::unsafe_is_confined);
}

#[test]
fn no_machine_is_named() {
    each(TEXT, source::is_at_home_everywhere);
}

#[test]
fn pure_crates_are_pure() {
    let repository = Repository::here();
    for layer in LAYERS.iter().filter(|layer| layer.is_pure) {
        let root = format!("{}/src/lib.rs", layer.directory);
        expect_none(source::declares_purity(&root, text(&repository, &root)));
        let folder = format!("{}/src/", layer.directory);
        let files: Vec<(&str, &str)> = repository
            .ending(".rs")
            .filter(|file| file.path.starts_with(&folder))
            .map(|file| (file.path.as_str(), file.text.as_str()))
            .collect();
        expect_none(files.iter().flat_map(|(path, text)| source::is_pure(path, text)));
        expect_none(order::tables_are_not_walked(&files));
    }
}

#[test]
fn arrows_point_down() {
    expect_none(layers::map_is_sound(LAYERS));
    let repository = Repository::here();
    let members: Vec<_> = repository.manifests().collect();
    assert!(members.len() >= 10, "manifests are found");
    expect_none(members.iter().flat_map(|file| {
        let manifest: Table = file.text.parse().unwrap();
        layers::arrows_point_down(&file.path, &manifest)
    }));
}

#[test]
fn manifests_are_in_step() {
    let repository = Repository::here();
    expect_none(repository.manifests().flat_map(|file| {
        let manifest: Table = file.text.parse().unwrap();
        manifests::member_is_in_step(&file.path, &manifest)
    }));
    expect_none(manifests::dependencies_have_reasons("Cargo.toml", text(&repository, "Cargo.toml")));
    let workspace = parse(&repository, "Cargo.toml");
    let toolchain = parse(&repository, "rust-toolchain.toml");
    expect_none(manifests::versions_agree(&workspace, &toolchain, text(&repository, "CHANGELOG.md")));
}

#[test]
fn the_lock_file_keeps_the_floors() {
    let repository = Repository::here();
    let lock = parse(&repository, "Cargo.lock");
    expect_none(manifests::lock_is_sound(&lock));
}

#[test]
fn what_is_fuzzed_is_what_runs() {
    let repository = Repository::here();
    let members: Vec<Table> = repository.manifests().map(|file| file.text.parse().unwrap()).collect();
    let (fuzz, lock) = (parse(&repository, "fuzz/Cargo.lock"), parse(&repository, "Cargo.lock"));
    expect_none(manifests::fuzz_lock_is_in_step(&fuzz, &lock, &members));
}

#[test]
fn workspace_dependencies_are_used() {
    let repository = Repository::here();
    let members: Vec<Table> = repository.manifests().map(|file| file.text.parse().unwrap()).collect();
    expect_none(manifests::dependencies_are_used(&parse(&repository, "Cargo.toml"), &members));
}

#[test]
fn documents_tell_the_truth() {
    let repository = Repository::here();
    expect_none(documents::first_commands_are_run(
        text(&repository, "README.md"),
        text(&repository, ".ci/run"),
    ));
    let members: Vec<&str> =
        repository.manifests().map(|file| file.path.trim_end_matches("/Cargo.toml")).collect();
    expect_none(documents::map_is_complete(text(&repository, "ARCHITECTURE.md"), &members));
    let exists = |path: &str| {
        let folder = format!("{path}/");
        repository.files.iter().any(|file| file.path == path || file.path.starts_with(&folder))
    };
    let documents = repository.ending(".md");
    expect_none(documents.flat_map(|file| documents::links_lead_somewhere(&file.path, &file.text, exists)));
}

#[test]
fn the_tests_that_verification_names_exist() {
    let repository = Repository::here();
    let is_function = |name: &str| {
        let head = format!("fn {name}(");
        repository.ending(".rs").any(|file| file.text.contains(&head))
    };
    expect_none(documents::tests_exist("VERIFICATION.md", text(&repository, "VERIFICATION.md"), is_function));
}

#[test]
fn versions_are_those_of_the_code() {
    let repository = Repository::here();
    let versioning = text(&repository, "VERSIONING.md");
    for (file, constant, row) in [
        ("crates/protocol/src/hello.rs", "PROTOCOL_VERSION", "wire"),
        ("crates/wal/src/format.rs", "VERSION", "log"),
        ("crates/wal/src/guard.rs", "VERSION", "guard ring"),
        ("crates/wal/src/snapshot.rs", "VERSION", "snapshot"),
        ("crates/backup/src/manifest.rs", "MANIFEST_VERSION", "backup"),
        ("crates/history/src/store.rs", "FORMAT", "history"),
    ] {
        let code = text(&repository, file);
        expect_none(documents::version_is_the_code_s(versioning, code, constant, row));
    }
}
