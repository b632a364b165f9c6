//! The other two parties of the money check: look-ups over the wire, and the log of the closed directory.

use std::collections::BTreeMap;
use std::path::Path;

use engine::Begin;
use surety_client::Client;
use surety_protocol::{Id, PartitionHandle, ShardId, Time};

use super::account::{Account, LockView, Sums};
use super::world::{PARTITIONS, TENANT};
use crate::exit::{Exit, Failure};
use crate::{directory, verify};

/// Look-ups that are under way at a time.
const LOOKUPS_AT_ONCE: usize = 1024;

/// Looks every lock up over QUIC. Also tells the engine's time of the last answer.
pub(crate) async fn look_up(
    client: &Client,
    locks: &[(Id, PartitionHandle)],
    mut tamper: bool,
) -> Result<(Account, Time), String> {
    let mut account = Account::default();
    let mut at = Time::ZERO;
    let mut free: BTreeMap<PartitionHandle, u128> = BTreeMap::new();
    for chunk in locks.chunks(LOOKUPS_AT_ONCE) {
        let requests = chunk.iter().map(|(id, partition)| look_up_request(client, *id, *partition)).collect();
        for ((id, partition), answer) in chunk.iter().zip(client.submit_all(requests).await) {
            let mut reply = answer.map_err(|error| format!("look-up of lock {id}: {error}"))?;
            if std::mem::take(&mut tamper) {
                reply.remaining.0 += 1;
            }
            let view = LockView { end: reply.end(), total: reply.approved.0, remaining: reply.remaining.0 };
            account.locks.insert(*id, view);
            let sums = account.partitions.entry(*partition).or_default();
            *sums.held.get_or_insert(0) += view.remaining;
            *sums.captured.get_or_insert(0) += view.total.saturating_sub(view.remaining);
            free.insert(*partition, reply.free.0);
            at = at.max(reply.time);
        }
    }
    for (partition, free) in free {
        account.partitions.entry(partition).or_default().free = Some(free);
    }
    Ok((account, at))
}

fn look_up_request(client: &Client, id: Id, partition: PartitionHandle) -> surety_protocol::Record {
    use surety_protocol::{Amount, ChangeBody, Kind, Record};
    let body = ChangeBody { lock: id, ..ChangeBody::default() };
    Record::new(Kind::Lookup, client.new_id(), partition, Amount::ZERO, &body)
}

/// Replays and verifies the log of a closed directory, and reads locks and sums out of it.
pub(crate) fn read_log(data: &Path, locks: &[(Id, PartitionHandle)]) -> Result<Account, Failure> {
    let directory = directory::open(data)?;
    let recovered = verify::replay(&directory, ShardId(0), Begin::Oldest, false)?;
    let ledger = recovered.ledger();
    ledger.verify().map_err(|violation| Failure::new(Exit::Corrupt, violation))?;
    let mut account = Account::default();
    for (handle, _) in PARTITIONS {
        if let Some(totals) = ledger.partition(handle) {
            account.partitions.insert(
                handle,
                Sums {
                    free: Some(totals.free),
                    held: Some(totals.held),
                    captured: None,
                    unsettled: Some(totals.captured),
                    // What has been paid out is no longer in its books.
                    left: totals.on_chain.checked_sub(totals.owed),
                    ..Sums::default()
                },
            );
        }
    }
    for (id, partition) in locks {
        let Some(lock) = ledger.lock(TENANT, *partition, *id) else { continue };
        let view = LockView {
            end: lock.end,
            total: lock.captured + lock.remaining - lock.headroom,
            remaining: lock.remaining,
        };
        account.locks.insert(*id, view);
        let sums = account.partitions.entry(*partition).or_default();
        *sums.captured.get_or_insert(0) += lock.captured;
    }
    if ledger.locks_len() != account.locks.len() {
        let (log, known) = (ledger.locks_len(), account.locks.len());
        return Err(Failure::new(Exit::Failure, format!("{log} locks in the log, {known} were replied to")));
    }
    Ok(account)
}

/// Copies a closed directory and flips one bit in a block of the copy that was certainly durable.
pub(crate) fn tampered_copy(data: &Path, copy: &Path) -> Result<(), Failure> {
    copy_directory(data, copy)?;
    let segment =
        copy.join("shard-0").join(wal::FileName::Segment { first_seq: surety_protocol::Seq(1) }.to_text());
    let mut bytes = std::fs::read(&segment)?;
    // Inside the third block: the first one after the two that open the log.
    let place = 2 * surety_protocol::limits::BLOCK_ALIGN + surety_protocol::limits::BLOCK_HEADER_BYTES + 16;
    let byte =
        bytes.get_mut(place).ok_or_else(|| Failure::new(Exit::Failure, "the log is too short to alter"))?;
    *byte ^= 1;
    Ok(std::fs::write(&segment, bytes)?)
}

fn copy_directory(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_directory(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
