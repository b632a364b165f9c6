//! Long operations: a head record whose payload follows in continuation records of 120 bytes each.

use alloc::vec::Vec;

use crate::limits::{CONTINUATION_BYTES, LONG_RECORDS_MAX, RECORD_BYTES};
use crate::record::{ControlBody, Record, RecordError};
use crate::{Amount, Id, Kind, PartitionHandle};

/// Builds head and continuations. The payload's length goes into [`ControlBody::number`].
///
/// # Panics
/// If the payload needs more than [`LONG_RECORDS_MAX`] records.
#[must_use]
pub fn split(kind: Kind, id: Id, partition: PartitionHandle, user: u64, payload: &[u8]) -> Vec<Record> {
    assert!(payload.len().div_ceil(CONTINUATION_BYTES) < LONG_RECORDS_MAX, "a payload within the limit");
    let body = ControlBody { number: payload.len() as u64, user, ..ControlBody::default() };
    let head = Record::new(kind, id, partition, Amount::ZERO, &body);
    let parts = payload.chunks(CONTINUATION_BYTES).map(|chunk| {
        let mut bytes = [0; RECORD_BYTES];
        bytes[..chunk.len()].copy_from_slice(chunk);
        bytes[RECORD_BYTES - 2] = Kind::Continuation as u8;
        Record::from_bytes(&bytes)
    });
    core::iter::once(head).chain(parts).collect()
}

/// Reads the payload out of a head and the continuations behind it.
///
/// # Errors
/// [`RecordError::Cut`] if continuations are missing, [`RecordError::Padding`] if the bytes behind the payload or the
/// tail of a continuation are not zero.
pub fn join(records: &[Record]) -> Result<Vec<u8>, RecordError> {
    let Some((head, parts)) = records.split_first() else {
        return Err(RecordError::Cut { expected: 1, found: 0 });
    };
    let expected = head.continuations();
    let is_part = |part: &&Record| part.kind() == Some(Kind::Continuation);
    let found = parts.iter().take_while(is_part).count();
    if found != expected || parts.len() != expected {
        return Err(RecordError::Cut { expected, found });
    }
    let length = usize::try_from(head.body::<ControlBody>().number).unwrap_or(usize::MAX);
    let mut payload = Vec::with_capacity(expected * CONTINUATION_BYTES);
    for part in parts {
        let bytes = part.to_bytes();
        if bytes[CONTINUATION_BYTES..RECORD_BYTES - 2].iter().any(|byte| *byte != 0) || bytes[127] != 0 {
            return Err(RecordError::Padding(Kind::Continuation));
        }
        payload.extend_from_slice(&bytes[..CONTINUATION_BYTES]);
    }
    if payload[length..].iter().any(|byte| *byte != 0) {
        return Err(RecordError::Padding(Kind::Continuation));
    }
    payload.truncate(length);
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_survives_at_every_length() {
        for length in [0_usize, 1, 119, 120, 121, 240, 360, 1000] {
            let payload: Vec<u8> = (1..=250).cycle().take(length).collect();
            let records = split(Kind::Policy, Id(1), PartitionHandle(2), 3, &payload);
            assert_eq!(records.len(), 1 + length.div_ceil(CONTINUATION_BYTES));
            assert_eq!(records[0].continuations(), records.len() - 1);
            assert_eq!(join(&records).unwrap(), payload);
            let as_sent: Vec<Record> = records.iter().map(Record::as_sent).collect();
            assert_eq!(as_sent, records, "nothing of a payload is the engine's");
            if records.len() > 1 {
                let cut = join(&records[..records.len() - 1]);
                assert!(matches!(cut, Err(RecordError::Cut { .. })));
            }
        }
    }

    #[test]
    fn padding_behind_the_payload_is_refused() {
        let mut records = split(Kind::Policy, Id(1), PartitionHandle(2), 3, &[7; 100]);
        let mut bytes = records[1].to_bytes();
        bytes[101] = 1;
        records[1] = Record::from_bytes(&bytes);
        assert_eq!(join(&records), Err(RecordError::Padding(Kind::Continuation)));
    }
}
