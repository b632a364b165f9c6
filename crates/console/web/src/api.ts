// The console's own interface: questions, requests, and what they are answered.

export interface Asset {
  id: number;
  name: string;
  decimals: number;
}

export interface Me {
  engine: string;
  version: string;
  tenant: number;
  actor: string;
  name: string;
  roles: string[];
  operator: boolean;
  /** The engine was started with a history. */
  history: boolean;
  shards: number;
  assets: Asset[];
}

/** Whom a link would sign in. */
export interface Who {
  tenant: number;
  operator: boolean;
  roles: string[];
  actor: string;
  name: string;
  /** Of which certificate, by its hash. */
  certificate: string;
  /** Somebody else is signed in in this browser. */
  over: boolean;
}

export interface Second {
  /** Codes of requests that were not done, and how often; none where there were none. */
  reasons?: Record<string, number>;
  at_ms: number;
  done: number;
  declined: number;
  refused: number;
  expired: number;
  p50_us: number | null;
  p99_us: number | null;
  write_p99_us: number | null;
  used_bps: number | null;
  exposure_bps: number | null;
  /** These three only where a settler tells. */
  waiting_age_ms?: number | null;
  batch_age_ms?: number | null;
  chain_age_ms?: number | null;
}

/** How far a batch has come. */
export type Stage = "sealed" | "posted" | "mined" | "final" | "booked";

export interface Batch {
  batch: number;
  stage: Stage;
  held: string | null;
  records: number;
  partitions: number;
  credited: string;
  /** What guaranteed something when it was sealed. */
  locked: string;
  /** How far each shard was read for it. */
  read: string[];
  transaction: string | null;
  block: number | null;
  sealed_ms: number;
  posted_ms: number | null;
  mined_ms: number | null;
  final_ms: number | null;
  booked_ms: number | null;
}

export interface Settlement {
  /** The console was told of a settler. */
  named: boolean;
  trouble: string | null;
  asked_age_ms: number | null;
  /** The most that the age of its last turn can be while all is well, by its own interval. */
  turn_age_max_ms: number | null;
  /** None where the settler's last turn is too long ago. */
  ages: { waiting_age_ms: number; batch_age_ms: number; chain_age_ms: number | null } | null;
  told: {
    /** How old its last turn was when it was asked: all that it told is of then. */
    turn_age_ms: number;
    interval_ms: number;
    sealed: number;
    final: number;
    booked: number;
    waiting_records: number;
    /** Signed transactions that a block may still take. */
    pending_transactions: number;
    chain: { block: number; final_block: number; block_time_s: number | null } | null;
    batches: Batch[];
  } | null;
}

export interface Money {
  asset: number;
  states: Record<string, string>;
  open: number;
  frozen: number;
  /** Partitions that were not reconciled since a loss. */
  unreconciled: number;
}

export interface Shard {
  shard: number;
  rate: number;
  p99_us: number | null;
  write_p99_us: number | null;
  appended: number;
  acked: number;
  synced: number;
  waiting: number;
  snapshot: number;
  archived: number;
  archive_failures: number;
  storage_low: boolean;
  in_flight: number;
  open_locks: number;
  kept_locks: number;
  connections: number;
  subscribers: number;
  violations: number;
}

export interface Standing {
  ready: boolean;
  version: string;
  in_flight: number;
  open_locks: number;
  connections: number;
  violations: number;
  money: Money[];
  shards: Shard[];
}

/** Seconds field by field, as they are told to a page that opens. */
export type Columns = { [name: string]: (number | null)[] } & { reasons: Record<string, number[]> };

export interface Overview {
  seconds: Columns;
  standing: Standing;
  reasons: [string, number][];
}

export interface Frame {
  second?: Second | null;
  standing?: Standing;
  reasons?: [string, number][];
}

export interface Partition {
  partition: string;
  onchain: string;
  asset: number;
  frozen: boolean;
  /** Not reconciled since a loss: its sums are those of a backup. */
  unreconciled: boolean;
  collateral: string;
  deficit: string;
  free: string;
  held: string;
  captured: string;
  pending: string;
  owed: string;
  exposure: string;
  units: string;
  units_queued: string;
  fees: string;
  generation: number;
  cap: string | null;
  cap_until: number | null;
  batch: string;
  policy_seq: string;
}

export interface Supplier {
  supplier: string;
  units: string;
  queued: string;
  value: string;
}

export interface Withdrawal {
  id: string;
  supplier: string;
  units: string;
  due: number | null;
  position: string;
}

export type Rule = string | number | boolean | null | { [name: string]: number }[];

export interface PartitionWhole extends Partition {
  policy: Record<string, Rule>;
  suppliers: Supplier[];
  suppliers_next: string | null;
  withdrawals: Withdrawal[];
  withdrawals_cut: boolean;
}

export interface Use {
  used: string;
  /** Null where there is no limit. */
  max: string | null;
}

export interface Tenant {
  shard: number;
  tenant: number;
  enabled: boolean;
  locks: Use;
  ids: Use;
  tombstones: Use;
  advices: Use;
  rate_per_s: number;
  in_flight_max: number;
  open_locks: Use;
}

export interface Change {
  rule: string;
  old: Rule | undefined;
  new: Rule | undefined;
}

export interface Proposal {
  number: number;
  partition: string;
  asset: number;
  changes: Change[];
  reason: string;
  by: string;
  by_name: string;
  own: boolean;
  digest: string;
  made: number;
  ends: number;
  state: "open" | "sent" | "withdrawn" | "approved" | "unclear";
  approved_by: string | null;
}

export interface Outcome {
  known: boolean;
  done: boolean;
  code: string | null;
  words: string;
  replayed?: boolean;
  shard?: number;
  seq?: string;
}

export interface LockFound extends Outcome {
  lock_of_change?: string;
  lock?: {
    end: string;
    code: string;
    total: string;
    remaining: string;
    deadline: number | null;
    version: number;
    as_of: number | null;
  };
}

/** The console did not do it, or could not be reached. */
export class Refused extends Error {
  constructor(
    readonly name: string,
    words: string,
  ) {
    super(words.charAt(0).toUpperCase() + words.slice(1));
  }
}

/** The page's own token, kept for this tab at this address and port: unlike a cookie no other port of the host can have it. */
const TOKEN = "surety-token";
let onSignedOut = () => {};

/** Who hears when nobody is signed in any more. */
export function whenSignedOut(hear: () => void) {
  onSignedOut = hear;
}

/** True if this tab was signed in, and may still be. */
export function hasToken(): boolean {
  return sessionStorage.getItem(TOKEN) !== null;
}

/** Signs in by a link, or without one by the certificate that was looked at. Somebody else's session in this browser ends by it where the page has said so. */
export async function signIn(link: string | null, { over, certificate }: Who): Promise<Me> {
  const { token, ...me } = await post<Me & { token: string }>("session", { ...(link === null ? { certificate } : { link }), over });
  sessionStorage.setItem(TOKEN, token);
  return me;
}

/** Whom a link would sign in, or this browser's certificate. */
export function look(link: string | null): Promise<Who> {
  return post<Who>("session/look", link === null ? {} : { link });
}

async function send(path: string, init: RequestInit): Promise<Response> {
  let response: Response;
  try {
    const headers = { "x-surety-token": sessionStorage.getItem(TOKEN) ?? "", ...init.headers };
    response = await fetch(`api/${path}`, { credentials: "same-origin", ...init, headers });
  } catch {
    throw new Refused("UNREACHABLE", "the console does not answer: the engine may have ended, or the way to it is cut");
  }
  if (response.ok) return response;
  const body = (await response.json().catch(() => null)) as { error?: string; words?: string } | null;
  const name = body?.error ?? String(response.status);
  if (name === "SIGNED_OUT") {
    signedOut();
  }
  throw new Refused(name, body?.words ?? `the console answered ${response.status}`);
}

async function ask<T>(path: string, init: RequestInit): Promise<T> {
  const response = await send(path, init);
  return (await response.json().catch(() => {
    throw new Refused("CUT", "the console's answer was cut off; look before you send it again");
  })) as T;
}

function signedOut() {
  sessionStorage.removeItem(TOKEN);
  onSignedOut();
}

/** Events as they come, their names and what they say, until the stream ends. */
export async function* events(path: string, signal: AbortSignal): AsyncGenerator<[string, string]> {
  const response = await send(path, { signal });
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const whole = (rest + value).split("\n\n");
    rest = whole.pop()!;
    for (const event of whole) {
      const field = (name: string) => event.split("\n").find((line) => line.startsWith(`${name}:`))?.slice(name.length + 1).trim();
      yield [field("event") ?? "message", field("data") ?? ""];
    }
  }
}

/** Asks. A page that only keeps itself up to date says so: nobody is there by that. */
export function get<T>(path: string, isPoll = false): Promise<T> {
  return ask<T>(path, isPoll ? { headers: { "x-surety-poll": "1" } } : {});
}

/** Has something done. A page that only keeps itself up to date says so. */
export function post<T>(path: string, body: object = {}, isPoll = false): Promise<T> {
  const headers = { "content-type": "application/json", ...(isPoll ? { "x-surety-poll": "1" } : {}) };
  return ask<T>(path, { method: "POST", headers, body: JSON.stringify(body) });
}

/** Signs out, and says so to the rest of the page. */
export async function signOut() {
  await post("session/end");
  signedOut();
}
