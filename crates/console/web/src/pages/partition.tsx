// One partition: its money, its rules, its suppliers, and what may be done about it.

import { useEffect, useId, useRef, useState } from "preact/hooks";
import { type Asset, type Change, type Me, type Outcome, type PartitionWhole, type Rule, type Supplier, get, post } from "../api";
import { amount, assetOf, distance, exact, grouped, moment, percent, share, short } from "../format";
import { type Row, type Statement, ask, usePages } from "../history";
import { usePolled } from "../live";
import { Act, Head, Money, MoneyBar, MoneyTable, Notice, ReasonField, useNow } from "../parts";

export function PartitionPage({ handle, me }: { handle: string; me: Me }) {
  const path = `partitions/${encodeURIComponent(handle)}`;
  const { value: row, error, again } = usePolled<PartitionWhole>(path);
  const [reason, setReason] = useState("");
  if (row === null) {
    return (
      <>
        <Head title={`Partition ${handle}`} about={<a href="#/partitions">All partitions</a>} />
        {error !== null && <Notice kind="bad">{error}</Notice>}
      </>
    );
  }
  const asset = assetOf(me.assets, row.asset);
  const isAdmin = me.roles.includes("admin");
  const control = (what: string) => (id: string) =>
    post<Outcome>(`${path}/${what}`, what === "freeze" ? { id, reason: Number(reason) } : { id });
  return (
    <>
      <Head title={`Partition ${row.partition}`} about={<a href="#/partitions">All partitions</a>}>
        {me.history && me.operator && <a href={`#/statement/partition/${row.partition}`}>Statement</a>}
        {isAdmin && (row.frozen ? (
          <Act key="unfreeze" name="Unfreeze" title={`Allow new locks on ${row.partition} again?`} confirm="Unfreeze" send={control("unfreeze")} done={again}>
            <p>Locks are decided by its policy again from the next request on.</p>
          </Act>
        ) : (
          <Act key="freeze" name="Freeze" title={`Freeze ${row.partition}?`} danger confirm="Freeze" send={control("freeze")} done={again}>
            <p>New locks, increases and withdrawals are declined until somebody unfreezes it. What is locked goes on: captures, releases and settlement.</p>
            <ReasonField value={reason} change={setReason} />
          </Act>
        ))}
      </Head>
      {error !== null && <Notice kind="bad">{error}</Notice>}
      {row.unreconciled && (
        <Notice kind="bad">
          Not reconciled since a loss: these are the sums of a backup. No payment is taken and nothing moves until <code>surety ctl partition reconcile {row.partition}</code>.
        </Notice>
      )}
      {row.frozen && <Notice kind="bad">Frozen: new locks are declined.</Notice>}
      {row.deficit !== "0" && <Notice kind="bad">A deficit of <Money units={row.deficit} asset={asset} />: on chain there is less than is owed.</Notice>}
      {row.exposure !== "0" && <Notice kind="bad">Losses of <Money units={row.exposure} asset={asset} /> have no collateral behind them.</Notice>}
      <div class="columns">
        <section class="card">
          <div class="row">
            <h2>Collateral</h2>
            <strong><Money units={row.collateral} asset={asset} /></strong>
          </div>
          <MoneyBar of={row} />
          <MoneyTable of={row} asset={asset} />
        </section>
        <section class="card">
          <h2>Facts</h2>
          <dl class="facts">
            <dt>On chain</dt><dd class="mono" title={row.onchain}>{short(row.onchain, 14, 8)}</dd>
            <dt>Asset</dt><dd>{asset.name} ({row.asset})</dd>
            <dt>Last final batch</dt><dd>{row.batch === "0" ? "none yet" : grouped(row.batch)}</dd>
            <dt>Value at risk</dt><dd>{row.cap === null ? "no cap is set" : <>at most <Money units={row.cap} asset={asset} places={0} /> until {moment(row.cap_until)}</>}</dd>
            <dt>Units</dt><dd>{amount(row.units, asset, 2)}, generation {row.generation}</dd>
            <dt>Fees earned</dt><dd><Money units={row.fees} asset={asset} /></dd>
          </dl>
        </section>
      </div>
      {me.history && me.operator && <Prices row={row} asset={asset} />}
      {me.history && me.operator && <AsOf row={row} asset={asset} />}
      <Suppliers row={row} asset={asset} hasStatements={me.history && me.operator} />
      <Policy row={row} asset={asset} path={path} mayPropose={isAdmin && me.operator} />
    </>
  );
}

/** Prices of the shard that are looked through: those of all its assets and currencies together. */
const PRICES_LIMIT = 500;
/** An age that counts up has to be that of the newest price. */
const PRICES_EVERY_MS = 15_000;

/** What the collateral was last said to be worth in each currency, and how long ago that was seen. */
function Prices({ row, asset }: { row: PartitionWhole; asset: Asset }) {
  const now = useNow();
  const shard = Number(row.partition.split(":")[0]);
  const { rows, page, error } = usePages<Row>(`${row.partition}/prices`, () => ({ records: { kind: ["price"], code: ["APPROVED"], partition: [`${shard}:0`], limit: PRICES_LIMIT } }), 0, PRICES_EVERY_MS);
  const ofAsset = rows.filter((price) => price.shard === shard && price.asset === row.asset);
  const newest = [...new Map([...ofAsset].reverse().map((price) => [price.quote, price])).values()];
  if (error !== null) return <Notice kind="bad">{error}</Notice>;
  if (page === null) return null;
  if (newest.length === 0) {
    return (
      <section class="card">
        <h2>Prices</h2>
        <p class="about">{page.has_more ? `None of ${asset.name} is among the last ${rows.length} of the shard.` : `Nobody has said what ${asset.name} is worth.`}</p>
      </section>
    );
  }
  return (
    <section class="card">
      <h2>Prices</h2>
      <dl class="facts">
        {newest.map((price) => {
          const observed = typeof price.observed === "string" ? Date.parse(price.observed) : null;
          return (
            <>
              <dt>{asset.name} in currency {String(price.quote)}</dt>
              <dd>
                {grouped(price.amount ?? "0")} <span class="unit">base units for 10<sup>18</sup></span>
                {observed !== null && <span class="about" title={moment(observed)}>, seen {distance(observed, now)}</span>}
              </dd>
            </>
          );
        })}
      </dl>
      {page.has_more && <p class="about">Of the shard's last {grouped(String(rows.length))} prices. Older ones are not looked through: a currency whose price is older is missing here.</p>}
    </section>
  );
}

/** The partition's money, or a supplier's, as it was at a moment. */
function AsOf({ row, asset }: { row: PartitionWhole; asset: Asset }) {
  const [at, setAt] = useState("");
  const [supplier, setSupplier] = useState("");
  const [found, setFound] = useState<{ at: string; balances: Record<string, string> | null } | null>(null);
  const [error, setError] = useState<string | null>(null);
  const id = useId();

  async function submit(event: Event) {
    event.preventDefault();
    setError(null);
    setFound(null);
    try {
      const { balances } = await ask<{ balances: Record<string, string> | null }>({ balances: { partition: row.partition, supplier: supplier === "" ? undefined : supplier, at: new Date(at).toISOString() } });
      setFound({ at, balances });
    } catch (error) {
      setError((error as Error).message);
    }
  }

  return (
    <section class="card">
      <h2>As of a moment</h2>
      <form class="find" onSubmit={(event) => void submit(event)}>
        <div class="field">
          <label for={id}>When</label>
          <input id={id} type="datetime-local" step={1} required value={at} onInput={(event) => (setAt(event.currentTarget.value), setFound(null))} />
        </div>
        <div class="field">
          <label for={`${id}-whose`}>Whose</label>
          <select id={`${id}-whose`} value={supplier} onChange={(event) => (setSupplier(event.currentTarget.value), setFound(null))}>
            <option value="">the partition's</option>
            {row.suppliers.map((one) => <option key={one.supplier} value={one.supplier}>{short(one.supplier, 10, 6)}</option>)}
          </select>
        </div>
        <button type="submit">Show</button>
      </form>
      {error !== null && <Notice kind="bad">{error}</Notice>}
      {found !== null && (found.balances === null ? <Notice kind="plain">It was not there at {moment(Date.parse(found.at))}.</Notice> : (
        <>
          <p class="about">As it was at {moment(Date.parse(found.at))}, and known in full:</p>
          <dl class="rules" aria-label={`As of ${moment(Date.parse(found.at))}`}>
            {Object.entries(found.balances).map(([name, units]) => (
              <div key={name}><dt>{name.replaceAll("_", " ")}</dt><dd title={`${grouped(units)} base units`}>{amount(units, asset, 6)}</dd></div>
            ))}
          </dl>
        </>
      ))}
    </section>
  );
}

function Suppliers({ row, asset, hasStatements }: { row: PartitionWhole; asset: Asset; hasStatements: boolean }) {
  const now = useNow(5000);
  const [more, setMore] = useState<{ suppliers: Supplier[]; next: string | null } | null>(null);
  const all = [...row.suppliers, ...(more?.suppliers ?? [])];
  const next = more === null ? row.suppliers_next : more.next;
  const [error, setError] = useState<string | null>(null);
  const [open, setOpen] = useState<string | null>(null);

  async function showMore() {
    try {
      const page = await get<{ suppliers: Supplier[]; next: string | null }>(`partitions/${encodeURIComponent(row.partition)}/suppliers?from=${next}`);
      setMore((before) => ({ suppliers: [...(before?.suppliers ?? []), ...page.suppliers], next: page.next }));
      setError(null);
    } catch (error) {
      setError((error as Error).message);
    }
  }

  return (
    <section class="card flush">
      <h2>Suppliers</h2>
      {all.length === 0 ? <p class="about pad">Nobody has supplied collateral.</p> : (
        <table class="list">
          <caption class="sr">Suppliers of the partition</caption>
          <thead><tr><th scope="col">Supplier</th><th scope="col">Worth now</th><th scope="col">Share</th><th scope="col">Units</th><th scope="col">Waiting to leave</th>{hasStatements && <th scope="col"><span class="sr">More</span></th>}</tr></thead>
          <tbody>
            {all.map((one) => [
              <tr key={one.supplier}>
                <th scope="row" class="mono" title={one.supplier}>
                  {hasStatements ? <a href={`#/statement/supplier/${row.partition}/${one.supplier}`}>{short(one.supplier, 10, 6)}</a> : short(one.supplier, 10, 6)}
                </th>
                <td data-name="Worth now"><Money units={one.value} asset={asset} /></td>
                <td data-name="Share">{percent(share(one.units, row.units))}</td>
                <td data-name="Units">{amount(one.units, asset, 2)}</td>
                <td data-name="Waiting to leave">{one.queued === "0" ? "–" : amount(one.queued, asset, 2)}</td>
                {hasStatements && (
                  <td>
                    <button type="button" class="small" aria-expanded={open === one.supplier} aria-label={`Rewards and losses of ${short(one.supplier, 10, 6)}`} onClick={() => setOpen(open === one.supplier ? null : one.supplier)}>
                      {open === one.supplier ? "Less" : "Rewards"}
                    </button>
                  </td>
                )}
              </tr>,
              open === one.supplier && (
                <tr key={`${one.supplier}.all`} class="all"><td colSpan={6}><Earned partition={row.partition} supplier={one.supplier} asset={asset} /></td></tr>
              ),
            ])}
          </tbody>
        </table>
      )}
      {next !== null && <p class="pad"><button type="button" onClick={() => void showMore()}>Show more</button></p>}
      {error !== null && <Notice kind="bad">{error}</Notice>}
      {row.withdrawals.length > 0 && (
        <table class="list">
          <caption>Withdrawals that wait{row.withdrawals_cut && " (the first hundred)"}</caption>
          <thead><tr><th scope="col">Supplier</th><th scope="col">Units</th><th scope="col">Due</th></tr></thead>
          <tbody>
            {row.withdrawals.map((one) => (
              <tr key={one.id}>
                <th scope="row" class="mono" title={one.supplier}>{short(one.supplier, 10, 6)}</th>
                <td data-name="Units">{amount(one.units, asset, 2)}</td>
                <td data-name="Due" title={moment(one.due)}>{one.due === null ? "–" : distance(one.due, now)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </section>
  );
}

/** Pages of a statement that are added up for a figure, at most, and records looked at for each. */
const EARNED_PAGES_MAX = 20;
const EARNED_LIMIT = 500;

const EARNED = [
  ["deposited", "Put in"],
  ["withdrawn", "Taken out"],
  ["rewarded", "Won by rewards and rounding"],
  ["lost", "Lost"],
] as const;

/** What a supplier has put in, taken out, won and lost, ever: the end of its statement. */
function Earned({ partition, supplier, asset }: { partition: string; supplier: string; asset: Asset }) {
  const [closing, setClosing] = useState<Record<string, string> | null>(null);
  const [words, setWords] = useState<string | null>(null);

  useEffect(() => {
    let isOver = false;
    const load = async () => {
      let [cursor, until]: (string | undefined)[] = [];
      for (let page = 0; page < EARNED_PAGES_MAX && !isOver; page++) {
        const next: Statement = await ask<Statement>({ statement: { partition, supplier, limit: EARNED_LIMIT, cursor, until } });
        if (!next.has_more) return setClosing(next.closing);
        cursor = next.cursor ?? undefined;
        until = until ?? next.until ?? undefined;
      }
      setWords("There is too much to add up here: its statement, of a period, tells.");
    };
    load().catch((error: Error) => setWords(error.message));
    return () => {
      isOver = true;
    };
  }, [partition, supplier]);

  if (words !== null) return <Notice kind="plain">{words}</Notice>;
  if (closing === null) return <p class="about">Adding up…</p>;
  return (
    <dl class="rules" aria-label="Since the beginning">
      {EARNED.map(([name, title]) => (
        <div key={name}><dt>{title}</dt><dd><Money units={closing[name] ?? "0"} asset={asset} places={6} /></dd></div>
      ))}
    </dl>
  );
}

/** The rules that are amounts of collateral; the others are shown as they are written. */
const AMOUNTS = new Set(["lock_max", "merchant_open_max", "velocity_value", "edge_unit"]);
/** The most that an amount can be. */
const AMOUNT_MAX = (1n << 104n) - 1n;
/** Where 0 means that there is none. */
const NONE = new Set(["merchant_open_max", "velocity_value", "velocity_count", "settle_by"]);

export function ruleText(name: string, value: Rule | undefined, asset: Asset): string {
  if (value === undefined || value === null) return "none";
  if (Array.isArray(value)) return value.map((rule) => `${rule.category}: tolerance ${(rule.tolerance_bps ?? 0) / 100} %, headroom ${(rule.headroom_bps ?? 0) / 100} %`).join("; ");
  if (NONE.has(name) && String(value) === "0") return name === "settle_by" ? "for ever" : "no limit";
  if (AMOUNTS.has(name)) return BigInt(String(value)) >= AMOUNT_MAX ? "no limit" : name === "edge_unit" ? `${grouped(String(value))} base unit${String(value) === "1" ? "" : "s"}` : `${amount(String(value), asset)} ${asset.name}`;
  if (name.endsWith("_bps")) return `${Number(value) / 100} %`;
  return typeof value === "boolean" ? (value ? "yes" : "no") : String(value);
}

/** The same to the last base unit: whoever approves a change sees all of it. */
function ruleInFull(name: string, value: Rule | undefined, asset: Asset): string {
  const text = ruleText(name, value, asset);
  if (!AMOUNTS.has(name) || value === undefined || value === null || !/^[0-9]+$/.test(String(value))) return text;
  const units = `${grouped(String(value))} base unit${String(value) === "1" ? "" : "s"}`;
  if (text === units) return text;
  return /^no/.test(text) ? `${text} (${units})` : `${exact(String(value), asset)} ${asset.name} (${units})`;
}

export function ruleName(name: string): string {
  return name.replace(/_bps$/, "").replaceAll("_", " ");
}

function Policy({ row, asset, path, mayPropose }: { row: PartitionWhole; asset: Asset; path: string; mayPropose: boolean }) {
  return (
    <section class="card">
      <div class="row">
        <h2>Policy</h2>
        {mayPropose && <Propose row={row} asset={asset} path={path} />}
      </div>
      <p class="about">{row.policy_seq === "0" ? "The rules that a partition starts with." : `Set by record ${grouped(row.policy_seq)}.`}</p>
      <dl class="rules">
        {Object.entries(row.policy).map(([name, value]) => (
          <div key={name}><dt>{ruleName(name)}</dt><dd>{ruleText(name, value, asset)}</dd></div>
        ))}
      </dl>
    </section>
  );
}

/** A rule as it is typed: what it is now, in its own form. */
function typed(value: Rule): string {
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** What was typed, in the form that the rule has. */
function untyped(text: string, old: Rule): Rule {
  if (typeof old === "string") return text.trim();
  try {
    return JSON.parse(text) as Rule;
  } catch {
    return text;
  }
}

function Propose({ row, asset, path }: { row: PartitionWhole; asset: Asset; path: string }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const id = useId();
  const [edited, setEdited] = useState<Record<string, string>>({});
  const [reason, setReason] = useState("");
  const [changes, setChanges] = useState<Change[] | null>(null);
  const [error, setError] = useState<string | null>(null);
  const [number, setNumber] = useState<number | null>(null);
  const [isBusy, setBusy] = useState(false);

  function open() {
    setEdited({});
    setReason("");
    setChanges(null);
    setError(null);
    setNumber(null);
    dialog.current?.showModal();
  }

  const rules = () =>
    Object.fromEntries(Object.entries(edited).filter(([name, text]) => text !== typed(row.policy[name]!)).map(([name, text]) => [name, untyped(text, row.policy[name]!)]));

  async function submit(event: Event) {
    event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      if (changes === null) {
        setChanges((await post<{ changes: Change[] }>(`${path}/policy/preview`, { rules: rules(), reason })).changes);
      } else {
        setNumber((await post<{ number: number }>(`${path}/policy/propose`, { rules: rules(), reason })).number);
      }
    } catch (error) {
      setError((error as Error).message);
    }
    setBusy(false);
  }

  return (
    <>
      <button type="button" onClick={open}>Propose a change</button>
      <dialog ref={dialog} class="broad" aria-labelledby={`${id}-title`}>
        <form onSubmit={(event) => void submit(event)}>
          <h2 id={`${id}-title`}>{number === null ? `Propose other rules for ${row.partition}` : "Proposed"}</h2>
          {number !== null ? (
            <Notice kind="good">Proposal {number} waits for a second person under <a href="#/approvals">Approvals</a>.</Notice>
          ) : changes !== null ? (
            <>
              <Diff changes={changes} asset={asset} />
              <p>Another administrator has to approve this within an hour. Nothing changes before.</p>
            </>
          ) : (
            <>
              <p class="about">Amounts in base units (1500, 1.5e18), spans such as 30s or 2h, rates in basis points.</p>
              <div class="editor">
                {Object.entries(row.policy).map(([name, value]) => (
                  <div class="field" key={name}>
                    <label for={`${id}-${name}`}>{name}</label>
                    {typeof value === "boolean" ? (
                      <select id={`${id}-${name}`} value={edited[name] ?? typed(value)} onChange={(event) => setEdited({ ...edited, [name]: event.currentTarget.value })}>
                        <option value="true">yes</option>
                        <option value="false">no</option>
                      </select>
                    ) : (
                      <input id={`${id}-${name}`} value={edited[name] ?? typed(value)} spellcheck={false} autocomplete="off" onInput={(event) => setEdited({ ...edited, [name]: event.currentTarget.value })} />
                    )}
                  </div>
                ))}
              </div>
              <div class="field">
                <label for={`${id}-why`}>Why</label>
                <input id={`${id}-why`} value={reason} maxLength={200} required onInput={(event) => setReason(event.currentTarget.value)} />
              </div>
            </>
          )}
          {error !== null && <Notice kind="bad">{error}</Notice>}
          <div class="acts">
            <button type="button" onClick={() => (changes !== null && number === null ? setChanges(null) : dialog.current?.close())}>
              {number !== null ? "Close" : changes !== null ? "Back" : "Cancel"}
            </button>
            {number === null && <button type="submit" class="solid" disabled={isBusy}>{changes === null ? "Show the change" : "Propose"}</button>}
          </div>
        </form>
      </dialog>
    </>
  );
}

/** What would change: the old value beside the new one. */
export function Diff({ changes, asset }: { changes: Change[]; asset: Asset }) {
  return (
    <table class="diff">
      <caption class="sr">Rules that would change</caption>
      <thead><tr><th scope="col">Rule</th><th scope="col">Now</th><th scope="col">Then</th></tr></thead>
      <tbody>
        {changes.map(({ rule, old, new: then }) => (
          <tr key={rule}>
            <th scope="row">{ruleName(rule)}</th>
            <td><del>{ruleInFull(rule, old, asset)}</del></td>
            <td><ins>{ruleInFull(rule, then, asset)}</ins></td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

