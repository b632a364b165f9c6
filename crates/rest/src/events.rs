//! Pages of events: from what is at hand, or else from the engine's log.

use axum::http::StatusCode;
use surety_client::TailError;
use surety_client::protocol::{
    self, ALL_CAPTURES, ChangeBody, ConsumeBody, Epoch, Kind, LockBody, Record, Seq, ShardId, Time,
};

use crate::cursor::{Cursor, Position};
use crate::desk::Desk;
use crate::problem::Problem;
use crate::recent::{Lives, is_told};
use crate::shapes::{Event, Events, millis};

/// Where an event stands.
pub(crate) type Place = (ShardId, Position);

/// A page, and where each of its events stands.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) events: Vec<(Place, Record)>,
    /// Behind the page, and behind whatever is not told.
    pub(crate) cursor: Cursor,
    pub(crate) is_more: bool,
}

/// Reads what comes behind a cursor: in the order of each shard, and between shards by time.
pub(crate) async fn page(desk: &Desk, after: &Cursor, limit: usize) -> Result<Page, Box<Problem>> {
    let mut through = desk.told(|told| told.cursor());
    if !through.has_reached(after.seqs()) {
        // Another front door may have told of what comes here in a moment.
        desk.catch_up().await?;
        through = desk.told(|told| told.cursor());
    }
    if !through.has_reached(after.seqs()) {
        if through.0.iter().any(|position| position.life != Epoch(0)) {
            return Err(lost());
        }
        let detail = "The cursor lies before the engine: it belongs to another history.";
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "CURSOR_AHEAD", detail).about("after"));
    }
    let mut found: Vec<(Time, Place, Record)> = Vec::new();
    // How far each shard was looked through.
    let mut looked = after.clone();
    let mut ends: Vec<Lives> = Vec::new();
    for ((shard, after), looked) in (0..).map(ShardId).zip(&after.0).zip(&mut looked.0) {
        let (records, end, lives) = shard_page(desk, shard, *after, limit).await?;
        let place = |seq| Position { seq, life: lives.of(seq).unwrap_or(after.life) };
        *looked = place(end);
        ends.push(lives.clone());
        // Each shard keeps its order, whatever its times are.
        let mut latest = Time::ZERO;
        found.extend(records.into_iter().map(|(seq, record)| {
            latest = latest.max(record.time);
            (latest, (shard, place(seq)), record)
        }));
    }
    found.sort_by_key(|(time, ..)| *time);
    // Nothing that is left out counts as told. What is left out of a shard is its end.
    for (_, (shard, place), _) in found.drain(limit.min(found.len())..) {
        let at = usize::from(shard.0);
        let (seq, looked) = (Seq(place.seq.0 - 1), &mut looked.0[at]);
        if seq < looked.seq {
            *looked = Position { seq, life: ends[at].of(seq).unwrap_or(after.0[at].life) };
        }
    }
    let events = found.into_iter().map(|(_, place, record)| (place, record)).collect();
    let is_more = !looked.has_reached(through.seqs());
    Ok(Page { events, cursor: looked, is_more })
}

/// Records of a shard, how far was looked, and of which lives they are.
type ShardPage = (Vec<(Seq, Record)>, Seq, Lives);

/// What is told of a position that may be of a life that is lost.
fn lost() -> Box<Problem> {
    let detail = "The engine goes on after a loss, and the cursor is of what was lost, or may be: what came before it may not be so any \
                  more. Read anew from the beginning, and compare.";
    Problem::new(StatusCode::GONE, "CURSOR_GONE", detail).about("after")
}

/// One shard's records behind a position.
async fn shard_page(
    desk: &Desk,
    shard: ShardId,
    after: Position,
    limit: usize,
) -> Result<ShardPage, Box<Problem>> {
    let at_hand = desk.told(|told| {
        let recent = told.recent.get(usize::from(shard.0))?;
        recent.after(after, limit).map(|records| (records, recent.through().seq, recent.lives().clone()))
    });
    let (records, through, lives) = match at_hand {
        Some(found) => found,
        None => return from_log(desk, shard, after, limit).await,
    };
    let end = if records.len() < limit { through } else { last(&records, through) };
    Ok((records, end.max(after.seq), lives))
}

/// What is not at hand any more.
async fn from_log(
    desk: &Desk,
    shard: ShardId,
    after: Position,
    limit: usize,
) -> Result<ShardPage, Box<Problem>> {
    let busy =
        || Problem::new(StatusCode::TOO_MANY_REQUESTS, "BUSY", "Too many read old events.").retryable(1);
    let _reader = desk.log_readers.try_acquire().map_err(|_| busy())?;
    let from = protocol::Cursor { next: after.seq.next(), epoch: after.life };
    let mut tail = desk.client().tail(shard, from);
    let (mut records, mut lives, mut read) = (Vec::new(), Lives::default(), after.seq);
    loop {
        let batch = match tail.next_batch().await {
            Ok(batch) => batch,
            Err(TailError::Lost { oldest, .. }) => {
                let detail = format!(
                    "What comes behind position {} of shard {shard} is not kept any more; position {oldest} is the oldest.",
                    after.seq
                );
                return Err(Problem::new(StatusCode::GONE, "CURSOR_GONE", detail).about("after"));
            }
            Err(TailError::Parted { .. } | TailError::Ahead { .. }) => return Err(lost()),
            Err(error) => {
                tracing::warn!(%shard, %error, "old events cannot be read");
                return Err(Problem::unavailable("The engine's log cannot be read now."));
            }
        };
        if batch.through > read {
            lives.note(read.next(), batch.epoch);
            read = batch.through;
        }
        let numbered = (batch.first.0..).map(Seq).zip(batch.records.iter().copied());
        records.extend(numbered.filter(|(_, record)| is_told(record)));
        let through = batch.through;
        if records.len() >= limit {
            records.truncate(limit);
            let end = last(&records, through);
            return Ok((records, end, lives));
        }
        if desk
            .told(|told| told.cursor().0.get(usize::from(shard.0)).is_none_or(|known| through >= known.seq))
        {
            return Ok((records, through, lives));
        }
    }
}

fn last(records: &[(Seq, Record)], otherwise: Seq) -> Seq {
    records.last().map_or(otherwise, |(seq, _)| *seq)
}

/// Writes a page as applications read it. Partitions whose asset is not known yet are asked for once.
pub(crate) async fn tell(desk: &Desk, page: &Page) -> Events {
    for (_, record) in &page.events {
        if record.partition.number() > 0 && desk.known_asset(record.partition).is_none() {
            // Without it the event is told in base units alone.
            let _ = desk.asset_of(record.partition).await;
        }
    }
    let events = page.events.iter().map(|(place, record)| event(desk, *place, record)).collect();
    Events { events, cursor: page.cursor.to_string(), more: page.is_more }
}

fn event(desk: &Desk, (shard, place): Place, record: &Record) -> Event {
    let (lock, capture, merchant) = about(record);
    let asset = desk.known_asset(record.partition);
    Event {
        id: format!("{shard}-{place}"),
        kind: record.kind().map_or("", Kind::name).to_owned(),
        code: record.code().map_or("", surety_client::protocol::Code::name).to_owned(),
        time_ms: millis(record.time).unwrap_or(0),
        partition: record.partition.to_string(),
        request: record.id.to_string(),
        lock,
        capture,
        merchant,
        asset: asset.map(|asset| asset.name.clone()),
        amount: asset.map(|asset| asset.tell_exactly(record.amount)),
        result: asset.map(|asset| asset.tell_exactly(record.result)),
        result_units: record.result.to_string(),
    }
}

/// The lock, the capture and the merchant that a record is about.
fn about(record: &Record) -> (Option<String>, Option<u16>, Option<u64>) {
    let index = |capture: u16| (capture != ALL_CAPTURES).then_some(capture);
    match record.kind() {
        Some(Kind::Lock) => {
            let body: LockBody = record.body();
            (Some(record.id.to_string()), None, Some(body.merchant.0))
        }
        Some(Kind::Consume | Kind::AutoConsume) => {
            let body: ConsumeBody = record.body();
            (Some(body.lock.to_string()), index(body.capture), Some(body.merchant.0))
        }
        Some(kind) if kind.changes_a_lock() => {
            let body: ChangeBody = record.body();
            let has_capture = matches!(
                kind,
                Kind::Capture | Kind::Advice | Kind::Reverse | Kind::Refund | Kind::Settle | Kind::AutoSettle
            );
            (Some(body.lock.to_string()), index(body.capture).filter(|_| has_capture), None)
        }
        _ => (None, None, None),
    }
}
