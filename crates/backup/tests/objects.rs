//! An object store as the place of backups: moto's server, and in front of it whatever goes wrong between the two.
#![allow(clippy::unwrap_used)]

mod store;

use std::io::{self, Read};
use std::time::Duration;

use backup::{Depot, DepotError, FetchError, ObjectDepot, Patience, copy_file};
use store::{Fault, Store, What};

/// More than is sent at a time: three pieces.
const LARGE: usize = (32 << 20) + 17;

/// What a store knows its caller by.
const SECRET: &str = "CANARYsecret";

/// Short, but for an answer that does come, however busy the machine is.
const PATIENCE: Patience = Patience {
    connect: Duration::from_secs(20),
    answer: Duration::from_secs(60),
    repeats: 3,
    pause: Duration::from_millis(1),
};

fn depot_with(store: &Store, place: &str, patience: Patience) -> ObjectDepot {
    let variables = [
        ("AWS_ACCESS_KEY_ID", "CANARYid"),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_ENDPOINT_URL", &format!("http://{}", store.address())),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    ObjectDepot::open(place, variables, patience).unwrap()
}

fn depot(store: &Store) -> ObjectDepot {
    depot_with(store, "s3://bucket/some/where", PATIENCE)
}

fn read(depot: &dyn Depot, name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    depot.get(name).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

/// Bytes of which no two pieces are the same.
fn pattern(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn what_is_put_is_there_whole_and_is_never_written_twice() {
    let Some(store) = Store::start() else { return };
    let depot = depot(&store);
    assert!(depot.names().unwrap().is_empty());
    assert!(matches!(depot.get("x"), Err(DepotError::Missing { .. })));
    for (name, length) in [("empty", 0), ("d/small", 3), ("d/piece", 16 << 20), ("large", LARGE)] {
        let bytes = pattern(length);
        depot.put(name, &mut &bytes[..]).unwrap();
        assert!(read(&depot, name) == bytes, "{name}");
        let other = vec![1; length + 1];
        let again = depot.put(name, &mut &other[..]);
        assert!(matches!(again, Err(DepotError::Exists { .. })), "{name}: {again:?}");
        assert!(read(&depot, name) == bytes, "{name} stays as it is");
    }
    let mut names = depot.names().unwrap();
    names.sort();
    assert_eq!(names, ["d/piece", "d/small", "empty", "large"]);
    // A neighbour whose name begins in the same way, and what stands above.
    for beside in ["s3://bucket/some/where-else", "s3://bucket/some"] {
        depot_with(&store, beside, PATIENCE).put("y", &mut &b"y"[..]).unwrap();
    }
    assert_eq!(depot.names().unwrap().len(), 4);
}

#[test]
fn what_fails_is_asked_again_and_then_told() {
    let Some(store) = Store::start() else { return };
    let depot = depot(&store);
    let large = pattern(LARGE);
    let wrong = |times| Fault::Answers { times, status: 503, code: "SlowDown" };
    for name in ["small", "large"] {
        let bytes = if name == "small" { &large[..9] } else { &large[..] };
        for what in [What::Any, What::Posts] {
            store.fails(what, wrong(2));
            match depot.put(name, &mut &bytes[..]) {
                Ok(()) => assert!(what == What::Any && read(&depot, name) == bytes),
                // The second time it is there already.
                Err(error) => {
                    assert!(what == What::Posts && matches!(error, DepotError::Exists { .. }), "{error}")
                }
            }
        }
        store.fails(What::Any, wrong(2));
        assert!(read(&depot, name) == bytes, "{name}");
    }
    store.fails(What::Any, wrong(2));
    assert_eq!(depot.names().unwrap().len(), 2);
    store.fails(What::Any, wrong(usize::MAX));
    for error in [depot.put("z", &mut &b"z"[..]).unwrap_err(), depot.names().unwrap_err()] {
        let text = error.to_string();
        assert!(matches!(error, DepotError::Io { .. }) && text.contains("SlowDown"), "{text}");
    }
    store.holds();
    assert!(matches!(depot.get("z"), Err(DepotError::Missing { .. })));
}

#[test]
fn an_answer_that_is_lost_neither_doubles_nor_refuses_what_was_kept() {
    let Some(store) = Store::start() else { return };
    let depot = depot(&store);
    let large = pattern(LARGE);
    for (name, bytes) in [("small", &large[..9]), ("large", &large[..])] {
        // The store has done it, and says that it has failed: whether it has, only its contents tell.
        store.fails(What::Completions, Fault::Forgets { times: 1 });
        depot.put(name, &mut &bytes[..]).unwrap();
        assert!(store.faults() > 0, "{name}");
        assert!(read(&depot, name) == bytes, "{name}");
        // What another has put there meanwhile is not taken for ours.
        store.fails(What::Completions, Fault::Answers { times: 1, status: 500, code: "InternalError" });
        let mut other = bytes.to_vec();
        other[3] ^= 1;
        let again = depot.put(name, &mut &other[..]);
        assert!(matches!(again, Err(DepotError::Exists { .. })), "{name}: {again:?}");
        store.holds();
        assert!(read(&depot, name) == bytes, "{name}");
    }
}

#[test]
fn a_store_that_is_silent_costs_its_time_and_no_more() {
    let Some(store) = Store::start() else { return };
    let depot = depot_with(&store, "s3://bucket/p", PATIENCE);
    depot.put("x", &mut &b"x"[..]).unwrap();
    let hasty = Patience { answer: Duration::from_millis(100), repeats: 1, ..PATIENCE };
    let hasty = depot_with(&store, "s3://bucket/p", hasty);
    store.fails(What::Any, Fault::Silent);
    let late = [
        hasty.put("y", &mut &b"y"[..]).unwrap_err(),
        hasty.names().unwrap_err(),
        hasty.get("x").map(|_| ()).unwrap_err(),
    ];
    for error in late {
        let is_late =
            matches!(&error, DepotError::Io { source, .. } if source.kind() == io::ErrorKind::TimedOut);
        assert!(is_late, "{error}");
    }
}

#[test]
fn who_may_not_and_what_is_not_there_are_told_without_a_secret() {
    let Some(store) = Store::start() else { return };
    let depot = depot(&store);
    for (status, code) in [(403, "AccessDenied"), (403, "InvalidAccessKeyId"), (401, "ExpiredToken")] {
        store.fails(What::Any, Fault::Answers { times: usize::MAX, status, code });
        let refused = [
            depot.put("y", &mut &b"y"[..]).unwrap_err(),
            depot.put("z", &mut &pattern(LARGE)[..]).unwrap_err(),
            depot.names().unwrap_err(),
            depot.get("x").map(|_| ()).unwrap_err(),
        ];
        for error in refused {
            let text = format!("{error} {error:?} {depot:?}");
            assert!(matches!(error, DepotError::Denied { .. }) && text.contains(code), "{text}");
            assert!(!text.contains("CANARY"), "{text}");
        }
    }
    store.holds();
    let nowhere = depot_with(&store, "s3://no-such-bucket/p", PATIENCE);
    for error in [
        nowhere.put("y", &mut &b"y"[..]).unwrap_err(),
        nowhere.put("z", &mut &pattern(LARGE)[..]).unwrap_err(),
        nowhere.names().unwrap_err(),
        nowhere.get("x").map(|_| ()).unwrap_err(),
    ] {
        assert!(matches!(error, DepotError::NoBucket { .. }), "{error}");
    }
}

#[test]
fn an_upload_that_is_cut_off_leaves_nothing_under_its_name() {
    /// Ends the store, or cuts its line, when so much of the file has been read.
    struct Until<'a, F: FnMut()>(&'a [u8], usize, F);
    impl<F: FnMut()> Read for Until<'_, F> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0.len() < self.1 {
                self.1 = 0;
                (self.2)();
            }
            self.0.read(buffer)
        }
    }
    let Some(mut store) = Store::start() else { return };
    let depot = depot(&store);
    let large = pattern(LARGE);
    for left in [LARGE - 5, 20 << 20, 10] {
        let mut from = Until(&large, left, || store.fails(What::Any, Fault::Cut));
        let put = depot.put("x", &mut from);
        assert!(matches!(put, Err(DepotError::Io { .. })), "{put:?}");
        store.holds();
        assert!(matches!(depot.get("x"), Err(DepotError::Missing { .. })));
        assert!(depot.names().unwrap().is_empty());
    }
    depot.put("x", &mut &large[..]).unwrap();
    // The store itself is killed.
    let mut from = Until(&large, 20 << 20, || store.kill());
    let put = depot.put("y", &mut from);
    assert!(matches!(put, Err(DepotError::Io { .. })), "{put:?}");
    assert!(matches!(depot.get("x"), Err(DepotError::Io { .. })), "it is not missing: it is not known");
}

#[test]
fn an_object_that_is_cut_short_or_changed_is_never_taken_for_the_whole() {
    let Some(store) = Store::start() else { return };
    let depot = depot(&store);
    let bytes = pattern(1 << 20);
    let part = copy_file("x", &bytes, &depot).unwrap();
    backup::check(&depot, &part).unwrap();
    // Cut once, the rest is asked for; cut again and again, it is an error.
    store.fails(What::Any, Fault::Shortens { times: 1 });
    assert!(read(&depot, "x") == bytes);
    assert_eq!(store.faults(), 1);
    store.fails(What::Any, Fault::Shortens { times: usize::MAX });
    assert!(matches!(backup::check(&depot, &part), Err(FetchError::Depot(_))));
    store.holds();
    // Another object by the time the rest is asked for: nothing is put together out of both.
    let mut from = depot.get("x").unwrap();
    let mut begun = vec![0; 10];
    from.read_exact(&mut begun).unwrap();
    store.fails(What::Any, Fault::Shortens { times: 1 });
    let mut from = depot.get("x").unwrap();
    store.replace("/bucket/some/where/x", &vec![9; 1 << 20]);
    let mut whole = Vec::new();
    let end = from.read_to_end(&mut whole);
    assert!(end.is_err() && bytes.starts_with(&whole), "{end:?}");
    // At rest, the manifest tells.
    assert!(matches!(backup::check(&depot, &part), Err(FetchError::Damaged { .. })));
    store.replace("/bucket/some/where/x", &bytes[..bytes.len() - 1]);
    assert!(matches!(backup::check(&depot, &part), Err(FetchError::Damaged { .. })));
    store.replace("/bucket/some/where/x", &bytes);
    backup::check(&depot, &part).unwrap();
}
