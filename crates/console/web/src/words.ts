// The engine's codes and states in words.

const CODES: Record<string, string> = {
  INSUFFICIENT: "not enough free collateral",
  OVER_LIMIT: "over a limit of the policy",
  VELOCITY: "too much in too short a time",
  FROZEN: "the partition is frozen",
  STALE_PRICE: "no price that is young enough",
  RATIO: "collateral ratio below the stop ratio",
  FORBIDDEN: "merchant not allowed, or deadline out of range",
  NOT_OPEN: "the lock had ended",
  UNKNOWN_LOCK: "no such lock",
  VERSION_CONFLICT: "the lock had changed meanwhile",
  UNKNOWN_CAPTURE: "no such capture",
  USE_REFUND: "the capture had moved on",
  ALREADY_RELEASED: "released before",
  ALREADY_SETTLED: "settled before",
  GUARANTEE_CALLED: "called on chain",
  LINKED_FAILED: "another request of its chain failed",
  BURNED: "its id was burned by a look-up",
  EXISTS: "it existed already",
  MALFORMED: "a value was out of its range",
  TOO_LARGE: "too many parts",
  NO_RIGHT: "role or right missing",
  UNKNOWN_PARTITION: "no such partition",
  ID_CONFLICT: "the id was used with another body",
  STALE_ID: "the id was too old",
  ID_FROM_FUTURE: "the id lay in the future",
  QUOTA: "the tenant was at a quota",
  QUOTA_RATE: "the tenant sent too much in a second",
  QUOTA_IN_FLIGHT: "too much of the tenant was unanswered",
  QUOTA_OPEN_LOCKS: "the tenant had too many open locks",
  QUOTA_LOCKS: "too many locks of the tenant were kept",
  QUOTA_IDS: "too many ids of the tenant were remembered",
  QUOTA_TOMBSTONES: "too many unknown locks were released",
  QUOTA_ADVICES: "too many advices were remembered",
  OVERLOADED: "the engine was busy",
  STORAGE_LOW: "the disk was near its reserve",
  CHAIN_STALE: "the chain was not followed",
  NOT_FOUND: "a look-up found nothing",
};

export function codeWords(code: string): string {
  return CODES[code] ?? code.toLowerCase().replaceAll("_", " ");
}

const KINDS: Record<string, string> = {
  lock: "a guarantee to a merchant was asked for",
  increase: "a lock's total was to be raised",
  decrease: "a lock's total was to be lowered",
  capture: "the merchant claimed a part of a lock",
  release: "the rest of a lock was given back",
  reverse: "a capture was taken back whole",
  refund: "a part of a capture was given back",
  advice: "a capture that had happened without asking",
  settle: "the payer's asset is final",
  consume: "the payer's asset failed: the merchant is paid from collateral",
  release_group: "releases signed by the merchant",
  deposit: "a supplier's collateral is final on chain",
  reward: "collateral for all suppliers",
  withdraw: "a supplier's units leave",
  withdraw_paid: "a queued withdrawal was paid",
  batch_final: "a batch is final on chain",
  guarantee_called: "a certificate was presented on chain",
  guarantee_paid: "a certificate was paid on chain",
  guarantee_dismissed: "a called certificate was dismissed",
  deficit: "the chain holds less than is owed",
  risk_cap: "the most that may be at risk",
  price: "what collateral is worth in a currency",
  freeze: "no new locks from here on",
  unfreeze: "the end of a freeze",
  reconcile: "the partition was reconciled after a loss",
  loss: "a loss was accepted: what came after a backup is gone",
  policy: "the partition's rules",
  cover: "exposure was made good from outside",
  write_off: "exposure was given up",
  partition_create: "a new partition",
  tenant_set: "a tenant and its quotas",
  grant: "a tenant's rights on a partition",
  merchant_set: "a merchant's payee and release key",
  expire: "a lock's deadline has passed",
  auto_settle: "a capture's settle-by time has passed: settled",
  auto_consume: "a capture's settle-by time has passed: consumed",
  mature: "a certificate can no longer be claimed",
  start: "the engine started: a new epoch",
  checkpoint: "the hash of everything until here",
};

export function kindWords(kind: string): string {
  return KINDS[kind] ?? kind.replaceAll("_", " ");
}

const ENDS: Record<string, string> = {
  live: "holds collateral",
  final: "captured for the last time",
  released: "given back by its tenant",
  expired: "its deadline has passed; it may still be presented",
  settled: "the payer's asset was final",
  declined: "never locked: the request was declined",
  tombstone: "released before it was known",
  exposed: "never locked: made by an advice",
};

export function endWords(end: string): string {
  return ENDS[end] ?? end;
}

/** What collateral can be, in the order of the identity K + D = F + H + U + P + W. */
export const STATES = [
  { key: "free", name: "Free", about: "can be locked" },
  { key: "held", name: "Held", about: "by live locks" },
  { key: "captured", name: "Captured", about: "the payer's asset not yet final" },
  { key: "pending", name: "Pending", about: "ended, still claimable by a certificate" },
  { key: "owed", name: "Owed", about: "to the chain, with the next batch" },
] as const;
