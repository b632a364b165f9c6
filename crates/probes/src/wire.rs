//! What arrives over the network, and the file of acknowledgements, which holds the same replies.

use bytes::Bytes;
use server::FrameBuffer;
use surety_client::frames;
use surety_protocol::limits::{
    CHAIN_MAX, FRAME_BODY_BYTES_MAX, FRAME_HEADER_BYTES, LONG_RECORDS_MAX, RECORD_BYTES,
};
use surety_protocol::{
    ActorId, Caller, FrameError, FrameHeader, FrameKind, Hello, HelloReply, Kind, Operations, PartitionRow,
    Policy, Record, ReleaseGroup, Reply, Roles, StateQuery, StateRow, Subscribe, SupplierRow,
    TAIL_HEAD_BYTES, TailHead, TenantId, TenantRow, Token, WithdrawalRow, admit, long, read_answer,
    read_query, read_state_page, write_answer, write_query,
};

/// What a stream was cut into, and how that ended.
type Cut = (Vec<(FrameHeader, Vec<u8>)>, Option<FrameError>);

/// A piece size from the input's first byte: small ones mostly, since there the cuts are.
fn piece(first: u8) -> usize {
    1 + usize::from(first) * usize::from(first >> 6)
}

/// The server's cutting of a stream into frames does not depend on how it arrives; what is in the frames is decoded.
pub(crate) fn frames_server(input: &[u8]) {
    let Some((first, stream)) = input.split_first() else { return };
    let whole = cut_by_server(stream, stream.len().max(1));
    assert_eq!(whole, cut_by_server(stream, piece(*first)), "pieces of {}", piece(*first));
    for (header, body) in &whole.0 {
        assert_eq!(body.len(), header.body_bytes());
        decode_body(header.kind, body);
    }
}

fn cut_by_server(stream: &[u8], piece: usize) -> Cut {
    let mut buffer = FrameBuffer::default();
    let mut frames = Vec::new();
    for chunk in stream.chunks(piece) {
        buffer.push(Bytes::copy_from_slice(chunk));
        loop {
            match buffer.next_frame() {
                Ok(Some(frame)) => frames.push((frame.header, frame.body.to_vec())),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

/// The client's cutting finds what the server's finds, in a buffer that stays small.
pub(crate) fn frames_client(input: &[u8]) {
    let Some((first, stream)) = input.split_first() else { return };
    let found = cut_by_client(stream, piece(*first));
    assert_eq!(found, cut_by_server(stream, stream.len().max(1)), "both ends read the same frames");
    for (header, body) in &found.0 {
        read_as_client(header.kind, body);
    }
}

fn cut_by_client(stream: &[u8], piece: usize) -> Cut {
    let mut buffer = frames::FrameBuffer::default();
    let mut frames = Vec::new();
    let mut rest = stream;
    while !rest.is_empty() {
        let room = buffer.room();
        let (now, later) = rest.split_at(piece.min(rest.len()).min(room.len()));
        room[..now.len()].copy_from_slice(now);
        buffer.filled(now.len());
        rest = later;
        loop {
            match buffer.next_frame() {
                Ok(Some((header, body))) => frames.push((header, buffer.body(&body).to_vec())),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
        assert!(buffer.capacity() <= 2 * (FRAME_HEADER_BYTES + FRAME_BODY_BYTES_MAX), "bounded memory");
    }
    (frames, None)
}

fn read_as_client(kind: FrameKind, body: &[u8]) {
    match kind {
        FrameKind::Replies => {
            let mut replies = Vec::new();
            if let Some(token) = frames::read_replies(body, &mut replies) {
                let bytes = replies.iter().flat_map(Reply::to_bytes);
                assert!(token.to_bytes().into_iter().chain(bytes).eq(body.iter().copied()));
            } else {
                assert!(replies.is_empty(), "of a bad frame nothing is used");
            }
        }
        FrameKind::Records => {
            let mut records = Vec::new();
            match frames::read_records(body, &mut records) {
                Ok((head, _)) => {
                    let bytes = records.iter().flat_map(Record::to_bytes);
                    assert!(head.to_bytes().into_iter().chain(bytes).eq(body.iter().copied()));
                }
                Err(_) => assert!(records.is_empty()),
            }
        }
        _ => decode_body(kind, body),
    }
}

fn decode_body(kind: FrameKind, body: &[u8]) {
    match kind {
        FrameKind::Hello => decode_hello(body),
        FrameKind::HelloReply => decode_hello_reply(body),
        FrameKind::Requests => decode_requests(body, &caller(0)),
        FrameKind::Subscribe => decode_subscribe(body),
        FrameKind::StateQuery => decode_state_query(body),
        FrameKind::State => {
            decode_page::<PartitionRow>(body);
            decode_page::<SupplierRow>(body);
            decode_page::<WithdrawalRow>(body);
            decode_page::<TenantRow>(body);
        }
        FrameKind::Query | FrameKind::Answer => query(body),
        FrameKind::Replies | FrameKind::Records | FrameKind::Goodbye => {}
    }
}

/// Who sends, by a byte of the input.
pub(crate) fn caller(byte: u8) -> Caller {
    let (tenant, roles) = match byte & 3 {
        0 => (0, Roles::KNOWN),
        1 => (1, Roles::AUTHORIZER),
        2 => (2, Roles::AUTHORIZER | Roles::SETTLER),
        _ => (1, Roles::KNOWN),
    };
    Caller { tenant: TenantId(tenant), roles, actor: ActorId(9) }
}

/// The body of a request frame behind one byte that says who sends it.
pub(crate) fn records(input: &[u8]) {
    let Some((first, body)) = input.split_first() else { return };
    body.as_chunks().0.iter().for_each(decode_record);
    decode_requests(body, &caller(*first));
}

fn decode_record(bytes: &[u8; RECORD_BYTES]) {
    let record = Record::from_bytes(bytes);
    assert_eq!(record.to_bytes(), *bytes);
    let sent = record.as_sent();
    assert_eq!(sent.as_sent(), sent, "forgetting twice forgets no more");
    if record.check().is_ok_and(|kind| record.is_well_formed(kind)) {
        assert_eq!(sent, record, "a request is as it was sent");
    }
}

fn decode_requests(body: &[u8], caller: &Caller) {
    let checked = Operations::check(body);
    let mut seen = 0;
    for operation in Operations::new(body) {
        let Ok(operation) = operation else {
            assert!(checked.is_err(), "what is refused later is refused at once");
            return;
        };
        assert_eq!(operation.as_flattened(), &body[seen..][..operation.len() * RECORD_BYTES]);
        seen += operation.len() * RECORD_BYTES;
        let records: Vec<Record> = operation.iter().map(Record::from_bytes).collect();
        if admit(&records, caller).is_ok() {
            admitted_is_sound(&records, caller);
        }
    }
    assert!(
        checked.is_ok() && seen == body.len() / RECORD_BYTES * RECORD_BYTES,
        "every record belongs to one"
    );
}

/// What every ledger takes for granted about an admitted operation.
fn admitted_is_sound(records: &[Record], caller: &Caller) {
    let head = &records[0];
    let is_long = head.continuations() > 0;
    for record in records {
        let kind = record.kind().expect("an admitted record has a kind");
        assert!(record.is_well_formed(kind));
        if kind != Kind::Continuation {
            assert_eq!(record.partition.shard(), head.partition.shard());
            assert!(caller.may_send(kind, record.tenant));
        }
    }
    if is_long {
        assert!(records.len() == 1 + head.continuations() && records.len() <= LONG_RECORDS_MAX);
        let payload = long::join(records).expect("an admitted long request is whole");
        decode_payload(head, &payload);
    } else {
        let (last, linked) = records.split_last().expect("an operation has a record");
        assert!(records.len() <= CHAIN_MAX && linked.iter().all(Record::is_linked) && !last.is_linked());
    }
}

fn decode_payload(head: &Record, payload: &[u8]) {
    match head.kind() {
        Some(Kind::Policy) => {
            if let Some(policy) = Policy::from_bytes(payload) {
                assert_eq!(policy.to_bytes()[..], *payload);
                let _ = (policy.is_valid(), policy.category(5411), policy.release_rule(), policy.retention());
            }
        }
        _ => release_group(payload),
    }
}

/// Both sides of a hello, and the tokens in it.
pub(crate) fn hello(input: &[u8]) {
    decode_hello(input);
    decode_hello_reply(input);
    if let Some(token) = Token::from_slice(input) {
        assert_eq!(token.to_bytes()[..], *input);
        let _ = token.is_genuine(&[7; 32]);
    }
}

fn decode_hello(body: &[u8]) {
    if let Ok((hello, tokens)) = Hello::from_body(body) {
        assert_eq!(hello.to_body(&tokens), body);
        assert!(hello.name().len() <= hello.name.len());
        for oldest in 1..=2 {
            assert!(hello.common_version(oldest).is_none_or(|version| version >= oldest));
        }
    }
}

fn decode_hello_reply(body: &[u8]) {
    if let Ok(reply) = HelloReply::from_body(body) {
        assert_eq!(reply.to_bytes()[..], *body);
        assert_eq!(reply.shard_map().len(), usize::from(reply.shards));
        assert!(usize::from(reply.shard.0) < reply.shard_map().len());
    }
}

/// The messages of the change stream.
pub(crate) fn tail(input: &[u8]) {
    decode_subscribe(input);
    if let Ok((head, status)) = TailHead::from_slice(input) {
        assert_eq!(head.to_bytes()[..], *input);
        assert_eq!(head.status, status as u8);
    }
    // A frame's header vouches for the length of its body: whole records behind the head.
    let records = input.len().saturating_sub(TAIL_HEAD_BYTES) / RECORD_BYTES;
    let whole = TAIL_HEAD_BYTES + records * RECORD_BYTES;
    read_as_client(FrameKind::Records, input.get(..whole).unwrap_or(input));
}

fn decode_subscribe(body: &[u8]) {
    if let Ok(subscribe) = Subscribe::from_body(body) {
        assert_eq!(subscribe.to_bytes()[..], *body);
    }
}

fn decode_state_query(body: &[u8]) {
    if let Ok((query, kind)) = StateQuery::from_body(body) {
        assert_eq!(query.to_bytes()[..], *body);
        assert_eq!(query.kind, kind as u8);
    }
}

/// A page is read whole, or not at all.
fn decode_page<R: StateRow>(body: &[u8]) {
    if let Ok((head, rows)) = read_state_page::<R>(body) {
        let mut bytes = head.to_bytes().to_vec();
        rows.iter().for_each(|row| row.write(&mut bytes));
        assert_eq!(bytes, body);
    }
}

/// A question to the history, and a part of its answer.
pub(crate) fn query(body: &[u8]) {
    if let Ok(question) = read_query(body) {
        assert_eq!(write_query(question), body);
    }
    if let Ok((head, refusal, part)) = read_answer(body) {
        let total = usize::try_from(head.total).expect("a length that was found to be bounded");
        assert_eq!(write_answer(refusal, total, part, head.has_more == 1), body);
    }
}

/// Releases that a merchant has signed.
pub(crate) fn release_group(input: &[u8]) {
    if let Ok(group) = ReleaseGroup::from_bytes(input) {
        assert_eq!(group.to_bytes(), input);
    }
}

/// A file of acknowledgements.
pub(crate) fn acks(input: &[u8]) {
    match loadtest::parse_acks(input) {
        Ok(replies) => {
            let whole = input.len() / RECORD_BYTES * RECORD_BYTES;
            assert!(replies.iter().flat_map(Reply::to_bytes).eq(input[..whole].iter().copied()));
        }
        Err(offset) => {
            let at = usize::try_from(offset).expect("an offset in the input");
            assert!(at % RECORD_BYTES == 0 && at + RECORD_BYTES <= input.len());
        }
    }
}
