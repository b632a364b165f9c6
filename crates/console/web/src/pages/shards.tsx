// Shards and the health of their logs.

import { count, grouped, micros } from "../format";
import type { Live } from "../live";
import { Head, Notice } from "../parts";

export function Shards({ live }: { live: Live }) {
  const shards = live.standing?.shards ?? [];
  return (
    <>
      <Head title="Shards" about="Each shard is one thread with one log. Live, every second." />
      {live.standing === null && <Notice kind="plain">Waiting for the first reading.</Notice>}
      <div class="shards">
        {shards.map((shard) => {
          const behind = shard.appended - shard.synced;
          const trouble = shard.storage_low || shard.archive_failures > 0 || shard.violations > 0;
          return (
            <section class="card" key={shard.shard} aria-labelledby={`shard-${shard.shard}`}>
              <div class="row">
                <h2 id={`shard-${shard.shard}`}>Shard {shard.shard}</h2>
                <span class={`tag ${trouble ? "bad" : "good"}`}>{trouble ? "needs you" : "healthy"}</span>
              </div>
              {shard.storage_low && <Notice kind="bad">The disk is near its reserve: new locks are declined.</Notice>}
              {shard.archive_failures > 0 && <Notice kind="bad">{count(shard.archive_failures)} times a segment could not be archived.</Notice>}
              {shard.violations > 0 && <Notice kind="bad">Money was found not to add up. Run <code>surety verify</code>.</Notice>}
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
