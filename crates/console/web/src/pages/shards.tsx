// Shards and the health of their logs.

import { useEffect, useState } from "preact/hooks";
import type { Me } from "../api";
import { count, grouped, micros, span } from "../format";
import { type IndexedShard, ask } from "../history";
import type { Live } from "../live";
import { Head, Notice } from "../parts";

/** Between two questions how far the history is. */
const INDEX_MS = 5000;

export function Shards({ live, me }: { live: Live; me: Me }) {
  const shards = live.standing?.shards ?? [];
  const index = useIndex(me);
  return (
    <>
      <Head title="Shards" about="Each shard is one thread with one log. Live, every second." />
      {index.error !== null && <Notice kind="bad">How far the history is, nobody says: {index.error}</Notice>}
      {live.standing === null && <Notice kind="plain">Waiting for the first reading.</Notice>}
      <div class="shards">
        {shards.map((shard) => {
          const behind = shard.appended - shard.synced;
          const indexed = index.shards.find((one) => one.shard === shard.shard);
          const isIndexed = indexed === undefined || indexed.state === "following" || indexed.state === "reading_back";
          const trouble = shard.storage_low || shard.archive_failures > 0 || shard.violations > 0 || !isIndexed;
          return (
            <section class="card" key={shard.shard} aria-labelledby={`shard-${shard.shard}`}>
              <div class="row">
                <h2 id={`shard-${shard.shard}`}>Shard {shard.shard}</h2>
                <span class={`tag ${trouble ? "bad" : "good"}`}>{trouble ? "needs you" : "healthy"}</span>
              </div>
              {shard.storage_low && <Notice kind="bad">The disk is near its reserve: new locks are declined.</Notice>}
              {shard.archive_failures > 0 && <Notice kind="bad">{count(shard.archive_failures)} times a segment could not be archived.</Notice>}
              {shard.violations > 0 && <Notice kind="bad">Money was found not to add up. Run <code>surety verify</code>.</Notice>}
              {!isIndexed && <Notice kind="bad">The history does not follow: {indexed.message ?? indexed.state.replaceAll("_", " ")}.</Notice>}
              <dl class="figures">
                <div><dt>Requests</dt><dd>{count(shard.rate)}<span class="unit">/s</span></dd></div>
                <div><dt>Answered, p99</dt><dd>{micros(shard.p99_us)}</dd></div>
                <div><dt>Disk, p99</dt><dd>{micros(shard.write_p99_us)}</dd></div>
                <div><dt>Under way</dt><dd>{count(shard.in_flight)}</dd></div>
              </dl>
              <dl class="facts">
                <dt>Decided</dt><dd>record {grouped(String(shard.appended))}</dd>
                <dt>On the disk</dt><dd>{behind <= 0 ? "all of it" : `all but the last ${count(behind)}`}</dd>
                <dt>Waiting for the log</dt><dd>{count(shard.waiting)}</dd>
                <dt>Newest snapshot</dt><dd>{shard.snapshot === 0 ? "none yet" : `record ${grouped(String(shard.snapshot))}`}</dd>
                <dt>Archived</dt><dd>{shard.archived === 0 ? "nothing in this run" : `up to record ${grouped(String(shard.archived))}`}</dd>
                {indexed !== undefined && <><dt>History</dt><dd>{lag(indexed)}</dd></>}
                <dt>Locks</dt><dd>{count(shard.open_locks)} open, {count(shard.kept_locks)} in memory</dd>
                <dt>Connections</dt><dd>{count(shard.connections)}, {count(shard.subscribers)} following the stream</dd>
              </dl>
            </section>
          );
        })}
      </div>
    </>
  );
}

/** How far behind the index of a shard is. */
function lag({ state, lag_records, lag_ms }: IndexedShard): string {
  if (state === "reading_back") return "is being read back";
  if (lag_records === 0) return "has all of it";
  return `${count(lag_records)} record${lag_records === 1 ? "" : "s"} and ${lag_ms < 1000 ? `${lag_ms} ms` : span(lag_ms)} behind`;
}

/** How far the index of each shard is, where one is kept. */
function useIndex(me: Me): { shards: IndexedShard[]; error: string | null } {
  const [state, setState] = useState<{ shards: IndexedShard[]; error: string | null }>({ shards: [], error: null });

  useEffect(() => {
    if (!me.history) return;
    let isOver = false;
    const look = async (isPoll: boolean) => {
      try {
        const { shards } = await ask<{ shards: IndexedShard[] }>({ status: {} }, isPoll);
        if (!isOver) setState({ shards, error: null });
      } catch (error) {
        if (!isOver) setState((state) => ({ ...state, error: (error as Error).message }));
      }
    };
    void look(false);
    const timer = setInterval(() => {
      if (document.visibilityState === "visible") void look(true);
    }, INDEX_MS);
    return () => {
      isOver = true;
      clearInterval(timer);
    };
  }, [me]);

  return state;
}
