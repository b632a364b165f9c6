// What changed somebody's money in a period, from what there was to what there is.

import { useState } from "preact/hooks";
import { type Asset, type Me } from "../api";
import { exact, grouped, moment, short } from "../format";
import { type Statement, type StatementAsk, type StatementLine, ask, useAssets } from "../history";
import { Head, Notice } from "../parts";
import { kindWords } from "../words";

/** Pages of a statement that a file takes at most: so many records were looked at. */
const FILE_PAGES_MAX = 1000;
/** Records looked at for a page. */
const LIMIT = 500;

/** Whose statement an address names: `partition/0:1`, `supplier/0:1/0x…` or `merchant/TENANT/ID`. */
function accountOf(route: string[]): { title: string; back: string; ask: StatementAsk; partition: string | null } | null {
  const [kind, first, second] = route;
  if (kind === "partition" && first !== undefined) {
    return { title: `Statement of partition ${first}`, back: `#/partitions/${first}`, ask: { partition: first }, partition: first };
  }
  if (kind === "supplier" && first !== undefined && second !== undefined) {
    return { title: `Statement of supplier ${short(second, 10, 6)} in ${first}`, back: `#/partitions/${first}`, ask: { partition: first, supplier: second }, partition: first };
  }
  if (kind === "merchant" && first !== undefined && second !== undefined) {
    return { title: `Statement of merchant ${second}`, back: "#/history/locks", ask: { merchant: second, tenant: Number(first) }, partition: null };
  }
  return null;
}

export function StatementPage({ me, route }: { me: Me; route: string[] }) {
  const account = accountOf(route);
  if (account === null) return <Notice kind="bad">There is no such statement. <a href="#/history">Go to the history.</a></Notice>;
  return <Shown me={me} account={account} />;
}

function Shown({ me, account }: { me: Me; account: NonNullable<ReturnType<typeof accountOf>> }) {
  const [period, setPeriod] = useState({ from: "", until: "" });
  // What the pages that are shown were asked for.
  const [asked, setAsked] = useState(period);
  const [pages, setPages] = useState<Statement[]>([]);
  const [error, setError] = useState<string | null>(null);
  const [isBusy, setBusy] = useState(false);
  const [file, setFile] = useState<{ href: string; name: string } | null>(null);
  const assetOf = useAssets(me, account.partition === null ? [] : [account.partition]);
  const asset = account.partition === null ? null : assetOf(account.partition);
  const lines = pages.flatMap((page) => page.lines);
  const last = pages.at(-1);
  const opening = pages.find((page) => page.opening !== null)?.opening ?? null;

  /** What comes behind these pages. Where no end was given, the first page's holds for all. */
  function question(before: Statement[], of: typeof period): StatementAsk {
    const at = (text: string) => (text === "" ? undefined : new Date(text).toISOString());
    const until = before[0]?.until ?? at(of.until);
    return { ...account.ask, from: at(of.from), until, limit: LIMIT, cursor: before.at(-1)?.cursor ?? undefined };
  }

  async function load(before: Statement[], pagesMax: number, of = asked): Promise<Statement[]> {
    let all = before;
    for (let page = 0; page < pagesMax; page++) {
      const next = await ask<Statement>({ statement: question(all, of) });
      all = [...all, next];
      if (!next.has_more) break;
    }
    return all;
  }

  async function act(what: () => Promise<void>) {
    setBusy(true);
    setError(null);
    try {
      await what();
    } catch (error) {
      setError((error as Error).message);
    }
    setBusy(false);
  }

  function show(event: Event) {
    event.preventDefault();
    setFile(null);
    void act(async () => {
      setPages(await load([], 1, period));
      setAsked(period);
    });
  }

  function toFile(kind: "csv" | "json") {
    void act(async () => {
      const all = last?.has_more ? await load(pages, FILE_PAGES_MAX) : pages;
      setPages(all);
      if (all.at(-1)?.has_more) throw new Error("The period is too long for a file of the browser's: `surety history statement` writes it.");
      const text = kind === "csv" ? csv(all) : JSON.stringify(all);
      const whose = [account.ask.partition, account.ask.supplier, account.ask.merchant && `merchant-${account.ask.tenant}-${account.ask.merchant}`];
      const until = all[0]?.until?.slice(0, 10) ?? "end";
      const name = `${[...whose, all[0]?.from.slice(0, 10), until].filter((part) => part && part !== "-").join("-")}-statement.${kind}`.replaceAll(":", "-");
      if (file !== null) URL.revokeObjectURL(file.href);
      setFile({ href: URL.createObjectURL(new Blob([text], { type: kind === "csv" ? "text/csv" : "application/json" })), name });
    });
  }

  return (
    <>
      <Head title={account.title} about={<a href={account.back}>Back</a>} />
      <form class="card find" onSubmit={show}>
        <div class="field">
          <label for="statement-from">From</label>
          <input id="statement-from" type="datetime-local" step={1} value={period.from} onInput={(event) => setPeriod({ ...period, from: event.currentTarget.value })} />
        </div>
        <div class="field">
          <label for="statement-until">Until before</label>
          <input id="statement-until" type="datetime-local" step={1} value={period.until} onInput={(event) => setPeriod({ ...period, until: event.currentTarget.value })} />
        </div>
        <button type="submit" class="solid" disabled={isBusy}>Show</button>
      </form>
      {error !== null && <Notice kind="bad">{error}</Notice>}
      {last !== undefined && (
        <section class="card flush" aria-busy={isBusy}>
          <div class="pad row">
            <span class="about">{last.from === "-" ? "From the beginning" : `From ${moment(Date.parse(last.from))}`} {last.until === null ? "to the end" : `until before ${moment(Date.parse(last.until))}`}</span>
            <span class="acts">
              <button type="button" disabled={isBusy} onClick={() => toFile("csv")}>As CSV</button>
              <button type="button" disabled={isBusy} onClick={() => toFile("json")}>As JSON</button>
              {file !== null && <a href={file.href} download={file.name}>Save {file.name}</a>}
            </span>
          </div>
          <table class="list">
            <caption class="sr">Lines of the statement</caption>
            <thead><tr><th scope="col">When</th><th scope="col">What</th><th scope="col">Lock</th><th scope="col">Changed</th></tr></thead>
            <tbody>
              {opening !== null && <Sums name="Opening" amounts={opening} asset={asset} />}
              {lines.map((line) => <Line key={`${line.shard}.${line.seq}`} line={line} asset={asset} />)}
              {last.closing !== null && <Sums name="Closing" amounts={last.closing} asset={asset} />}
            </tbody>
          </table>
          <p class="pad row">
            {last.has_more
              ? <button type="button" disabled={isBusy} onClick={() => void act(async () => setPages(await load(pages, 1)))}>Show more</button>
              : <span class="about">{lines.length === 0 ? "Nothing changed." : `${grouped(String(lines.length))} lines. The changes add up from the opening to the closing.`}</span>}
          </p>
        </section>
      )}
    </>
  );
}

function Sums({ name, amounts, asset }: { name: string; amounts: Record<string, string>; asset: Asset | null }) {
  return (
    <tr>
      <th scope="row">{name}</th>
      <td class="gap" colSpan={2} />
      <td data-name="Amounts"><Changes amounts={amounts} asset={asset} /></td>
    </tr>
  );
}

function Line({ line, asset }: { line: StatementLine; asset: Asset | null }) {
  return (
    <tr>
      <th scope="row" title={line.time}>{moment(Date.parse(line.time))}</th>
      <td data-name="What" title={kindWords(line.kind)}>{line.kind.replaceAll("_", " ")}</td>
      <td data-name="Lock" class="mono" title={line.lock}>{/^[0-]*$/.test(line.lock) ? "–" : short(line.lock, 13, 6)}</td>
      <td data-name="Changed"><Changes amounts={line.changes} asset={asset} isChange /></td>
    </tr>
  );
}

/** Amounts that are not nothing, under their names; those of an opening or a closing too. */
function Changes({ amounts, asset, isChange }: { amounts: Record<string, string>; asset: Asset | null; isChange?: boolean }) {
  const there = Object.entries(amounts).filter(([, amount]) => amount !== "0");
  if (there.length === 0) return <span class="about">nothing</span>;
  return (
    <span class="changes">
      {there.map(([name, amount]) => {
        const isLess = amount.startsWith("-");
        const digits = isLess ? amount.slice(1) : amount;
        // Counts of locks, and amounts whose asset is not known, stand as they are.
        const text = asset === null || !/^[0-9]+$/.test(digits) ? grouped(digits) : exact(digits, asset);
        return (
          <span key={name}>
            <span class="about">{name.replaceAll("_", " ")}</span> <span class="money">{isLess ? "−" : isChange ? "+" : ""}{text}</span>
          </span>
        );
      })}
    </span>
  );
}

/** One line each for the opening, every record and the closing; amounts in base units. */
function csv(pages: Statement[]): string {
  const names = pages[0]?.names ?? [];
  const of = (amounts: Record<string, string> | null) => names.map((name) => amounts?.[name] ?? "");
  const none = names.map(() => "");
  const rows = [["line", "time", "shard", "seq", "kind", "lock", ...names.map((name) => `${name}_change`), ...names]];
  const opening = pages.find((page) => page.opening !== null)?.opening ?? null;
  rows.push(["opening", "", "", "", "", "", ...none, ...of(opening)]);
  for (const line of pages.flatMap((page) => page.lines)) {
    rows.push(["record", line.time, String(line.shard), String(line.seq), line.kind, line.lock, ...of(line.changes), ...of(line.after)]);
  }
  rows.push(["closing", "", "", "", "", "", ...none, ...of(pages.at(-1)?.closing ?? null)]);
  return `${rows.map((row) => row.join(",")).join("\n")}\n`;
}
