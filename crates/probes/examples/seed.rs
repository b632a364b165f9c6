//! Writes the seeds of every probe into the corpus: `cargo run -p probes --example seed`. Run it when a format changes; what
//! a campaign has found beside them stays.

use std::path::Path;

fn main() -> std::io::Result<()> {
    for probe in probes::PROBES {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(probe.name);
        std::fs::create_dir_all(&folder)?;
        for (at, seed) in probes::seeds(probe.name).iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{at:02}")), seed)?;
        }
    }
    Ok(())
}
