//! Services beside an engine that is restored without what they were told: they end, and their exit code says that starting them
//! again does not help.

use std::path::PathBuf;

use alloy_primitives::B256;
use rustix::process::Signal;
use settlement::Word;

use crate::answerer::World;
use crate::backup::{backup, ends, restore_to_serve};
use crate::certify::certificate;
use crate::process::{Data, Engine};

const DECLINED: i32 = 10;

#[test]
fn a_settler_and_a_certifier_of_a_lost_life_end() {
    let mut world = World::start();
    let beside = tempfile::tempdir().unwrap();
    let place = |name: &str| -> PathBuf { beside.path().join(name) };
    let (mut settler, mut certifier) = (world.settler(), world.certifier());
    let to = place("to").to_str().unwrap().to_owned();
    let taken = backup(&world.data, &to);
    // What they read from now on is lost, and they have read it.
    let lost = world.certified_lock();
    let service = certifier.ready["listen"].as_str().unwrap().parse().unwrap();
    certificate(service, &B256::from(lost.word()).to_string());
    let listen = world.engine.listen().to_owned();
    assert_eq!(world.engine.terminate(Signal::TERM), 0);

    let restored = Data::at(place("restored"));
    restore_to_serve(&world.data, &to, restored.path(), &ends(&taken));
    world.engine = Engine::start_at(&restored, "fsync", &listen, &[]);
    assert_eq!(certifier.ends(), Some(DECLINED));
    assert_eq!(settler.ends(), Some(DECLINED));
}
