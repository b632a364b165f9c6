//! Deliberate bugs: points in the code that go wrong on demand, to prove that the tests notice.
//!
//! They exist only where everything is compiled with `--cfg sabotage`, which the simulator's command `sabotage` does in a
//! target directory of its own. Everywhere else [`sabotage!`](crate::sabotage!) is the literal `false`, so nothing of it is
//! in a binary, not even its name. With the cfg the environment variable `BUG` names the one bug that is in force.

/// True if the named bug is in force: the literal `false`, unless compiled with `--cfg sabotage`.
#[cfg(not(sabotage))]
#[doc(hidden)]
#[macro_export]
macro_rules! sabotage {
    ($name:literal) => {
        false
    };
}

/// True if the named bug is in force.
#[cfg(sabotage)]
#[doc(hidden)]
#[macro_export]
macro_rules! sabotage {
    ($name:literal) => {
        $crate::is_sabotaged(::core::concat!("deliberate-bug:", $name))
    };
}

/// True if `BUG` names the bug behind the marker. The variable is read once.
#[cfg(sabotage)]
#[doc(hidden)]
#[must_use]
pub fn is_sabotaged(marker: &str) -> bool {
    extern crate std;
    static BUG: std::sync::OnceLock<std::string::String> = std::sync::OnceLock::new();
    let bug = BUG.get_or_init(|| std::env::var("BUG").unwrap_or_default());
    marker.strip_prefix("deliberate-bug:") == Some(bug.as_str())
}
