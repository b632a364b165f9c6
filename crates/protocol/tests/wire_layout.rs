//! The tables of `WIRE.md` against the code: every offset, every byte, every number and name.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(
    clippy::cast_possible_truncation,
    reason = "numbers of the tables fit their bytes, or the test fails"
)]

mod tables;

use surety_protocol as p;
use surety_protocol::limits;
use surety_protocol::{Body, Record, StateRow};
use tables::{Row, table};

/// Where the bytes of two encodings differ; one run, or the test fails.
fn changed(a: &[u8], b: &[u8]) -> (usize, usize) {
    let differs: Vec<usize> = (0..a.len()).filter(|at| a[*at] != b[*at]).collect();
    let (first, last) = (*differs.first().unwrap(), *differs.last().unwrap());
    assert_eq!(differs.len(), last - first + 1, "one run of bytes");
    (first, last - first + 1)
}

/// Rows without a gap and without an overlap from `start` to `end`, in the order and with the places that the code has.
fn check_layout(name: &str, rows: &[Row], start: usize, end: usize, fields: &[(&str, usize, usize)]) {
    let mut at = start;
    for (row, field) in rows.iter().zip(fields) {
        let place = (row.cell("field"), row.number("offset"), row.number("bytes"));
        assert_eq!(place, (field.0, field.1, field.2), "{name}: table against code");
        assert_eq!(place.1, at, "{name}.{}: gap or overlap", place.0);
        at += place.2;
        let width = match row.cell("type") {
            "u8" => 1,
            "u16" => 2,
            "u32" => 4,
            "u64" | "time" | "span" => 8,
            "u128" | "i128" => 16,
            other => other.split_once(" x ").map_or(0, |(a, b)| {
                let unit = a
                    .strip_prefix('u')
                    .map_or_else(|| a.parse::<usize>().unwrap(), |bits| bits.parse::<usize>().unwrap() / 8);
                unit * b.parse::<usize>().unwrap()
            }),
        };
        assert!(width == place.2 || row.cell("field") == "body", "{name}.{}: type against bytes", place.0);
    }
    assert_eq!(rows.len(), fields.len(), "{name}: as many rows as fields");
    assert_eq!(at, end, "{name}: the table ends where the message does");
}

/// The places of a struct's fields, found by filling one after the other with ones.
macro_rules! places {
    ($encode:expr, $zero:expr, { $($field:ident = $ones:expr),* $(,)? }) => {{
        let encode = $encode;
        let zero = $zero;
        let empty = encode(&zero);
        vec![$({
            let mut one = zero;
            one.$field = $ones;
            let (offset, bytes) = changed(&empty, &encode(&one));
            (stringify!($field), offset, bytes)
        }),*]
    }};
}

const AMOUNT: p::Amount = p::Amount(u128::MAX);
const TIME: p::Time = p::Time(u64::MAX);
const ID: p::Id = p::Id(u128::MAX);
const ACTOR: p::ActorId = p::ActorId(u32::MAX);
const ADDRESS: p::Address = p::Address([255; 20]);

fn empty_record() -> Record {
    Record::from_bytes(&[0; 128])
}

fn in_record<B: Body>(body: &B) -> Vec<u8> {
    Record { body: body.to_bytes(), ..empty_record() }.to_bytes().to_vec()
}

#[test]
fn records_and_replies() {
    let places = places!(|r: &Record| r.to_bytes(), empty_record(), {
        id = ID, amount = AMOUNT, result = AMOUNT, body = [255; 56], partition = p::PartitionHandle(u64::MAX),
        time = TIME, tenant = p::TenantId(u32::MAX), flags = u16::MAX, kind = 255, code = 255,
    });
    check_layout("record", &table("layout: record 128"), 0, 128, &places);
    let places = places!(|r: &p::Reply| r.to_bytes(), p::Reply::default(), {
        id = ID, approved = AMOUNT, remaining = AMOUNT, free = AMOUNT, extra = AMOUNT, seq = p::Seq(u64::MAX),
        deadline = TIME, time = TIME, epoch = p::Epoch(u32::MAX), shard = p::ShardId(u16::MAX), version = u16::MAX,
        capture = u16::MAX, code = 255, end = 255, flags = 255, kind = 255, reserved = [255; 10],
    });
    check_layout("reply", &table("layout: reply 128"), 0, 128, &places);
}

#[test]
fn bodies() {
    let check = |name: &str, places: &[(&str, usize, usize)]| {
        check_layout(name, &table(&format!("body: {name}")), 48, 104, places);
    };
    check(
        "lock",
        &places!(in_record, p::LockBody::default(), {
            floor = AMOUNT, merchant = p::MerchantId(u64::MAX), deadline = TIME, price_seq = u64::MAX, user = u64::MAX,
            life_ms = u32::MAX, category = u16::MAX, quote = p::QuoteId(u16::MAX),
        }),
    );
    check(
        "change",
        &places!(in_record, p::ChangeBody::default(), {
            lock = ID, freed = -1, deadline = TIME, user = u64::MAX, life_ms_or_actor = u32::MAX, capture = u16::MAX,
            version = u16::MAX,
        }),
    );
    check(
        "consume",
        &places!(in_record, p::ConsumeBody::default(), {
            lock = ID, freed = -1, merchant = p::MerchantId(u64::MAX), user = u64::MAX, actor = ACTOR, capture = u16::MAX,
            reserved = u16::MAX,
        }),
    );
    check(
        "stake",
        &places!(in_record, p::StakeBody::default(), {
            units = u128::MAX, supplier = ADDRESS, actor = ACTOR, nonce = u64::MAX, due = TIME,
        }),
    );
    check(
        "control",
        &places!(in_record, p::ControlBody::default(), {
            reference = u128::MAX, number = u64::MAX, until = TIME, user = u64::MAX, actor = ACTOR, reserved = [255; 12],
        }),
    );
    check(
        "loss",
        &places!(in_record, p::LossBody::default(), {
            life = u128::MAX, after = p::Seq(u64::MAX), from = TIME, until = TIME, version_leap = u16::MAX,
            capture_leap = u16::MAX, reserved = [255; 12],
        }),
    );
    check(
        "price",
        &places!(in_record, p::PriceBody::default(), {
            asset = p::AssetId(u32::MAX), quote = p::QuoteId(u16::MAX), reserved_a = u16::MAX, ratio_bps = u32::MAX,
            actor = ACTOR, observed = TIME, reserved = [255; 32],
        }),
    );
    check(
        "partition",
        &places!(in_record, p::PartitionBody::default(), {
            onchain = [255; 32], asset = p::AssetId(u32::MAX), actor = ACTOR, track_merchants = 255, reserved = [255; 15],
        }),
    );
    check(
        "tenant",
        &places!(in_record, p::TenantBody::default(), {
            tenant = p::TenantId(u32::MAX), actor = ACTOR, locks_max = u64::MAX, ids_max = u64::MAX,
            tombstones_max = u64::MAX, advices_max = u64::MAX, rate_per_s = u32::MAX, in_flight_max = u32::MAX,
            enabled = 255, reserved = [255; 3], open_locks_max = u32::MAX,
        }),
    );
    check(
        "grant",
        &places!(in_record, p::GrantBody::default(), {
            tenant = p::TenantId(u32::MAX), rights = u32::MAX, actor = ACTOR, reserved_a = [255; 12], reserved = [255; 32],
        }),
    );
    check(
        "merchant",
        &places!(in_record, p::MerchantBody::default(), {
            merchant = p::MerchantId(u64::MAX), payee = ADDRESS, release_key = ADDRESS, actor = ACTOR, enabled = u32::MAX,
        }),
    );
}

#[test]
fn messages_around_the_records() {
    let hello = p::Hello { magic: 0, version_min: 0, version_max: 0, ..p::Hello::new(p::TenantId(0), "") };
    let places = places!(|h: &p::Hello| h.to_body(&[]), hello, {
        magic = u32::MAX, version_min = u16::MAX, version_max = u16::MAX, tenant = p::TenantId(u32::MAX),
        reserved = u32::MAX, name = [255; 32],
    });
    check_layout("hello", &table("layout: hello 48"), 0, p::HELLO_BYTES, &places);
    let token = p::Token {
        engine: p::EngineId(0),
        synced: p::Seq(0),
        epoch: p::Epoch(0),
        shard: p::ShardId(0),
        life: 0,
        tag: [0; 16],
    };
    let places = places!(|t: &p::Token| t.to_bytes(), token, {
        engine = p::EngineId(u128::MAX), synced = p::Seq(u64::MAX), epoch = p::Epoch(u32::MAX),
        shard = p::ShardId(u16::MAX), life = u16::MAX, tag = [255; 16],
    });
    check_layout("token", &table("layout: token 48"), 0, limits::TOKEN_BYTES, &places);
    let reply = p::HelloReply {
        engine: p::EngineId(0),
        now: p::Time(0),
        acked: p::Seq(0),
        synced: p::Seq(0),
        epoch: p::Epoch(0),
        tenant: p::TenantId(0),
        version: 0,
        shard: p::ShardId(0),
        shards: 0,
        frame_records_max: 0,
        in_flight_max: 0,
        roles: 0,
        durability: 0,
        reserved: [0; 2],
        ports: [0; 256],
    };
    let places = places!(|r: &p::HelloReply| r.to_bytes(), reply, {
        engine = p::EngineId(u128::MAX), now = TIME, acked = p::Seq(u64::MAX), synced = p::Seq(u64::MAX),
        epoch = p::Epoch(u32::MAX), tenant = p::TenantId(u32::MAX), version = u16::MAX, shard = p::ShardId(u16::MAX),
        shards = u16::MAX, frame_records_max = u16::MAX, in_flight_max = u32::MAX, roles = 255, durability = 255,
        reserved = [255; 2], ports = [u16::MAX; 256],
    });
    check_layout("hello_reply", &table("layout: hello_reply 576"), 0, p::HELLO_REPLY_BYTES, &places);
    let subscribe =
        p::Subscribe { from: p::Seq(0), shard: p::ShardId(0), reserved: [0; 2], epoch: p::Epoch(0) };
    let places = places!(|s: &p::Subscribe| s.to_bytes(), subscribe, {
        from = p::Seq(u64::MAX), shard = p::ShardId(u16::MAX), reserved = [255; 2], epoch = p::Epoch(u32::MAX),
    });
    check_layout("subscribe", &table("layout: subscribe 16"), 0, p::SUBSCRIBE_BYTES, &places);
    let head = p::TailHead {
        first: p::Seq(0),
        through: p::Seq(0),
        epoch: p::Epoch(0),
        shard: p::ShardId(0),
        status: 0,
        reserved: [0; 9],
    };
    let places = places!(|h: &p::TailHead| h.to_bytes(), head, {
        first = p::Seq(u64::MAX), through = p::Seq(u64::MAX), epoch = p::Epoch(u32::MAX),
        shard = p::ShardId(u16::MAX), status = 255, reserved = [255; 9],
    });
    check_layout("tail_head", &table("layout: tail_head 32"), 0, p::TAIL_HEAD_BYTES, &places);
}

#[test]
fn states() {
    let (query, head) = (p::StateQuery::default(), p::StateHead::default());
    let places = places!(|q: &p::StateQuery| q.to_bytes(), query, {
        partition = p::PartitionHandle(u64::MAX), position = u64::MAX, supplier = p::Address([255; 20]),
        tenant = p::TenantId(u32::MAX), limit = u32::MAX, shard = p::ShardId(u16::MAX), kind = 255, reserved = [255; 17],
    });
    check_layout("state_query", &table("layout: state_query 64"), 0, p::STATE_QUERY_BYTES, &places);
    let places = places!(|h: &p::StateHead| h.to_bytes(), head, {
        seq = p::Seq(u64::MAX), now = TIME, epoch = p::Epoch(u32::MAX), shard = p::ShardId(u16::MAX), kind = 255,
        has_more = 255, reserved = [255; 8],
    });
    check_layout("state_head", &table("layout: state_head 32"), 0, p::STATE_HEAD_BYTES, &places);
}

#[test]
fn the_historys_heads() {
    let fields = [("bytes", 0, 4), ("reserved", 4, 12)];
    check_layout("query_head", &table("layout: query_head 16"), 0, p::QUERY_HEAD_BYTES, &fields);
    let mut expected = [0; 144];
    expected[..4].copy_from_slice(&3_u32.to_le_bytes());
    expected[16..19].copy_from_slice(b"abc");
    assert_eq!(p::write_query(b"abc"), expected);
    let fields =
        [("total", 0, 4), ("bytes", 4, 4), ("status", 8, 1), ("has_more", 9, 1), ("reserved", 10, 22)];
    check_layout("answer_head", &table("layout: answer_head 32"), 0, p::ANSWER_HEAD_BYTES, &fields);
    let mut expected = [0; 160];
    expected[..4].copy_from_slice(&9_u32.to_le_bytes());
    expected[4..8].copy_from_slice(&3_u32.to_le_bytes());
    expected[8..10].copy_from_slice(&[3, 1]);
    expected[32..35].copy_from_slice(b"abc");
    assert_eq!(p::write_answer(Some(p::QueryRefusal::Busy), 9, b"abc", true), expected);
}

/// The bytes of a row.
fn row<R: StateRow>(row: &R) -> Vec<u8> {
    let mut page = Vec::new();
    row.write(&mut page);
    assert_eq!(page.len(), R::KIND.row_bytes());
    page
}

/// A row of nothing but zeros.
fn zeros<R: StateRow>() -> R {
    R::read(&vec![0; R::KIND.row_bytes()]).unwrap()
}

#[test]
fn state_rows() {
    let policy = p::Policy::from_bytes(&[255; p::POLICY_BYTES]).unwrap();
    let places = places!(row, zeros::<p::PartitionRow>(), {
        partition = p::PartitionHandle(u64::MAX), onchain = [255; 32], collateral = AMOUNT, deficit = AMOUNT,
        free = AMOUNT, held = AMOUNT, captured = AMOUNT, pending = AMOUNT, owed = AMOUNT, exposure = AMOUNT,
        units = AMOUNT, units_queued = AMOUNT, fees = AMOUNT, cap = AMOUNT, cap_until = TIME, batch = u64::MAX,
        policy_seq = p::Seq(u64::MAX), asset = p::AssetId(u32::MAX), generation = u32::MAX, frozen = 255,
        track_merchants = 255, unreconciled = 255, reserved = [255; 13], policy = policy,
    });
    check_layout("partition_row", &table("layout: partition_row 640"), 0, 640, &places);
    let places = places!(row, zeros::<p::SupplierRow>(), {
        units = AMOUNT, queued = AMOUNT, value = AMOUNT, supplier = p::Address([255; 20]), reserved = [255; 60],
    });
    check_layout("supplier_row", &table("layout: supplier_row 128"), 0, 128, &places);
    let places = places!(row, zeros::<p::WithdrawalRow>(), {
        id = p::Id(u128::MAX), units = AMOUNT, due = TIME, position = u64::MAX, supplier = p::Address([255; 20]),
        reserved = [255; 60],
    });
    check_layout("withdrawal_row", &table("layout: withdrawal_row 128"), 0, 128, &places);
    let places = places!(row, zeros::<p::TenantRow>(), {
        quotas = <p::TenantBody as Body>::from_bytes(&[255; 56]), locks = u64::MAX, ids = u64::MAX,
        tombstones = u64::MAX, advices = u64::MAX, open_locks = u64::MAX, reserved = [255; 32],
    });
    check_layout("tenant_row", &table("layout: tenant_row 128"), 0, 128, &places);
}

#[test]
fn policies() {
    let policy = p::Policy::from_bytes(&[0; p::POLICY_BYTES]).unwrap();
    let rule = p::CategoryRule {
        category: u16::MAX,
        tolerance_bps: u16::MAX,
        headroom_bps: u16::MAX,
        reserved: u16::MAX,
    };
    let places = places!(|q: &p::Policy| q.to_bytes(), policy, {
        lock_max = AMOUNT, merchant_open_max = AMOUNT, velocity_value = AMOUNT, edge_unit = AMOUNT,
        price_age_max = TIME, velocity_window = TIME, life_default = TIME, life_max = TIME, settle_by = TIME,
        late_window = TIME, refund_window = TIME, settlement_window = TIME, unbonding = TIME, claim_margin = TIME,
        ratio_bps = u32::MAX, stop_ratio_bps = u32::MAX, velocity_count = u32::MAX, headroom_bps = u32::MAX,
        tolerance_bps = u32::MAX, fee_bps = u32::MAX, release_asset = p::AssetId(u32::MAX),
        release_confirmations = u32::MAX, release_rule = 255, settle_by_action = 255, late_capture = 255,
        merchants_listed = 255, categories = [rule; 16], reserved_a = [255; 32], reserved = [255; 20],
    });
    check_layout("policy", &table("layout: policy 360"), 0, p::POLICY_BYTES, &places);
    let start = places.iter().find(|place| place.0 == "categories").unwrap().1;
    let with = |rule: p::CategoryRule| {
        let mut policy = policy;
        policy.categories[1] = rule;
        policy.to_bytes()[start + 8..start + 16].to_vec()
    };
    let places = places!(|r: &p::CategoryRule| with(*r), p::CategoryRule::default(), {
        category = u16::MAX, tolerance_bps = u16::MAX, headroom_bps = u16::MAX, reserved = u16::MAX,
    });
    check_layout("category_rule", &table("layout: category_rule 8"), 0, 8, &places);
}

#[test]
fn frame_headers() {
    let parse = |bytes: [u8; 16]| p::FrameHeader::from_bytes(&bytes);
    let rows = table("layout: frame_header 16");
    let fields = [("length", 0, 4), ("kind", 4, 1), ("reserved", 5, 1), ("count", 6, 2), ("number", 8, 8)];
    check_layout("frame_header", &rows, 0, limits::FRAME_HEADER_BYTES, &fields);
    let header = p::FrameHeader { kind: p::FrameKind::Requests, count: 513, number: u64::MAX };
    let mut expected = [0; 16];
    expected[0..4].copy_from_slice(&(513_u32 * 128).to_le_bytes());
    expected[4] = 3;
    expected[6..8].copy_from_slice(&513_u16.to_le_bytes());
    expected[8..16].copy_from_slice(&[255; 8]);
    assert_eq!(header.to_bytes(), expected);
    expected[5] = 1;
    assert_eq!(parse(expected), Err(p::FrameError::Padding));

    // Kinds, and for each the counts and body lengths that the table's formulas give.
    for row in table("table: frame_kinds") {
        let kind = row.number("kind") as u8;
        let words: Vec<&str> = row.cell("count").split(' ').collect();
        let (least, most) = match words[..] {
            [a, "to", b, _] => (a.parse().unwrap(), b.parse().unwrap()),
            [a] => (a.parse().unwrap(), a.parse().unwrap()),
            _ => panic!("count {words:?}"),
        };
        let length = |count: usize| match row.cell("name") {
            "Hello" => 48 + 48 * count,
            "HelloReply" => 576,
            "Requests" => 128 * count,
            "Replies" => 48 + 128 * count,
            "Subscribe" => 16,
            "Records" => 32 + 128 * count,
            "Goodbye" => 0,
            "StateQuery" => 64,
            "State" | "Answer" => 32 + 128 * count,
            "Query" => 16 + 128 * count,
            other => panic!("frame {other}"),
        };
        for count in [0, 1, 2, 255, 256, 257, 1023, 1024, 1025, 65535] {
            let mut bytes = [0; 16];
            bytes[0..4].copy_from_slice(&(length(count) as u32).to_le_bytes());
            bytes[4] = kind;
            bytes[6..8].copy_from_slice(&(count as u16).to_le_bytes());
            assert_eq!(
                parse(bytes).is_ok(),
                (least..=most).contains(&count),
                "{} x {count}",
                row.cell("name")
            );
            if let Ok(header) = parse(bytes) {
                assert_eq!(format!("{:?}", header.kind), row.cell("name"));
                assert_eq!(header.body_bytes(), length(count));
            }
        }
    }
    assert_eq!(table("table: frame_kinds").len(), 11);
    for kind in [0_u8].into_iter().chain(12..=255) {
        let mut bytes = [0; 16];
        bytes[4] = kind;
        assert_eq!(parse(bytes), Err(p::FrameError::UnknownKind(kind)));
    }
}

#[test]
fn names_and_numbers() {
    let in_doc = |name: &str, key: &str| -> Vec<(usize, String)> {
        table(name).iter().map(|row| (row.number(key), row.cell("name").to_owned())).collect()
    };
    let codes = p::Code::ALL.iter().map(|code| (*code as usize, code.name().to_owned()));
    assert_eq!(in_doc("table: codes", "code"), codes.collect::<Vec<_>>());
    for (row, code) in table("table: codes").iter().zip(p::Code::ALL) {
        assert_eq!(row.cell("class"), format!("{:?}", code.class()).to_lowercase(), "{code}");
    }
    let closes = p::CloseCode::ALL.iter().map(|code| (*code as usize, code.name().to_owned()));
    assert_eq!(in_doc("table: close_codes", "code"), closes.collect::<Vec<_>>());
    let refusals = p::QueryRefusal::ALL.iter().map(|refusal| (*refusal as usize, refusal.name().to_owned()));
    assert_eq!(in_doc("table: query_refusals", "status"), refusals.collect::<Vec<_>>());
    let ends = (0..=255).filter_map(p::End::from_byte).map(|end| (end as usize, end.name().to_owned()));
    assert_eq!(in_doc("table: ends", "end"), ends.collect::<Vec<_>>());
    let kinds = p::Kind::ALL.iter().map(|kind| (*kind as usize, kind.name().to_owned()));
    assert_eq!(in_doc("table: kinds", "kind"), kinds.collect::<Vec<_>>());

    let flags = table("table: flags");
    let mut known = 0;
    for row in &flags {
        let bit = row.number("bit") as u16;
        known |= bit;
        assert_eq!(p::Flags::SENDER.0 & bit != 0, row.cell("by") == "sender", "{}", row.cell("name"));
    }
    assert_eq!(known, p::Flags::KNOWN.0);
    let named = |name: &str| flags.iter().find(|row| row.cell("name") == name).unwrap().number("bit") as u16;
    let pairs = [
        ("LINKED", p::Flags::LINKED),
        ("FINAL", p::Flags::FINAL),
        ("ALL_OR_NOTHING", p::Flags::ALL_OR_NOTHING),
        ("CERTIFIED", p::Flags::CERTIFIED),
        ("SALE", p::Flags::SALE),
        ("BURN", p::Flags::BURN),
        ("LASTING", p::Flags::LASTING),
        ("LATE", p::Flags::LATE),
        ("EXCESS", p::Flags::EXCESS),
        ("EXPOSED", p::Flags::EXPOSED),
    ];
    assert_eq!(pairs.len(), flags.len());
    for (name, flag) in pairs {
        assert_eq!(named(name), flag.0, "{name}");
    }

    for row in table("table: limits") {
        let value = match row.cell("limit") {
            "FRAME_RECORDS_MAX" => limits::FRAME_RECORDS_MAX,
            "FRAME_BODY_BYTES_MAX" => limits::FRAME_BODY_BYTES_MAX,
            "CONNECTION_IN_FLIGHT_MAX" => limits::CONNECTION_IN_FLIGHT_MAX,
            "QUERY_BYTES_MAX" => limits::QUERY_BYTES_MAX,
            "ANSWER_BYTES_MAX" => limits::ANSWER_BYTES_MAX,
            "CONNECTION_QUERIES_MAX" => limits::CONNECTION_QUERIES_MAX,
            "CHAIN_MAX" => limits::CHAIN_MAX,
            "LONG_RECORDS_MAX" => limits::LONG_RECORDS_MAX,
            "SHARDS_MAX" => limits::SHARDS_MAX,
            "CAPTURES_PER_LOCK_MAX" => limits::CAPTURES_PER_LOCK_MAX,
            "HELLO_TOKENS_MAX" => limits::HELLO_TOKENS_MAX,
            "RELEASE_GROUP_ENTRIES_MAX" => limits::RELEASE_GROUP_ENTRIES_MAX,
            "RELEASE_GROUP_PATH_MAX" => limits::RELEASE_GROUP_PATH_MAX,
            "CATEGORY_RULES_MAX" => limits::CATEGORY_RULES_MAX,
            other => panic!("the table names a limit {other} that the code does not have"),
        };
        assert_eq!(row.number("value"), value, "{}", row.cell("limit"));
    }
    assert_eq!(limits::AMOUNT_MAX, (1 << 104) - 1);
    assert_eq!(limits::UNITS_MAX, (1 << 124) - (1 << 20));
    assert_eq!(limits::ID_WINDOW_DEFAULT, p::Time::from_secs(120));
    assert_eq!(limits::ID_WINDOW_MAX, p::Time::from_secs(24 * 3600));
    assert_eq!(limits::ID_FUTURE_MAX, p::Time::from_secs(5));
    assert_eq!(limits::ADVICE_WINDOW, p::Time::from_secs(7 * 24 * 3600));
    assert_eq!(limits::LIFE_MAX, p::Time::from_secs(400 * 24 * 3600));
    assert_eq!((p::ALPN, p::HELLO_MAGIC.to_le_bytes()), (&b"surety/1"[..], *b"SRTY"));
    assert_eq!((p::PROTOCOL_VERSION_MIN, p::PROTOCOL_VERSION, p::QUERY_VERSION), (1, 2, 2));
}

#[test]
fn who_may_send_what() {
    let roles = [
        ("authorizer", p::Roles::AUTHORIZER),
        ("settler", p::Roles::SETTLER),
        ("admin", p::Roles::ADMIN),
        ("reader", p::Roles::READER),
    ];
    for row in table("table: kinds") {
        let Some(kind) = p::Kind::from_byte(row.number("kind") as u8) else { panic!("kind") };
        let cell = row.cell("role");
        for (name, role) in roles {
            let listed = cell == "any" || cell.replace(',', "").split(' ').any(|word| word == name);
            for tenant in [0, 7] {
                let caller = p::Caller { tenant: p::TenantId(tenant), roles: role, actor: p::ActorId(1) };
                let expect = listed && (tenant == 0 || !cell.starts_with("operator"));
                assert_eq!(
                    caller.may_send(kind, p::TenantId(0)),
                    expect,
                    "{kind} by {name} of tenant {tenant}"
                );
            }
        }
    }
}

/// What becomes of a request of which one byte is 1 where all else is as it should be.
fn fate(kind: p::Kind, byte: usize) -> &'static str {
    let mut bytes = [0; 128];
    bytes[126] = kind as u8;
    bytes[byte] = 1;
    let record = Record::from_bytes(&bytes);
    match record.check() {
        Err(p::RecordError::Padding(_)) => "zero",
        Err(error) => panic!("{error}"),
        Ok(kind) if record.is_well_formed(kind) => "sender",
        Ok(_) => "engine",
    }
}

#[test]
fn every_byte_of_every_request_belongs_to_whom_the_tables_say() {
    let common = table("layout: record 128");
    for row in table("table: kinds") {
        let kind = p::Kind::from_byte(row.number("kind") as u8).unwrap();
        let body = row.cell("body");
        if row.cell("role") == "engine" || kind == p::Kind::Continuation {
            continue;
        }
        let column = match (body, kind) {
            ("change", p::Kind::Increase) => "increase",
            ("change", p::Kind::Capture | p::Kind::Advice) => "capture, advice",
            ("change", p::Kind::Lookup) => "lookup",
            ("change", _) => "others",
            _ => "by",
        };
        let body_rows = table(&format!("body: {body}"));
        for (row, by) in common.iter().map(|row| (row, "by")).chain(body_rows.iter().map(|row| (row, column)))
        {
            let name = row.cell("field");
            if matches!(name, "body" | "kind" | "flags") {
                continue;
            }
            let bytes = row.number("bytes");
            for at in 0..bytes {
                let bounded = (name == "floor" || name == "amount" && kind != p::Kind::Withdraw) && at >= 13
                    || name == "amount" && kind == p::Kind::Withdraw && at == 16;
                let expect = if bounded { "engine" } else { row.cell(by) };
                assert_eq!(fate(kind, row.number("offset") + at), expect, "{kind}.{name}, byte {at}");
            }
        }
    }
}

#[test]
fn the_engine_s_bytes_are_forgotten_by_as_sent() {
    for row in table("table: kinds") {
        let kind = p::Kind::from_byte(row.number("kind") as u8).unwrap();
        if row.cell("role") == "engine" || kind == p::Kind::Continuation {
            continue;
        }
        let empty = Record { kind: kind as u8, ..empty_record() };
        for byte in (0..126).chain([127]) {
            if matches!(byte, 124 | 125) || fate(kind, byte) == "zero" {
                continue;
            }
            let mut bytes = empty.to_bytes();
            bytes[byte] = 1;
            let sent = Record::from_bytes(&bytes).as_sent();
            let is_engines = fate(kind, byte) == "engine" && !is_bounded(kind, byte);
            assert_eq!(sent == empty, is_engines, "{kind}, byte {byte}");
        }
    }
}

/// Bytes of the sender that are malformed because the number gets too large.
fn is_bounded(kind: p::Kind, byte: usize) -> bool {
    (29..32).contains(&byte) || kind == p::Kind::Lock && (61..64).contains(&byte)
}

#[test]
fn a_stamped_actor_is_the_engine_s() {
    for kind in p::Kind::ALL.iter().filter(|kind| **kind != p::Kind::Continuation) {
        let mut record = Record { kind: *kind as u8, ..empty_record() };
        record.set_actor(*kind, p::ActorId(u32::MAX));
        assert_eq!(record.as_sent(), Record { kind: *kind as u8, ..empty_record() }, "{kind}");
        let keeps_none = matches!(kind, p::Kind::Lock | p::Kind::Increase | p::Kind::Lookup | p::Kind::Loss);
        assert_eq!(record == record.as_sent(), keeps_none, "{kind}");
    }
}

#[test]
fn continuations_and_release_groups() {
    let record = p::long::split(p::Kind::Policy, p::Id(1), p::PartitionHandle(1), 0, &[255; 120])[1];
    let bytes = record.to_bytes();
    let rows = table("layout: continuation 128");
    check_layout(
        "continuation",
        &rows,
        0,
        128,
        &[("payload", 0, 120), ("reserved", 120, 6), ("kind", 126, 1), ("reserved_b", 127, 1)],
    );
    assert!(bytes[..120].iter().all(|byte| *byte == 255));
    assert_eq!(bytes[120..], [0, 0, 0, 0, 0, 0, 127, 0]);
    for byte in (120..126).chain([127]) {
        let mut bytes = bytes;
        bytes[byte] = 1;
        assert!(Record::from_bytes(&bytes).check().is_err(), "byte {byte}");
    }

    let entry = |byte| p::ReleaseEntry {
        lock: p::Id(u128::from_le_bytes([byte; 16])),
        still_owed: p::Amount(u128::from_le_bytes([byte + 1; 16])),
        version: u32::from_le_bytes([byte + 2; 4]),
        index: 1,
        path: vec![[byte + 3; 32]; 2],
    };
    let group = p::ReleaseGroup {
        key: p::Address([1; 20]),
        root: [2; 32],
        signature: [3; 65],
        entries: vec![entry(10), entry(20)],
    };
    let bytes = group.to_bytes();
    let run = |from: usize, rows: &[Row], values: &[(&str, u8)]| {
        for (row, (name, value)) in rows.iter().zip(values) {
            assert_eq!(row.cell("field"), *name);
            let place = from + row.number("offset");
            assert!(bytes[place..place + row.number("bytes")].iter().all(|byte| byte == value), "{name}");
        }
        assert_eq!(rows.len(), values.len());
    };
    let head = table("layout: release_group 120");
    run(0, &head, &[("key", 1), ("root", 2), ("signature", 3), ("count", 2), ("reserved", 0)]);
    let rows = table("layout: release_entry 40");
    for (at, byte) in [(120, 10), (120 + 104, 20)] {
        let fields = [
            ("lock", byte),
            ("still_owed", byte + 1),
            ("version", byte + 2),
            ("depth", 2),
            ("index", 1),
            ("reserved", 0),
        ];
        run(at, &rows, &fields);
        assert!(bytes[at + 40..at + 104].iter().all(|b| *b == byte + 3), "the path");
    }
    assert_eq!(bytes.len(), 120 + 2 * (40 + 2 * 32));
}
