//! Decoders against arbitrary bytes: none panics, and what one accepts is what the encoder writes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use proptest::collection::vec;
use proptest::prelude::*;
use surety_protocol as p;
use surety_protocol::limits::{CHAIN_MAX, FRAME_RECORDS_MAX, RECORD_BYTES};
use surety_protocol::{Kind, Record};

/// 128 bytes that look like a request often enough to get past the first check.
fn record_bytes() -> impl Strategy<Value = [u8; RECORD_BYTES]> {
    let kinds: Vec<u8> = Kind::ALL.iter().map(|kind| *kind as u8).collect();
    let sparse = vec((0..RECORD_BYTES, any::<u8>()), 0..6);
    (any::<[u8; 32]>(), any::<bool>(), sparse, prop::sample::select(kinds), 0_u8..64).prop_map(
        |(noise, is_noisy, sparse, kind, flags)| {
            let mut bytes = [0; RECORD_BYTES];
            if is_noisy {
                bytes.chunks_mut(32).for_each(|chunk| chunk.copy_from_slice(&noise));
                bytes[125] = 0;
            }
            for (at, byte) in sparse {
                bytes[at] = byte;
            }
            bytes[124] = flags;
            bytes[126] = kind;
            bytes
        },
    )
}

/// A frame body of such records, some of them long ones with continuations.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let long =
        (vec(any::<u8>(), 0..700), any::<bool>(), any::<bool>()).prop_map(|(payload, is_policy, is_cut)| {
            let kind = if is_policy { Kind::Policy } else { Kind::ReleaseGroup };
            let mut records = p::long::split(kind, p::Id(1), p::PartitionHandle(1), 0, &payload);
            if is_cut {
                records.pop();
            }
            records.iter().flat_map(Record::to_bytes).collect::<Vec<u8>>()
        });
    let single = record_bytes().prop_map(|bytes| bytes.to_vec());
    vec(prop_oneof![4 => single, 1 => long], 0..8).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn frame_headers(bytes: [u8; 16], kind in 0_u8..12, count in 0_u16..1100) {
        let _ = p::FrameHeader::from_bytes(&bytes);
        // Make acceptance likely: give the header the length that its kind and count ask for.
        let mut header = bytes;
        header[4] = kind;
        header[5] = 0;
        header[6..8].copy_from_slice(&count.to_le_bytes());
        for length in [16, 48 + 48 * u32::from(count), 128 * u32::from(count), 48 + 128 * u32::from(count),
            32 + 128 * u32::from(count), 16 + 128 * u32::from(count), 576, 0] {
            header[0..4].copy_from_slice(&length.to_le_bytes());
            if let Ok(read) = p::FrameHeader::from_bytes(&header) {
                prop_assert_eq!(read.to_bytes(), header);
                prop_assert!(usize::from(read.count) <= FRAME_RECORDS_MAX);
                prop_assert_eq!(read.body_bytes(), length as usize);
            }
        }
    }

    #[test]
    fn records(bytes in record_bytes(), raw: [u8; 32]) {
        let mut any_bytes = [0; RECORD_BYTES];
        any_bytes.chunks_mut(32).for_each(|chunk| chunk.copy_from_slice(&raw));
        for bytes in [bytes, any_bytes] {
            let record = Record::from_bytes(&bytes);
            prop_assert_eq!(record.to_bytes(), bytes);
            prop_assert_eq!(u128::from_le_bytes(Record::view(&bytes).id.0.to_native().to_le_bytes()), record.id.0);
            let sent = record.as_sent();
            prop_assert_eq!(sent.as_sent(), sent, "forgetting twice forgets no more");
            if let Ok(kind) = record.check() {
                if record.is_well_formed(kind) {
                    prop_assert_eq!(sent, record, "a request is as it was sent");
                } else if record.amount.is_in_range() && kind != Kind::Lock {
                    prop_assert!(sent.is_well_formed(kind) , "{kind} as sent is a request");
                }
            }
        }
    }

    #[test]
    fn operations(body in body(), tenant in 0_u32..3, roles in 0_u8..16) {
        let checked = p::Operations::check(&body);
        let caller =
            p::Caller { tenant: p::TenantId(tenant), roles: p::Roles(roles), actor: p::ActorId(9) };
        let mut seen = 0;
        for operation in p::Operations::new(&body) {
            let Ok(operation) = operation else {
                prop_assert!(checked.is_err());
                break;
            };
            prop_assert!(!operation.is_empty());
            prop_assert_eq!(operation.as_flattened(), &body[seen..seen + operation.as_flattened().len()]);
            seen += operation.as_flattened().len();
            let records: Vec<Record> = operation.iter().map(Record::from_bytes).collect();
            prop_assert!(records[0].kind() != Some(Kind::Continuation));
            if p::admit(&records, &caller).is_ok() {
                admitted_is_sound(&records, &caller)?;
            }
        }
        prop_assert!(checked.is_err() || seen == body.len());
    }

    #[test]
    fn hellos(body in vec(any::<u8>(), 0..300), name in "\\PC{0,40}", tokens in vec(any::<[u8; 30]>(), 0..5)) {
        let _ = p::Hello::from_body(&body);
        let mut made = p::Hello::new(p::TenantId(7), &name).to_body(&[]);
        prop_assert!(name.starts_with(p::Hello::from_body(&made).unwrap().0.name()));
        for token in &tokens {
            made.extend_from_slice(token);
            made.extend_from_slice(&[0, 0]);
            made.extend_from_slice(&token[..16]);
        }
        let (hello, read) = p::Hello::from_body(&made).unwrap();
        prop_assert_eq!(read.len(), tokens.len());
        prop_assert_eq!(hello.to_body(&read), made);
    }

    #[test]
    fn hello_replies(noise in any::<[u8; 64]>(), shards in 0_u16..300, ports in vec(any::<u16>(), 256)) {
        let mut body = noise.to_vec();
        body[52..54].copy_from_slice(&shards.to_le_bytes());
        for port in ports.iter().take(usize::from(shards)) {
            body.extend_from_slice(&port.to_le_bytes());
        }
        body.resize(p::HELLO_REPLY_BYTES, 0);
        body[62..64].fill(0);
        if let Ok(reply) = p::HelloReply::from_body(&body) {
            prop_assert_eq!(reply.to_bytes().to_vec(), body);
            prop_assert_eq!(reply.shard_map().len(), usize::from(shards));
            prop_assert!(usize::from(reply.shard.0) < reply.shard_map().len());
        }
    }

    #[test]
    fn replies(bytes in any::<[u8; 32]>(), code in any::<u8>(), end in 0_u8..12, flags in 0_u8..8) {
        let mut reply = [0; RECORD_BYTES];
        reply[..96].chunks_mut(32).for_each(|chunk| chunk.copy_from_slice(&bytes));
        reply[114..117].copy_from_slice(&[code, end, flags]);
        let read = p::Reply::from_bytes(&reply);
        let is_known = p::Code::from_byte(code).is_some() && p::End::from_byte(end).is_some() && flags < 4;
        prop_assert_eq!(read.is_some(), is_known);
        if let Some(read) = read {
            prop_assert_eq!(read.to_bytes(), reply);
            prop_assert_eq!((read.code() as u8, read.end() as u8), (code, end));
        }
        for padding in 118..RECORD_BYTES {
            reply[padding] = 1;
            prop_assert_eq!(p::Reply::from_bytes(&reply), None);
            reply[padding] = 0;
        }
    }

    #[test]
    fn tails_and_tokens(body in vec(any::<u8>(), 0..60), exact in any::<[u8; 32]>()) {
        let _ = (p::Subscribe::from_body(&body), p::TailHead::from_slice(&body), p::Token::from_slice(&body));
        let mut subscribe = [0; p::SUBSCRIBE_BYTES];
        subscribe[..10].copy_from_slice(&exact[..10]);
        prop_assert_eq!(p::Subscribe::from_body(&subscribe).unwrap().to_bytes(), subscribe);
        let mut head = [0; p::TAIL_HEAD_BYTES];
        head[..23].copy_from_slice(&exact[..23]);
        head[22] %= 4;
        match p::TailHead::from_slice(&head) {
            Ok((read, status)) => prop_assert_eq!((read.to_bytes(), status as u8), (head, head[22])),
            Err(error) => prop_assert_eq!((error, head[22]), (p::FrameError::Body(p::FrameKind::Records), 3)),
        }
    }

    #[test]
    fn questions_and_answers(noise in vec(any::<u8>(), 0..300), bytes in 0_u32..300, status in 0_u8..8, has_more in 0_u8..3) {
        let _ = (p::read_query(&noise), p::read_answer(&noise));
        // Make acceptance likely: a head whose length is that of what follows, or nearly.
        let mut body = vec![0; p::ANSWER_HEAD_BYTES];
        body[..4].copy_from_slice(&300_u32.to_le_bytes());
        body[4..8].copy_from_slice(&bytes.to_le_bytes());
        body[8..10].copy_from_slice(&[status, has_more]);
        body.extend_from_slice(&noise);
        body.resize(p::ANSWER_HEAD_BYTES + noise.len().next_multiple_of(RECORD_BYTES), 0);
        if let Ok((head, refusal, part)) = p::read_answer(&body) {
            prop_assert_eq!(&p::write_answer(refusal, head.total as usize, part, head.has_more == 1), &body);
            prop_assert!(status < 7 && has_more < 2 && part.len() == bytes as usize);
        }
        let mut body = vec![0; p::QUERY_HEAD_BYTES];
        body[..4].copy_from_slice(&bytes.to_le_bytes());
        body.extend_from_slice(&noise);
        body.resize(p::QUERY_HEAD_BYTES + noise.len().max(1).next_multiple_of(RECORD_BYTES), 0);
        if let Ok(question) = p::read_query(&body) {
            prop_assert_eq!(&p::write_query(question), &body);
        }
    }

    #[test]
    fn states(noise in vec(any::<u8>(), 0..1400), exact in any::<[u8; 64]>(), kind in 0_u8..6) {
        let mut query = [0; p::STATE_QUERY_BYTES];
        query[..46].copy_from_slice(&exact[..46]);
        query[46] = kind;
        match p::StateQuery::from_body(&query) {
            Ok((read, found)) => prop_assert_eq!((read.to_bytes(), found as u8), (query, kind)),
            Err(error) => {
                prop_assert!(kind == 0 || kind == 5);
                prop_assert_eq!(error, p::FrameError::Body(p::FrameKind::StateQuery));
            }
        }
        query[63] = 1;
        prop_assert_eq!(p::StateQuery::from_body(&query), Err(p::FrameError::Padding));
        let _ = (p::StateQuery::from_body(&noise), p::StateHead::from_slice(&noise));
        // A page is read whole or not at all, and only as what it says it is.
        let mut page = p::StateHead { kind, ..p::StateHead::default() }.to_bytes().to_vec();
        page.extend_from_slice(&noise);
        let lengths = [
            p::read_state_page::<p::PartitionRow>(&page).map(|(_, rows)| (1, rows.len() * 640)),
            p::read_state_page::<p::SupplierRow>(&page).map(|(_, rows)| (2, rows.len() * 128)),
            p::read_state_page::<p::WithdrawalRow>(&page).map(|(_, rows)| (3, rows.len() * 128)),
            p::read_state_page::<p::TenantRow>(&page).map(|(_, rows)| (4, rows.len() * 128)),
        ];
        for length in lengths {
            match length {
                Ok(read) => prop_assert_eq!(read, (kind, noise.len())),
                Err(error) => prop_assert_eq!(error, p::FrameError::Body(p::FrameKind::State)),
            }
        }
    }

    #[test]
    fn policies(noise in vec(any::<u8>(), 0..400), at in 0..p::POLICY_BYTES, byte: u8) {
        prop_assert_eq!(p::Policy::from_bytes(&noise).is_some(), noise.len() == p::POLICY_BYTES);
        let mut bytes = p::Policy::default().to_bytes();
        bytes[at] = byte;
        let policy = p::Policy::from_bytes(&bytes).unwrap();
        prop_assert_eq!(policy.to_bytes(), bytes);
        let _ = (policy.is_valid(), policy.category(5411), policy.release_rule(), policy.retention());
    }

    #[test]
    fn release_groups(noise in vec(any::<u8>(), 0..800), count in 0_u8..40, depth in 0_u8..10) {
        let _ = p::ReleaseGroup::from_bytes(&noise);
        let mut bytes = noise;
        if bytes.len() >= 160 {
            bytes[117..120].copy_from_slice(&[count, 0, 0]);
            bytes[156..160].copy_from_slice(&[depth, 0, 0, 0]);
        }
        if let Ok(group) = p::ReleaseGroup::from_bytes(&bytes) {
            prop_assert_eq!(group.to_bytes(), bytes);
        }
    }

    #[test]
    fn long_payloads(payload in vec(any::<u8>(), 0..3000), at in 0_usize..128, byte in 1_u8..) {
        let mut records = p::long::split(Kind::Policy, p::Id(1), p::PartitionHandle(2), 0, &payload);
        prop_assert_eq!(p::long::join(&records).unwrap(), payload.clone());
        if records.len() > 1 {
            let last = records.len() - 1;
            let mut bytes = records[last].to_bytes();
            bytes[at] ^= byte;
            records[last] = Record::from_bytes(&bytes);
            let is_payload = (last - 1) * 120 + at < payload.len() && at < 120;
            prop_assert_eq!(p::long::join(&records).is_ok(), is_payload);
            let body: Vec<u8> = records.iter().flat_map(Record::to_bytes).collect();
            prop_assert_eq!(p::Operations::check(&body).is_ok(), is_payload, "the wire is as strict as the log");
        }
    }

    #[test]
    fn ids(value: u128, millis in 0_u64..1 << 48, entropy: u128, text in "\\PC{0,40}") {
        let _ = p::Id::parse(&text);
        prop_assert_eq!(p::Id::parse(&p::Id(value).to_string()), Some(p::Id(value)));
        let at = p::Time(millis.saturating_mul(1_000_000));
        let id = p::Id::from_parts(at, entropy);
        prop_assert!(id.is_uuid_v7());
        if millis < u64::MAX / 1_000_000 {
            prop_assert_eq!(id.time(), at);
        }
    }
}

/// What every ledger may take for granted about an admitted operation.
fn admitted_is_sound(records: &[Record], caller: &p::Caller) -> Result<(), TestCaseError> {
    let is_long = records[0].kind().is_some_and(Kind::is_long);
    let shard = records[0].partition.shard();
    for record in records.iter().filter(|record| record.kind() != Some(Kind::Continuation)) {
        let kind = record.kind().unwrap();
        prop_assert!(record.is_well_formed(kind) && record.partition.shard() == shard);
        prop_assert!(caller.may_send(kind, record.tenant));
    }
    if is_long {
        prop_assert_eq!(records.len(), 1 + records[0].continuations());
        prop_assert!(p::long::join(records).is_ok());
    } else {
        prop_assert!(records.len() <= CHAIN_MAX);
        prop_assert!(records[..records.len() - 1].iter().all(Record::is_linked));
        prop_assert!(!records[records.len() - 1].is_linked());
    }
    Ok(())
}
