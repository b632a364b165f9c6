//! What people write: configuration and policies.

use surety::texts;

/// A configuration file; the same text, line by line, as variables of the environment.
pub(crate) fn settings(input: &[u8]) {
    let Ok(text) = core::str::from_utf8(input) else { return };
    if let Ok(printed) = texts::settings(text) {
        assert_eq!(texts::settings(&printed), Ok(printed.clone()), "what is printed reads back");
    }
    let variables = text.lines().filter_map(|line| line.split_once('='));
    let variables = variables.map(|(name, value)| (format!("SURETY__{name}"), value.to_owned()));
    if let Ok(printed) = texts::environment(variables) {
        assert_eq!(texts::settings(&printed), Ok(printed.clone()), "what is printed reads back");
    }
}

/// A policy as TOML or JSON.
pub(crate) fn policy(input: &[u8]) {
    let Ok(text) = core::str::from_utf8(input) else { return };
    if let Ok(policy) = texts::policy(text) {
        assert!(policy.is_valid());
        let again = texts::policy(&texts::policy_text(&policy));
        assert_eq!(again, Ok(policy), "a policy survives its text");
    }
}

/// Configurations to begin with; the last one in the form of the environment.
pub(crate) const SETTINGS: [&str; 3] = [
    "[server]\nlisten = '127.0.0.1:4433'\nadmin = '[::1]:9000'\ndurability = 'os'\nio = 'sync'\nguard = true\n",
    "[log]\nsegment_bytes = 67_108_864\nretain_records = 1000\n[clock]\nmax_gap = '24h'\n[limits]\nframe = '5s'\nstreams = 8\n",
    "SERVER__DATA=/var/lib/surety\nSERVER__PIN=true\nCLOCK__MAX_GAP=2h\nLIMITS__HANDSHAKE=\"2s\"\nLOG__SEGMENT_BYTES=0x40000\n",
];

/// Policies to begin with.
pub(crate) const POLICIES: [&str; 3] = [
    "lock_max = '1.5e18'\nlife_default = '20s'\nsettle_by_action = 'settle'\n[[categories]]\ncategory = 5812\ntolerance_bps = 2000\n",
    "{\"release_rule\": \"confirmations\", \"release_asset\": 3, \"release_confirmations\": 6, \"late_window\": \"90m\"}",
    "velocity_value = 1_500\nvelocity_count = 5\nvelocity_window = '1h'\nmerchants_listed = true\nedge_unit = '10'\n",
];
