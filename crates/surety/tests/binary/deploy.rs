//! The files in `deploy/`: what they say to the program is what it understands.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::process::surety;

/// Schemas that the manifests are held against.
const KUBERNETES: &str = "1.33.1";
/// Models of the Prometheus operator's kinds.
const PROMETHEUS_OPERATOR: &str = "0.80.1.0";
/// Directories that kustomize renders.
const MANIFESTS: [&str; 3] = ["base", "init", "volume"];

fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(name)
}

fn files_in(directory: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(deploy(directory)).unwrap();
    let mut files: Vec<_> =
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect();
    files.sort();
    assert!(!files.is_empty(), "{directory}");
    files
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

/// Runs a tool to its end; `None` if it is not here.
fn run(program: &Path, args: &[&str]) -> Option<(bool, String)> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().ok()?;
    let said = [output.stdout, output.stderr].concat();
    Some((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
}

/// The words of a command line that stands in some file.
fn words(line: &str) -> Vec<String> {
    let is_separator = |letter: char| letter.is_whitespace() || "[],\"".contains(letter);
    line.split(is_separator).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Every command line of the program that a file in `deploy/` holds: subcommands and options.
fn command_lines() -> Vec<Vec<String>> {
    let mut lines = Vec::new();
    let mut take = |path: &Path, before: &str| {
        let before_count = lines.len();
        let text = text(path);
        lines.extend(text.lines().filter_map(|line| line.trim().strip_prefix(before)).map(words));
        assert!(lines.len() > before_count, "no command in {}", path.display());
    };
    for unit in files_in("systemd") {
        take(&unit, "ExecStart=/usr/local/bin/surety ");
    }
    take(&deploy("container/Containerfile"), "CMD ");
    take(&deploy("container/compose.yaml"), "command: ");
    take(&deploy("kubernetes/base/statefulset.yaml"), "args: ");
    take(&deploy("kubernetes/init/job.yaml"), "args: ");
    lines
}

#[test]
fn every_command_in_them_is_one_of_the_program() {
    for line in command_lines() {
        let subcommands: Vec<&str> =
            line.iter().map(String::as_str).take_while(|word| !word.starts_with("--")).collect();
        let help = surety(&[subcommands.as_slice(), &["--help"]].concat()).exits(0).stdout;
        for option in line.iter().filter(|word| word.starts_with("--")) {
            assert!(help.contains(&format!("{option} ")), "{line:?}: no {option}");
        }
    }
}

#[test]
fn settings_are_taken_as_they_are() {
    for file in files_in("config") {
        let printed =
            surety(&["serve", "--config", file.to_str().unwrap(), "--print-config"]).exits(0).stdout;
        let value = |text: &str, key: &str| {
            let found = text.lines().find_map(|line| line.strip_prefix(key)?.trim().strip_prefix("= "));
            found.map(str::to_owned).unwrap_or_else(|| panic!("no {key} in {text}"))
        };
        for key in ["data", "durability", "retain_records"] {
            let [given, taken] = [&text(&file), &printed].map(|text| value(text, key).replace('_', ""));
            assert_eq!(given, taken, "{key} of {}", file.display());
        }
    }
}

#[test]
fn systemd_understands_the_units() {
    let directory = tempfile::tempdir().unwrap();
    for unit in files_in("systemd") {
        // The program is not installed here.
        let installed = text(&unit).replace("/usr/local/bin/surety", env!("CARGO_BIN_EXE_surety"));
        let file = directory.path().join(unit.file_name().unwrap());
        fs::write(&file, installed).unwrap();
    }
    let units =
        fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path().display().to_string());
    let args: Vec<String> = ["verify", "--man=no"].map(str::to_owned).into_iter().chain(units).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match run(Path::new("systemd-analyze"), &args) {
        None => eprintln!("SKIPPED: no systemd-analyze here, so nobody reads the units"),
        Some((is_fine, said)) => assert!(is_fine && !said.contains("Unknown"), "{said}"),
    }
}

#[test]
fn units_leave_little_open() {
    // Tenths of systemd's own scale, from 0 (nothing) to 100 (everything).
    const EXPOSURE_MAX: &str = "--threshold=20";
    for unit in files_in("systemd") {
        let args = ["security", "--offline=true", EXPOSURE_MAX, unit.to_str().unwrap()];
        match run(Path::new("systemd-analyze"), &args) {
            None => eprintln!("SKIPPED: no systemd-analyze here, so nobody judges the units"),
            Some((is_fine, said)) => assert!(is_fine, "{said}"),
        }
    }
}

#[test]
fn an_engine_whose_directory_is_in_use_is_started_again_and_one_of_a_forensic_copy_is_not() {
    let unit = text(&deploy("systemd/surety.service"));
    let line = unit.lines().find_map(|line| line.strip_prefix("RestartPreventExitStatus="));
    let exits: Vec<&str> = line.unwrap().split(' ').collect();
    assert!(!exits.contains(&"5"), "a backup of a closed directory holds it for a while");
    assert_eq!(exits, ["2", "3", "4", "6", "7", "8", "12"]);
    assert!(unit.contains("\nRestart=on-failure\n"));
    assert!(
        unit.contains("\nOOMPolicy=continue\n"),
        "the kernel ends the history, and nobody the engine for that"
    );
}

#[test]
fn kustomizations_name_every_file_beside_them() {
    for directory in MANIFESTS {
        let directory = format!("kubernetes/{directory}");
        let kustomization = text(&deploy(&directory).join("kustomization.yaml"));
        for file in files_in(&directory) {
            let name = file.file_name().unwrap().to_str().unwrap();
            assert!(
                name == "kustomization.yaml" || kustomization.contains(name),
                "{directory} forgets {name}"
            );
        }
    }
}

#[test]
fn compose_understands_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("compose.yaml");
    // The project's name is newer than the tool that Debian has.
    let shipped = text(&deploy("container/compose.yaml")).replace("name: surety\n", "");
    let check = |text: &str| {
        fs::write(&copy, text).unwrap();
        run(Path::new("docker-compose"), &["-f", copy.to_str().unwrap(), "config", "--quiet"])
    };
    let Some((is_fine, said)) = check(&shipped) else {
        return eprintln!("SKIPPED: no docker-compose here, so nobody reads the compose file");
    };
    assert!(is_fine, "{said}");
    let (is_fine, _) = check(&shipped.replace("read_only", "read_onyl")).unwrap();
    assert!(!is_fine, "what is no option is noticed");
}

/// A directory with Python's checkers of manifests: Kubernetes' own kinds, and those of the Prometheus operator. None, loudly, if they cannot be had.
fn checkers() -> Option<tempfile::TempDir> {
    let directory = tempfile::tempdir().unwrap();
    let venv = directory.path().to_str().unwrap();
    let install = format!(
        "python3 -m venv {venv} && {venv}/bin/pip install -q --disable-pip-version-check \
         kubernetes-validate=={KUBERNETES} cloudcoil-models-prometheus-operator=={PROMETHEUS_OPERATOR}"
    );
    let is_there = run(Path::new("sh"), &["-c", &install]).is_some_and(|(is_there, _)| is_there);
    if !is_there {
        eprintln!(
            "SKIPPED: no checkers of manifests from PyPI here, so nothing is held against Kubernetes' schemas"
        );
    }
    is_there.then_some(directory)
}

/// What the operator's model takes of a document is the whole document: a field that it does not know is one that is missing afterwards.
const IS_A_MONITOR: &str = "
import sys, yaml
from cloudcoil.models.prometheus_operator.v1 import ServiceMonitor
given = yaml.safe_load(open(sys.argv[1]))
taken = ServiceMonitor.model_validate(given).model_dump(by_alias=True, exclude_unset=True, mode='json')
sys.exit(0 if given == taken else f'{given} is taken as {taken}')
";

/// Holds one document against the schema of its kind.
fn check_manifest(checkers: &Path, file: &Path) -> (bool, String) {
    let name = file.to_str().unwrap();
    if text(file).contains("\nkind: ServiceMonitor") {
        return run(&checkers.join("bin/python"), &["-c", IS_A_MONITOR, name]).unwrap();
    }
    let (is_valid, said) =
        run(&checkers.join("bin/kubernetes-validate"), &["-k", KUBERNETES, "--strict", name]).unwrap();
    (is_valid && said.contains("passed"), said)
}

#[test]
fn manifests_are_what_kubernetes_takes() {
    let Some(checkers) = checkers() else { return };
    let directories = MANIFESTS.map(|name| format!("kubernetes/{name}"));
    let files = directories.iter().flat_map(|name| files_in(name));
    // Kustomize's own kind is read by kustomize.
    for file in files.filter(|file| !text(file).contains("kind: Kustomization")) {
        let (is_valid, said) = check_manifest(checkers.path(), &file);
        assert!(is_valid, "{}: {said}", file.display());
    }
    let monitor = text(&deploy("kubernetes/base/monitor.yaml"));
    let wrong = checkers.path().join("wrong.yaml");
    for (right, other) in [("interval:", "intervall:"), ("15s", "15 seconds"), ("selector:", "selectors:")] {
        assert!(monitor.contains(right));
        fs::write(&wrong, monitor.replace(right, other)).unwrap();
        assert!(!check_manifest(checkers.path(), &wrong).0, "{other} is noticed");
    }
}

#[test]
fn what_kustomize_makes_of_them_is_what_kubernetes_takes() {
    let kubectl = Path::new("kubectl");
    if run(kubectl, &["version", "--client"]).is_none() {
        return eprintln!("SKIPPED: no kubectl here, so nobody renders the manifests");
    }
    let rendered = MANIFESTS.map(|name| {
        let directory = deploy("kubernetes").join(name);
        let (is_fine, said) = run(kubectl, &["kustomize", directory.to_str().unwrap()]).unwrap();
        assert!(is_fine, "{name}: {said}");
        said
    });
    let documents: Vec<&str> = rendered.iter().flat_map(|said| said.split("\n---\n")).collect();
    let kind = |document: &&str| {
        let kind = document.lines().find_map(|line| line.strip_prefix("kind: "));
        kind.map(str::to_owned).unwrap_or_else(|| panic!("no kind: {document}"))
    };
    let mut kinds: Vec<String> = documents.iter().map(kind).collect();
    kinds.sort();
    let expected = "Job Namespace NetworkPolicy PersistentVolumeClaim PodDisruptionBudget Service ServiceAccount ServiceMonitor StatefulSet";
    assert_eq!(kinds.join(" "), expected);
    for document in &documents {
        let is_placed =
            document.contains("\n  namespace: surety\n") || document.ends_with("\n  namespace: surety");
        assert!(is_placed || kind(document) == "Namespace", "{document}");
    }
    let Some(checkers) = checkers() else { return };
    let file = checkers.path().join("rendered.yaml");
    for document in &documents {
        fs::write(&file, format!("\n{document}")).unwrap();
        let (is_valid, said) = check_manifest(checkers.path(), &file);
        assert!(is_valid, "{document}: {said}");
    }
}
