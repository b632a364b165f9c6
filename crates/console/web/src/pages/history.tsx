// What has happened: records and locks by whatever is known of them, and what the chain and the operators have done.

import { useEffect, useState } from "preact/hooks";
import { type Asset, type Me } from "../api";
import { moment, short } from "../format";
import { type Ask, type Conditions, type LockRow, type Page, type Row, useAssets, usePages } from "../history";
import { Head, Money, Notice, Units } from "../parts";
import { codeWords, endWords, kindWords } from "../words";

/** What may be looked for, and the kinds that a view is about where it is about some. */
const VIEWS = [
  { path: "records", name: "Records", about: "Every request and what it did, also those that were declined.", kinds: null, operator: false },
  { path: "locks", name: "Locks", about: "Locks as they stand now, by when they were made.", kinds: null, operator: false },
  { path: "open", name: "Open locks", about: "Locks that hold collateral: the one that ends soonest first.", kinds: null, operator: false },
  {
    path: "settlement",
    name: "On chain",
    about: "What the chain has said: batches that are final, what was put in and taken out, guarantees that were called.",
    kinds: ["batch_final", "guarantee_called", "guarantee_paid", "guarantee_dismissed", "deficit", "deposit", "reward", "withdraw", "withdraw_paid"],
    operator: true,
  },
  {
    path: "audit",
    name: "Audit",
    about: "What operators and admins have done, and under which principal; losses that were accepted and starts of the engine with it. Releases are those of all clients: their number is the reason that somebody gave here, or any number of a client's own. Prices are found by their kind.",
    kinds: ["freeze", "unfreeze", "policy", "risk_cap", "cover", "write_off", "partition_create", "tenant_set", "grant", "merchant_set", "reconcile", "loss", "release", "start"],
    // Feeds send them by the thousand.
    more: ["price"],
    operator: false,
  },
] as const;

type View = (typeof VIEWS)[number];

/** The kinds that a view can be asked for: those that it shows, and those that it shows where they are named. */
function kindsOf(view: View): string[] {
  return [...(view.kinds ?? []), ...("more" in view ? view.more : [])];
}

const FIELDS = ["partition", "merchant", "tenant", "state", "kind", "code", "from", "until"] as const;
type Field = (typeof FIELDS)[number] | "lock" | "payee" | "supplier" | "amount_min" | "amount_max" | "order";
type Form = Partial<Record<Field, string>>;

const STATES = ["live", "final", "released", "expired", "settled", "declined", "tombstone", "exposed"];

export function HistoryPage({ me, view: path, form: text }: { me: Me; view?: string; form?: string }) {
  const views = VIEWS.filter((view) => me.operator || !view.operator);
  const view = views.find((view) => view.path === path) ?? views[0]!;
  const form: Form = Object.fromEntries(new URLSearchParams(text ?? ""));
  const [turn, setTurn] = useState(0);
  // The same conditions again are the same address: nothing else asks.
  const again = () => setTurn((turn) => turn + 1);
  return (
    <>
      <Head title="History" about={view.about} />
      <nav class="tabs" aria-label="Views of the history">
        {views.map(({ path, name }) => (
          <a key={path} href={`#/history/${path}`} aria-current={path === view.path ? "page" : undefined}>{name}</a>
        ))}
      </nav>
      <Search key={`${view.path}/${text}`} view={view} form={form} me={me} again={again} />
      {view.path === "locks" || view.path === "open"
        ? <LocksFound key={address(view, form)} view={view} form={form} me={me} turn={turn} />
        : <Records key={address(view, form)} view={view} form={form} me={me} turn={turn} />}
    </>
  );
}

/** The address of a view with a form filled in. */
function address(view: View, form: Form): string {
  const filled = Object.entries(form).filter(([, value]) => value !== undefined && value !== "") as [string, string][];
  const query = new URLSearchParams(filled).toString();
  return `#/history/${view.path}${query === "" ? "" : `/${encodeURIComponent(query)}`}`;
}

function Search({ view, form, me, again }: { view: View; form: Form; me: Me; again: () => void }) {
  const [filled, setFilled] = useState<Form>(form);
  const rare = ["payee", "supplier", "amount_min", "amount_max", "code", "kind", "order"] as const;
  const [isOpen, setOpen] = useState(rare.some((field) => form[field] !== undefined && (field !== "kind" || view.kinds === null)));
  const isOfLocks = view.path === "locks" || view.path === "open";
  const input = (field: Field, label: string, more: Record<string, unknown> = {}) => (
    <div class={`field${field === "lock" ? " grow" : ""}`} key={field}>
      <label for={`find-${field}`}>{label}</label>
      <input id={`find-${field}`} value={filled[field] ?? ""} onInput={(event) => setFilled({ ...filled, [field]: event.currentTarget.value.trim() })} autocomplete="off" spellcheck={false} {...more} />
    </div>
  );
  const choice = (field: Field, label: string, options: (readonly [string, string])[]) => (
    <div class="field" key={field}>
      <label for={`find-${field}`}>{label}</label>
      <select id={`find-${field}`} value={filled[field] ?? ""} onChange={(event) => setFilled({ ...filled, [field]: event.currentTarget.value })}>
        {options.map(([value, words]) => <option key={value} value={value}>{words}</option>)}
      </select>
    </div>
  );

  function submit(event: Event) {
    event.preventDefault();
    if (address(view, filled) === address(view, form)) again();
    else location.hash = address(view, filled);
  }

  return (
    <form class="card" onSubmit={submit}>
      <div class="find">
        {view.kinds === null && input("lock", "Id of the lock", { class: "mono", pattern: "[0-9a-fA-F\\-]{32,36}", placeholder: "0190a1b2-c3d4-7000-8000-000000000001" })}
        {input("partition", "Partition", { pattern: "[0-9]+:[0-9]+", placeholder: "0:1" })}
        {view.kinds === null && input("merchant", "Merchant", { inputMode: "numeric", pattern: "[0-9]+" })}
        {me.operator && input("tenant", "Tenant", { inputMode: "numeric", pattern: "[0-9]+" })}
        {view.kinds !== null && choice("kind", "Kind", [["", "any of these"], ...kindsOf(view).map((kind) => [kind, kind.replaceAll("_", " ")] as const)])}
        {view.path !== "open" && view.kinds === null && choice("state", "State", [["", "any"], ...STATES.map((state) => [state, state] as const)])}
        {view.path !== "open" && input("from", "From", { type: "datetime-local", step: 1 })}
        {view.path !== "open" && input("until", "Until before", { type: "datetime-local", step: 1 })}
      </div>
      {isOpen && (
        <div class="find">
          {view.kinds === null && input("payee", "Paid at address", { class: "mono", pattern: "0x[0-9a-fA-F]{40}", placeholder: "0x…" })}
          {!isOfLocks && input("supplier", "Supplier", { class: "mono", pattern: "0x[0-9a-fA-F]{40}", placeholder: "0x…" })}
          {input("amount_min", "From amount (base units)", { inputMode: "numeric", pattern: "[0-9]+" })}
          {input("amount_max", "To amount (base units)", { inputMode: "numeric", pattern: "[0-9]+" })}
          {view.path !== "open" && input("code", "Answered", { placeholder: "INSUFFICIENT", pattern: "[A-Z_]+" })}
          {!isOfLocks && view.kinds === null && input("kind", "Kind", { placeholder: "capture", pattern: "[a-z_]+" })}
          {view.path !== "open" && choice("order", "Order", [["", "newest first"], ["oldest_first", "oldest first"]])}
          {view.path === "open" && choice("order", "Order", [["", "ends soonest first"], ["age", "oldest first"]])}
        </div>
      )}
      <div class="acts">
        <button type="submit" class="solid">Find</button>
        <button type="button" aria-expanded={isOpen} onClick={() => setOpen(!isOpen)}>{isOpen ? "Fewer conditions" : "More conditions"}</button>
        {Object.keys(form).length > 0 && <a href={`#/history/${view.path}`}>Clear</a>}
      </div>
    </form>
  );
}

/** What a form asks. Moments are those of this machine's calendar, as they were written. */
function conditions(view: View, form: Form, cursor?: string): Conditions {
  const list = (field: Field) => (form[field] === undefined ? undefined : [form[field]]);
  const numbers = (field: Field) => (form[field] === undefined ? undefined : [Number(form[field])]);
  const time = (field: Field) => {
    const at = new Date(form[field] ?? "");
    return Number.isNaN(at.getTime()) ? undefined : at.toISOString();
  };
  return {
    lock: list("lock"),
    partition: list("partition"),
    merchant: list("merchant"),
    tenant: numbers("tenant"),
    payee: list("payee"),
    supplier: list("supplier"),
    code: list("code"),
    kind: view.kinds === null || kindsOf(view).includes(form.kind ?? "") ? list("kind") : [...view.kinds],
    state: view.path === "open" ? undefined : list("state"),
    amount_min: form.amount_min,
    amount_max: form.amount_max,
    from: time("from"),
    until: time("until"),
    order: form.order === "oldest_first" ? "oldest_first" : view.path === "open" ? undefined : "newest_first",
    limit: 50,
    cursor,
  };
}

function question(view: View, form: Form, cursor?: string): Ask {
  const asked = conditions(view, form, cursor);
  if (view.path === "locks") return { locks: asked };
  if (view.path === "open") return { open_locks: { by: form.order === "age" ? "age" : "deadline", ...asked } };
  return { records: asked };
}

function Records({ view, form, me, turn }: { view: View; form: Form; me: Me; turn: number }) {
  const found = usePages<Row>(address(view, form), (cursor) => question(view, form, cursor), turn);
  return (
    <Found found={found} nothing="Nothing that has happened fits.">
      <RecordsTable rows={found.rows} me={me} caption="Records" audit={view.path === "audit"} />
    </Found>
  );
}

function LocksFound({ view, form, me, turn }: { view: View; form: Form; me: Me; turn: number }) {
  const found = usePages<LockRow>(address(view, form), (cursor) => question(view, form, cursor), turn);
  const assetOf = useAssets(me, found.rows.map((row) => row.partition));
  return (
    <Found found={found} nothing="No lock fits.">
      <table class="list">
        <caption class="sr">Locks</caption>
        <thead><tr><th scope="col">Lock</th><th scope="col">Made</th><th scope="col">State</th><th scope="col">Merchant</th><th scope="col">Partition</th><th scope="col">Guaranteed</th><th scope="col">Still held</th><th scope="col">Ends</th></tr></thead>
        <tbody>
          {found.rows.map((row) => {
            const asset = assetOf(row.partition);
            return (
              <tr key={`${row.tenant}.${row.partition}.${row.lock}.${row.seq}`}>
                <th scope="row"><LockLink row={row} /></th>
                <td data-name="Made">{moment(Date.parse(row.created))}</td>
                <td data-name="State" title={endWords(row.state)}><State name={row.state} /></td>
                <td data-name="Merchant"><a href={`#/statement/merchant/${row.tenant}/${row.merchant}`} title="Its statement">{row.merchant}</a></td>
                <td data-name="Partition"><a href={`#/partitions/${row.partition}`}>{row.partition}</a></td>
                <td data-name="Guaranteed"><Amount units={row.approved} asset={asset} /></td>
                <td data-name="Still held"><Amount units={row.remaining} asset={asset} /></td>
                <td data-name="Ends">{moment(Date.parse(row.deadline))}</td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </Found>
  );
}

/** After so long the history mostly has what was just done. */
const INDEXED_MS = 3000;

/** Everything about one lock, the first first. */
export function Timeline({ lock, partition, tenant, me, turn }: { lock: string; partition: string; tenant: string; me: Me; turn: number }) {
  // Ids are a tenant's own: of those that the operator sees, two may have one.
  const of = me.operator ? [Number(tenant)] : undefined;
  const asked = (cursor?: string): Ask => ({ records: { lock: [lock], partition: [partition], tenant: of, order: "oldest_first", limit: 100, cursor } });
  // The history follows the engine by a moment: what was just done is asked for once more.
  const [later, setLater] = useState(0);
  useEffect(() => {
    if (turn === 0) return;
    const timer = setTimeout(() => setLater((later) => later + 1), INDEXED_MS);
    return () => clearTimeout(timer);
  }, [turn]);
  const found = usePages<Row>(`${partition}/${lock}/${tenant}`, asked, turn + later);
  return (
    <Found found={found} title="What happened to it" nothing="The history knows nothing of it yet.">
      <RecordsTable rows={found.rows} me={me} caption="What happened to the lock" ofOneLock />
    </Found>
  );
}

interface Answer<R> {
  rows: R[];
  page: Page<R> | null;
  error: string | null;
  isBusy: boolean;
  more: () => void;
}

function Found<R>({ found, title, nothing, children }: { found: Answer<R>; title?: string; nothing: string; children: preact.ComponentChildren }) {
  const { rows, page, error, isBusy, more } = found;
  return (
    <section class="card flush" aria-busy={isBusy}>
      {title !== undefined && <h2>{title}</h2>}
      {error !== null && <div class="pad"><Notice kind="bad">{error}</Notice></div>}
      {rows.length > 0 ? children : page !== null && !page.has_more && <p class="about pad">{nothing}</p>}
      {page !== null && (
        <p class="pad row">
          {page.has_more ? <button type="button" disabled={isBusy} onClick={more}>{rows.length === 0 ? "Look further" : "Show more"}</button> : <span class="about">That is all.</span>}
          {page.complete_before !== null && <span class="about">Indexed up to {moment(Date.parse(page.complete_before))}</span>}
        </p>
      )}
    </section>
  );
}

function RecordsTable({ rows, me, caption, audit, ofOneLock }: { rows: Row[]; me: Me; caption: string; audit?: boolean; ofOneLock?: boolean }) {
  const assetOf = useAssets(me, rows.map((row) => row.partition));
  const [open, setOpen] = useState<string | null>(null);
  const columns = audit ? 7 : ofOneLock ? 7 : 8;
  return (
    <table class="list">
      <caption class="sr">{caption}</caption>
      <thead>
        <tr>
          <th scope="col">When</th>
          <th scope="col">What</th>
          <th scope="col">Answer</th>
          {audit ? <><th scope="col">By</th><th scope="col">Reason or number</th><th scope="col">Partition</th></> : ofOneLock ? <th scope="col">State</th> : <><th scope="col">Lock</th><th scope="col">Merchant</th><th scope="col">Partition</th></>}
          {!audit && <th scope="col">Moved</th>}
          {ofOneLock && <th scope="col">Still held</th>}
          <th scope="col"><span class="sr">More</span></th>
        </tr>
      </thead>
      <tbody>
        {rows.map((row) => {
          const place = `${row.shard}.${row.seq}`;
          const asset = assetOf(row.partition);
          const after = row.lock_after;
          const isOpen = open === place;
          const part = (
            <tr key={place}>
              <th scope="row" title={row.time}>{moment(Date.parse(row.time))}</th>
              <td data-name="What" title={kindWords(row.kind)}>{row.kind.replaceAll("_", " ")}</td>
              <td data-name="Answer" title={codeWords(row.code)}><span class={`tag ${row.code === "APPROVED" ? "good" : "warn"}`}>{row.code}</span></td>
              {audit ? (
                <>
                  <td data-name="By" class="mono">{row.actor ?? "–"}</td>
                  <td data-name="Reason">{reasonOf(row)}</td>
                  <td data-name="Partition">{row.partition}</td>
                </>
              ) : ofOneLock ? (
                <td data-name="State">{after === undefined ? "–" : <State name={after.state} />}</td>
              ) : (
                <>
                  <td data-name="Lock">{after === undefined ? "–" : <LockLink row={{ ...row, lock: row.lock ?? row.id, tenant: row.tenant ?? 0 }} />}</td>
                  <td data-name="Merchant">{after?.merchant ?? "–"}</td>
                  <td data-name="Partition"><a href={`#/partitions/${row.partition}`}>{row.partition}</a></td>
                </>
              )}
              {!audit && <td data-name="Moved">{row.result === undefined ? "–" : <Amount units={row.result} asset={asset} />}</td>}
              {ofOneLock && <td data-name="Still held">{after === undefined ? "–" : <Amount units={after.remaining} asset={asset} />}</td>}
              <td><button type="button" class="small" aria-expanded={isOpen} aria-label={`Everything about record ${row.seq} of shard ${row.shard}`} onClick={() => setOpen(isOpen ? null : place)}>{isOpen ? "Less" : "More"}</button></td>
            </tr>
          );
          if (!isOpen) return part;
          return [
            part,
            <tr key={`${place}.all`} class="all"><td colSpan={columns}><Everything row={row} /></td></tr>,
          ];
        })}
      </tbody>
    </table>
  );
}

/** The number that somebody has given as a reason; of a release it is the request's own number. */
function reasonOf(row: Row): string {
  const reason = row.reason ?? (row.kind === "release" ? row.user : undefined);
  return reason === undefined ? "–" : String(reason);
}

/** A record's fields as they are written, amounts to the last base unit. */
function Everything({ row }: { row: Row }) {
  const { lock_after, partition_after, ...fields } = row;
  const list = (values: Record<string, unknown>) =>
    Object.entries(values).map(([name, value]) => (
      <div key={name}>
        <dt>{name.replaceAll("_", " ")}</dt>
        <dd class="mono">{typeof value === "object" ? JSON.stringify(value) : String(value)}</dd>
      </div>
    ));
  return (
    <div class="everything">
      <dl class="rules">{list(fields)}</dl>
      {lock_after !== undefined && <><h2>The lock after it</h2><dl class="rules">{list({ ...lock_after })}</dl></>}
      {partition_after !== undefined && <><h2>The partition after it, in base units</h2><dl class="rules">{list(partition_after)}</dl></>}
    </div>
  );
}

function LockLink({ row }: { row: { lock: string; partition: string; tenant: number } }) {
  return <a class="mono" href={`#/locks/${row.partition}/${row.lock}/${row.tenant}`} title={row.lock}>{short(row.lock, 13, 6)}</a>;
}

function State({ name }: { name: string }) {
  return <span class={`tag ${name === "live" ? "good" : name === "declined" || name === "exposed" ? "warn" : "plain"}`}>{name}</span>;
}

function Amount({ units, asset }: { units: string; asset: Asset | null }) {
  return asset === null ? <Units units={units} /> : <Money units={units} asset={asset} places={6} />;
}
