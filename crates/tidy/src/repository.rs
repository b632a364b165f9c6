//! The files of the repository, read once.

use std::fs;
use std::path::{Path, PathBuf};

/// A text file.
#[derive(Clone, Debug)]
pub struct File {
    /// From the root of the repository, with `/`.
    pub path: String,
    /// What it says.
    pub text: String,
}

/// All text files but those that builds leave behind.
#[derive(Clone, Debug)]
pub struct Repository {
    /// In the order of their paths.
    pub files: Vec<File>,
}

/// Directories that hold nothing of ours.
const SKIPPED: &[&str] = &["target", ".git", "node_modules", "corpus", "artifacts"];

impl Repository {
    /// Reads the repository that this crate belongs to.
    ///
    /// # Panics
    /// If a directory cannot be read. Files that are not UTF-8 are left out.
    #[must_use]
    pub fn here() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut files = Vec::new();
        read_directory(&root, &PathBuf::new(), &mut files);
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Self { files }
    }

    /// The file at a path.
    #[must_use]
    pub fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    /// Files with this ending.
    pub fn ending<'a>(&'a self, ending: &'a str) -> impl Iterator<Item = &'a File> {
        self.files.iter().filter(move |file| file.path.ends_with(ending))
    }

    /// The manifests of the members; the fuzz targets are a workspace of their own, since they need a nightly toolchain.
    pub fn manifests(&self) -> impl Iterator<Item = &File> {
        self.ending("/Cargo.toml").filter(|file| file.path != "fuzz/Cargo.toml")
    }
}

fn read_directory(root: &Path, below: &Path, files: &mut Vec<File>) {
    let directory = root.join(below);
    let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    for entry in entries.flatten() {
        let name = entry.file_name();
        let path = below.join(&name);
        // A file that vanishes while we look is not ours to judge.
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() && !SKIPPED.iter().any(|skipped| name == *skipped) {
            read_directory(root, &path, files);
        } else if kind.is_file()
            && let Ok(text) = fs::read_to_string(root.join(&path))
        {
            files.push(File { path: path.to_string_lossy().replace('\\', "/"), text });
        }
    }
}
