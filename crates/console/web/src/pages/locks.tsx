// A lock: how it stands now, and giving it back.

import { useEffect, useState } from "preact/hooks";
import { type Asset, type Batch, type LockFound, type Me, type Outcome, type Settlement, get, post } from "../api";
import { assetOf, distance, moment } from "../format";
import { type LockRow, type Page, type Row, ask, useAssets } from "../history";
import { usePolled } from "../live";
import { Act, Head, Money, Notice, ReasonField, Units, useNow } from "../parts";
import { isFresh } from "../settled";
import { endWords } from "../words";
import { Timeline } from "./history";

export function Locks({ me, partition, lock, tenant }: { me: Me; partition?: string; lock?: string; tenant?: string }) {
  const [form, setForm] = useState({ partition: partition ?? "", lock: lock ?? "", tenant: tenant ?? (me.operator ? "1" : "") });
  const [wanted, setWanted] = useState<string | null>(null);
  // What is told of the lock is asked for again together.
  const [turn, setTurn] = useState(0);
  const again = () => setTurn((turn) => turn + 1);
  const set = (name: keyof typeof form) => (event: { currentTarget: HTMLInputElement }) => setForm({ ...form, [name]: event.currentTarget.value.trim() });

  function submit(event: Event) {
    event.preventDefault();
    setWanted(null);
    // Where it is, the history knows.
    if (form.partition === "") return setWanted(form.lock);
    const parts = [form.partition, form.lock, ...(me.operator ? [form.tenant] : [])];
    location.hash = `#/locks/${parts.map(encodeURIComponent).join("/")}`;
    // Where the address is the same, nothing else asks.
    again();
  }

  /** The lock that was looked for is shown, also where it is the one whose address stands there already. */
  function show(row: LockRow) {
    setWanted(null);
    setForm((form) => ({ ...form, partition: row.partition }));
    location.hash = addressOf(row);
    again();
  }

  return (
    <>
      <Head title="Locks" about={me.history ? "Look a lock up by its id: how the engine has it this moment, and everything that happened to it." : "Look a lock up by its id, as the engine has it this moment."} />
      <form class="card find" onSubmit={submit}>
        <div class="field grow">
          <label for="lock-id">Id of its lock request</label>
          <input id="lock-id" class="mono" value={form.lock} onInput={set("lock")} required spellcheck={false} autocomplete="off" pattern="[0-9a-fA-F\-]{32,36}" placeholder="0190a1b2-c3d4-7000-8000-000000000001" />
        </div>
        <div class="field">
          <label for="lock-partition">Partition{me.history && <span class="about"> (if known)</span>}</label>
          <input id="lock-partition" value={form.partition} onInput={set("partition")} required={!me.history} pattern="[0-9]+:[0-9]+" placeholder="0:1" />
        </div>
        {me.operator && (
          <div class="field">
            <label for="lock-tenant">Tenant</label>
            <input id="lock-tenant" value={form.tenant} onInput={set("tenant")} required inputMode="numeric" pattern="[0-9]+" />
          </div>
        )}
        <button type="submit" class="solid">Look up</button>
      </form>
      {wanted !== null ? <Elsewhere lock={wanted} show={show} /> : partition !== undefined && lock !== undefined && (
        <>
          <Found me={me} partition={partition} lock={lock} tenant={tenant ?? "0"} turn={turn} again={again} />
          {me.history && <Guarantee me={me} partition={partition} lock={lock} tenant={tenant ?? "0"} turn={turn} />}
          {me.history && <Timeline me={me} partition={partition} lock={lock} tenant={tenant ?? "0"} turn={turn} />}
        </>
      )}
    </>
  );
}

function addressOf(row: LockRow): string {
  return `#/locks/${encodeURIComponent(row.partition)}/${row.lock}/${row.tenant}`;
}

/** Finds out in which partition a lock is; shows it at once where there is only one. */
function Elsewhere({ lock, show }: { lock: string; show: (row: LockRow) => void }) {
  const [found, setFound] = useState<LockRow[] | null>(null);
  const [isCut, setCut] = useState(false);
  const [error, setError] = useState<string | null>(null);

  useEffect(() => {
    let isOver = false;
    ask<{ locks: LockRow[]; locks_cut: boolean }>({ lock: { id: lock } })
      .then(({ locks, locks_cut }) => {
        if (isOver) return;
        setCut(locks_cut);
        if (locks.length === 1) show(locks[0]!);
        else setFound(locks);
      })
      .catch((error: Error) => !isOver && setError(error.message));
    return () => {
      isOver = true;
    };
  }, [lock]);

  if (error !== null) return <Notice kind="bad">{error}</Notice>;
  if (found === null) return null;
  if (found.length === 0) return <Notice kind="bad">The history knows no lock of this id that you may see. If it is but a moment old, name its partition.</Notice>;
  return (
    <section class="card">
      <h2>More than one lock has this id</h2>
      <ul>{found.map((row) => <li key={`${addressOf(row)}/${row.seq}`}><a href={addressOf(row)} onClick={(event) => (event.preventDefault(), show(row))}>Tenant {row.tenant}, partition {row.partition}: {row.state}</a></li>)}</ul>
      {isCut && <p class="about">And more: name the partition to find them.</p>}
    </section>
  );
}

function Found({ me, partition, lock, tenant, turn, again }: { me: Me; partition: string; lock: string; tenant: string; turn: number; again: () => void }) {
  const path = `partitions/${encodeURIComponent(partition)}/locks/${encodeURIComponent(lock)}`;
  const [found, setFound] = useState<LockFound | null>(null);
  const [error, setError] = useState<string | null>(null);
  const [reason, setReason] = useState("");
  const now = useNow();
  const holder = usePolled<{ asset: number }>(`partitions/${encodeURIComponent(partition)}`, 3_600_000);

  useEffect(() => {
    let isOver = false;
    get<LockFound>(`${path}?tenant=${encodeURIComponent(tenant)}`)
      .then((answer) => !isOver && (setFound(answer), setError(null)))
      .catch((error: Error) => !isOver && setError(error.message));
    return () => {
      isOver = true;
    };
  }, [path, turn]);

  if (error !== null) return <Notice kind="bad">{error}</Notice>;
  if (found === null) return null;
  if (found.lock_of_change !== undefined) {
    return <Notice kind="plain">This is the id of a change. <a href={`#/locks/${partition}/${found.lock_of_change}/${tenant}`}>Show its lock.</a></Notice>;
  }
  if (found.lock === undefined) return <Notice kind="bad">{found.code !== null && <strong>{found.code}</strong>} {found.words}</Notice>;
  // Of which asset it is says the partition: until it is known, and where it cannot be, no other's decimal places stand in.
  const asset = holder.value === null ? null : assetOf(me.assets, holder.value.asset);
  const state = found.lock;
  const send = (id: string) => post<Outcome>(`${path}/release`, { id, tenant: Number(tenant), reason: Number(reason) });
  return (
    <section class="card">
      <div class="row">
        <h2 class="mono">{lock}</h2>
        <div class="acts">
          <button type="button" onClick={again}>Look again</button>
          {state.end === "live" && (
            <Act name="Release" title="Give the rest of this lock back?" danger confirm="Release" send={send} done={again}>
              <p>What it still holds becomes free, and the merchant's guarantee ends. What was captured stays.</p>
              <ReasonField value={reason} change={setReason} />
            </Act>
          )}
        </div>
      </div>
      <dl class="facts">
        <dt>State</dt><dd><span class={`tag ${state.end === "live" ? "good" : "plain"}`}>{state.end}</span> {endWords(state.end)}</dd>
        <dt>Answered</dt><dd>{state.code}</dd>
        <dt>Total</dt><dd><Held units={state.total} asset={asset} /></dd>
        <dt>Still held</dt><dd><Held units={state.remaining} asset={asset} /></dd>
        <dt>Deadline</dt><dd>{moment(state.deadline)}{state.deadline !== null && ` (${distance(state.deadline, now)})`}</dd>
        <dt>Version</dt><dd>{state.version}</dd>
        <dt>As of</dt><dd>{moment(state.as_of)}</dd>
      </dl>
    </section>
  );
}

/** What the chain has to do with a lock. */
function Guarantee({ me, partition, lock, tenant, turn }: { me: Me; partition: string; lock: string; tenant: string; turn: number }) {
  const [row, setRow] = useState<LockRow | null>(null);
  const [records, setRecords] = useState<Row[]>([]);
  const [error, setError] = useState<string | null>(null);
  const of = me.operator ? [Number(tenant)] : undefined;

  useEffect(() => {
    let isOver = false;
    const wanted = { lock: [lock], partition: [partition], tenant: of, limit: 100 };
    Promise.all([
      ask<Page<LockRow>>({ locks: { ...wanted, order: "newest_first" } }),
      ask<Page<Row>>({ records: { ...wanted, kind: [...PAID_OUT, ...CALLED], order: "oldest_first" } }),
    ])
      .then(([locks, found]) => {
        if (isOver) return;
        setError(null);
        setRow(locks.rows[0] ?? null);
        setRecords(found.rows.filter((record) => record.code === "APPROVED"));
      })
      .catch((error: Error) => !isOver && setError(error.message));
    return () => {
      isOver = true;
    };
  }, [partition, lock, tenant, turn]);

  // The timeline says as well that the history cannot be asked.
  if (error !== null || row === null) return null;
  const paid = records.filter((record) => PAID_OUT.includes(record.kind) && record.result !== undefined && record.result !== "0");
  return (
    <section class="card">
      <h2>On chain</h2>
      <dl class="facts">
        <dt>Certificate</dt>
        <dd>
          <span class={`tag ${row.called ? "warn" : row.certified ? "good" : "plain"}`}>{row.called ? "called" : row.certified ? "certified" : "none"}</span>{" "}
          {certificateWords(row, records)}
        </dd>
        {paid.map((record) => (
          <Payout key={`${record.shard}.${record.seq}`} record={record} me={me} />
        ))}
      </dl>
      {paid.length === 0 && <p class="about">Nothing of it was consumed: no batch pays for it.</p>}
    </section>
  );
}

/** Records by which a merchant is owed collateral, which a batch pays. */
const PAID_OUT = ["consume", "auto_consume"];
/** What the chain has said of a certificate. */
const CALLED = ["guarantee_called", "guarantee_paid", "guarantee_dismissed"];

function certificateWords(row: LockRow, records: Row[]): string {
  const last = records.filter((record) => CALLED.includes(record.kind)).at(-1)?.kind;
  if (last === "guarantee_paid") return "its merchant has presented it on chain, and was paid there";
  if (row.called) return "its merchant has presented it on chain, which decides: nothing of the lock moves until then";
  if (last === "guarantee_dismissed") return "it was presented on chain, and dismissed there";
  if (row.certified) return "the merchant can have it, and enforce it on chain without the engine";
  return "the lock did not ask for one: the engine alone guarantees it";
}

/** A part of a lock that was consumed, and the batch that has read it. */
function Payout({ record, me }: { record: Row; me: Me }) {
  const assetOf = useAssets(me, [record.partition]);
  return (
    <>
      <dt>Consumed</dt>
      <dd>
        <Held units={record.result!} asset={assetOf(record.partition)} /> <span class="about">{moment(Date.parse(record.time))}</span>
        {/* Batches are of all tenants together: they are not a tenant's to see. */}
        {me.operator && <>, <ReadBy record={record} /></>}
      </dd>
    </>
  );
}

/** Which batch has read a record: one of those that the settler tells of, or what the history knows of it; or the next one will. */
type Reading =
  | { is: "read"; batch: number; stage: string }
  | { is: "earliest" | "latest"; batch: number }
  | { is: "next" }
  | { is: "unknown" };

function ReadBy({ record }: { record: Row }) {
  const [reading, setReading] = useState<Reading | null>(null);

  useEffect(() => {
    let isOver = false;
    readingOf(record)
      .catch((): Reading => ({ is: "unknown" }))
      .then((found) => !isOver && setReading(found));
    return () => {
      isOver = true;
    };
  }, [record.shard, record.seq]);

  if (reading === null) return <>…</>;
  if (reading.is === "next") return <>to be read by the next batch</>;
  if (reading.is === "unknown") return <>by which batch it is read cannot be told now</>;
  const link = <a href={`#/settlement/${reading.batch}`}>batch {reading.batch}</a>;
  return reading.is === "read" ? <>read by {link}, which is {reading.stage}</> : <>read by {link} at the {reading.is}</>;
}

/**
 * The first batch that has read a record, as the settler tells it. Where it no longer does, the history knows the first batch that became final
 * for the partition after it: no earlier one can have had it.
 */
async function readingOf(record: Row): Promise<Reading> {
  const settlement = await get<Settlement>("settlement", true).catch(() => null);
  const batches = [...(settlement?.told?.batches ?? [])].reverse();
  const at = batches.findIndex((batch) => hasRead(batch, record) === true);
  const first = batches[at];
  const before = batches[at - 1];
  // What was read by the oldest that is told of may have been read by one before it.
  const isFirst = before === undefined ? first?.batch === 1 : hasRead(before, record) === false;
  if (first !== undefined && isFirst) return { is: "read", batch: first.batch, stage: first.stage };
  const newest = batches.at(-1);
  // None of those that are told of has it, nor one before them.
  const isLater = newest !== undefined && hasRead(newest, record) === false;
  if (isLater && settlement !== null && isFresh(settlement)) return { is: "next" };
  const earliest = await earliestFinal(record, isLater ? newest.batch : 0);
  if (earliest !== null) return { is: "earliest", batch: earliest };
  return first === undefined ? { is: "unknown" } : { is: "latest", batch: first.batch };
}

/** The first batch behind another that became final for a record's partition after it; none where the history knows none, or cannot be asked. */
async function earliestFinal(record: Row, behind: number): Promise<number | null> {
  const asked = { partition: [record.partition], kind: ["batch_final"], from: record.time, order: "oldest_first" as const, limit: 20 };
  const finals = await ask<Page<Row>>({ records: asked }).catch(() => null);
  const after = finals?.rows.find((row) => row.seq > record.seq && row.code === "APPROVED" && Number(row.batch) > behind);
  return after === undefined ? null : Number(after.batch);
}

/** True if a batch has read a record; null where that does not tell. */
function hasRead(batch: Batch, record: Row): boolean | null {
  const read = batch.read[record.shard];
  return read === undefined || !/^[0-9]+$/.test(read) ? null : BigInt(read) >= BigInt(record.seq);
}

function Held({ units, asset }: { units: string; asset: Asset | null }) {
  return asset === null ? <Units units={units} /> : <Money units={units} asset={asset} places={6} />;
}
