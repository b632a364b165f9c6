//! `demo`: its JSON, and that its money check notices whatever is altered.

use crate::process::{Data, surety};

#[test]
fn the_demo_agrees_with_itself_and_leaves_a_sound_directory() {
    let place = Data::empty();
    let data = place.file("kept");
    let data = data.to_str().unwrap();
    let value = surety(&["demo", "--seconds", "1", "--data", data, "--json"]).exits(0).json();
    assert_eq!((value["ok"].as_bool(), value["durability"].as_str()), (Some(true), Some("fsync")));
    for key in ["locks", "requests", "rate_per_s", "p50_us", "p99_us"] {
        assert!(value[key].as_u64().unwrap() > 0, "{key}: {value}");
    }
    for party in ["replies", "lookups", "log", "chain"] {
        assert_eq!(value["money_check"][party], "ok");
    }
    assert!(value["declined"]["OVER_LIMIT"].as_u64().unwrap() > 0, "{value}");
    for what in ["repeats", "expired", "overdue", "late_captures"] {
        assert!(value[what].as_u64().unwrap() > 0, "{what}: {value}");
    }
    for kind in [
        "lock", "increase", "capture", "release", "reverse", "refund", "settle", "consume", "deposit",
        "price",
    ] {
        assert!(value["done"][kind].as_u64().unwrap_or(0) > 0, "{kind}: {value}");
    }
    // Only what is meant to be declined is.
    assert_eq!(value["declined"].as_object().unwrap().len(), 1, "{value}");
    // With the certificate that was enforced, which no longer can be by itself.
    assert!(place.file("kept/settlement/certificate.json").exists());
    let verified = surety(&["verify", "--data", data, "--json"]).exits(0).json();
    assert_eq!(verified["shards"][0]["locks"], value["locks"]);
    surety(&["demo", "--data", data]).fails(1, "exists");
}

#[test]
fn whatever_is_altered_is_noticed_and_named() {
    for party in ["replies", "lookups", "log", "chain"] {
        let ended = surety(&["demo", "--seconds", "1", "--tamper", party, "--json"]).fails(1, "differ");
        let value = ended.json();
        assert_eq!(value["ok"], false);
        for other in ["replies", "lookups", "log", "chain"] {
            let is_ok = value["money_check"][other] == "ok";
            assert_eq!(is_ok, other != party, "{party} was altered: {}", value["money_check"]);
        }
    }
}

#[test]
fn the_demo_tells_people_what_happened() {
    let text = surety(&["demo", "--seconds", "1"]).exits(0).stdout;
    for line in ["locks approved", "partition", "retail", "Money check", "All agree", "Try next"] {
        assert!(text.contains(line), "{line} in {text}");
    }
}
