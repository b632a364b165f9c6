// What has happened: questions to the history, and what it answers. The documents are those of crates/history/ASK.md.

import { useEffect, useRef, useState } from "preact/hooks";
import { type Asset, type Me, type Partition, get, post } from "./api";
import { assetOf } from "./format";

/** What records or locks are held against; values of one name are alternatives. */
export interface Conditions {
  lock?: string[];
  /** Decimal strings: not every number of theirs is one here. */
  merchant?: string[];
  payee?: string[];
  partition?: string[];
  tenant?: number[];
  supplier?: string[];
  code?: string[];
  kind?: string[];
  state?: string[];
  amount_min?: string;
  amount_max?: string;
  from?: string;
  until?: string;
  order?: "newest_first" | "oldest_first";
  limit?: number;
  cursor?: string;
}

/** A lock as a record left it. */
export interface LockAfter {
  state: string;
  version: number;
  merchant: string;
  payee: string;
  approved: string;
  captured: string;
  remaining: string;
}

/** A record with what it did. Beside these it has the fields of its kind. */
export interface Row {
  shard: number;
  seq: number;
  time: string;
  kind: string;
  code: string;
  id: string;
  partition: string;
  tenant?: number;
  amount?: string;
  result?: string;
  lock?: string;
  actor?: string;
  lock_after?: LockAfter;
  partition_after?: Record<string, string>;
  [field: string]: unknown;
}

/** A lock as it stands now. */
export interface LockRow {
  lock: string;
  tenant: number;
  partition: string;
  merchant: string;
  payee: string;
  state: string;
  code: string;
  version: number;
  created: string;
  seq: number;
  changed: string;
  deadline: string;
  asked: string;
  quote: number;
  approved: string;
  captured: string;
  released: string;
  expired: string;
  remaining: string;
  pending: string;
  certified: boolean;
  called: boolean;
}

export interface Page<R> {
  rows: R[];
  cursor: string | null;
  has_more: boolean;
  /** Everything before is indexed. */
  complete_before: string | null;
}

/** What changed somebody's money, or where to go on with it. */
export interface StatementLine {
  time: string;
  shard: number;
  seq: number;
  kind: string;
  lock: string;
  changes: Record<string, string>;
  after: Record<string, string>;
}

export interface Statement {
  account: string;
  names: string[];
  from: string;
  until: string | null;
  /** On the first page. */
  opening: Record<string, string> | null;
  lines: StatementLine[];
  /** On the last page. */
  closing: Record<string, string> | null;
  cursor: string | null;
  has_more: boolean;
}

export interface StatementAsk {
  partition?: string;
  supplier?: string;
  merchant?: string;
  tenant?: number;
  from?: string;
  until?: string;
  cursor?: string;
  limit?: number;
}

export type Ask =
  | { records: Conditions }
  | { locks: Conditions }
  | { open_locks: Conditions & { by: "age" | "deadline" } }
  | { lock: { id: string; cursor?: string } }
  | { balances: { partition: string; supplier?: string; at?: string } }
  | { statement: StatementAsk }
  | { status: Record<string, never> };

/** How far the index of a shard is. */
export interface IndexedShard {
  shard: number;
  state: string;
  message: string | null;
  indexed: number;
  lag_records: number;
  lag_ms: number;
  complete_before: string | null;
}

/** Asks the history. */
export function ask<T>(ask: Ask, isPoll = false): Promise<T> {
  return post<T>("history", { ask }, isPoll);
}

export interface Pages<R> {
  rows: R[];
  page: Page<R> | null;
  error: string | null;
  isBusy: boolean;
  more: () => void;
}

/**
 * The pages of an answer, one behind the other as they are asked for. `question` makes the next page's question; null asks nothing. Another `turn` asks
 * for the first page again, and what was there stays until the answer comes; so does `everyMs`, while the page is looked at.
 */
export function usePages<R>(name: string, question: ((cursor?: string) => Ask) | null, turn = 0, everyMs: number | null = null): Pages<R> {
  const [state, setState] = useState<{ rows: R[]; page: Page<R> | null; error: string | null }>({ rows: [], page: null, error: null });
  const [isBusy, setBusy] = useState(false);

  async function load(before: R[], cursor: string | undefined, isOver: () => boolean, isPoll = false) {
    if (question === null) return;
    setBusy(true);
    try {
      const page = await ask<Page<R>>(question(cursor), isPoll);
      if (!isOver()) setState({ rows: [...before, ...page.rows], page, error: null });
    } catch (error) {
      if (!isOver()) setState((state) => ({ ...state, error: (error as Error).message }));
    }
    if (!isOver()) setBusy(false);
  }

  // Which question the answers are to: one that comes when another was asked since is nobody's.
  const latest = useRef(0);
  const shown = useRef<string | null>(null);

  useEffect(() => {
    const again = (isPoll: boolean) => {
      const own = ++latest.current;
      void load([], undefined, () => latest.current !== own, isPoll);
    };
    if (shown.current !== name) setState({ rows: [], page: null, error: null });
    shown.current = name;
    again(false);
    const timer = everyMs === null ? undefined : setInterval(() => document.visibilityState === "visible" && again(true), everyMs);
    return () => {
      latest.current++;
      clearInterval(timer);
    };
  }, [name, turn]);

  const more = () => {
    const own = latest.current;
    void load(state.rows, state.page?.cursor ?? undefined, () => latest.current !== own);
  };
  return { ...state, isBusy, more };
}

/** Which asset a partition's amounts are of. Until that is known, and where it cannot be, nothing stands in for it. */
export function useAssets(me: Me, partitions: string[]): (partition: string) => Asset | null {
  const [known, setKnown] = useState<Record<string, number | null>>({});
  const wanted = [...new Set(partitions)].filter((partition) => !(partition in known));

  useEffect(() => {
    if (wanted.length === 0) return;
    let isOver = false;
    void Promise.all(wanted.map(async (partition): Promise<[string, number | null]> => {
      const row = await get<Partition>(`partitions/${encodeURIComponent(partition)}`, true).catch(() => null);
      return [partition, row?.asset ?? null];
    })).then((found) => !isOver && setKnown((known) => ({ ...known, ...Object.fromEntries(found) })));
    return () => {
      isOver = true;
    };
  }, [wanted.join(" ")]);

  return (partition) => {
    const asset = known[partition];
    return asset === undefined || asset === null ? null : assetOf(me.assets, asset);
  };
}
