//! The files in `deploy/`: what they say to the program is what it understands.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::process::surety;

/// Schemas that the manifests are held against.
const KUBERNETES: &str = "1.33.1";

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
    for directory in ["base", "init", "volume"] {
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

#[test]
fn manifests_are_what_kubernetes_takes() {
    let directory = tempfile::tempdir().unwrap();
    let venv = directory.path().to_str().unwrap();
    let install = format!(
        "python3 -m venv {venv} && {venv}/bin/pip install -q --disable-pip-version-check kubernetes-validate=={KUBERNETES}"
    );
    if !run(Path::new("sh"), &["-c", &install]).is_some_and(|(is_there, _)| is_there) {
        eprintln!(
            "SKIPPED: no kubernetes-validate from PyPI here, so nothing is held against Kubernetes' schemas"
        );
        return;
    }
    let validate = directory.path().join("bin/kubernetes-validate");
    for path in ["base", "init", "volume"]
        .map(|name| format!("kubernetes/{name}"))
        .iter()
        .flat_map(|name| files_in(name))
    {
        // These two kinds are not Kubernetes' own.
        let is_own =
            !text(&path).contains("kind: Kustomization") && !text(&path).contains("kind: ServiceMonitor");
        if is_own {
            let args = ["-k", KUBERNETES, "--strict", path.to_str().unwrap()];
            let (is_valid, said) = run(&validate, &args).unwrap();
            assert!(is_valid && said.contains("passed"), "{}: {said}", path.display());
        }
    }
}
