// Batches on their way to the chain, as the settler tells them.

import { useEffect, useRef } from "preact/hooks";
import type { Batch, Me, Settlement, Stage } from "../api";
import { count, distance, moment, short, span } from "../format";
import { type Live, usePolled } from "../live";
import { Head, Money, Notice, Units, useNow } from "../parts";
import { Plot } from "../plot";
import { isYoung, turnAge } from "../settled";
import { SETTLED, Tile, isSettled } from "./overview";

const STEPS: { stage: Stage; about: string; at: (batch: Batch) => number | null }[] = [
  { stage: "sealed", about: "the settler has put it together", at: (batch) => batch.sealed_ms },
  { stage: "posted", about: "its transaction is signed, and sent until a block has it", at: (batch) => batch.posted_ms },
  { stage: "mined", about: "a block has it, which may still go", at: (batch) => batch.mined_ms },
  { stage: "final", about: "its block is final", at: (batch) => batch.final_ms },
  { stage: "booked", about: "the engine has all of it", at: (batch) => batch.booked_ms },
];

const HELD: Record<string, string> = {
  payout_limit: "more than the contract pays out in an hour",
  insolvent: "the contract does not hold what it would have to pay",
  paused: "the contract is paused",
  other: "by another of its rules",
};

export function SettlementPage({ me, live, batch }: { me: Me; live: Live; batch?: string }) {
  const { value, error } = usePolled<Settlement>("settlement", 3000);
  return (
    <>
      <Head title="Settlement" about="What is owed leaves in batches: sealed by the settler, taken by a block, final, and then booked by the engine.">
        {me.history && <a href="#/history/settlement">What the chain has said</a>}
      </Head>
      {error !== null && <Notice kind="bad">{error}</Notice>}
      {value !== null && !value.named && <Unnamed />}
      {value !== null && <Doubt settlement={value} />}
      {value?.told != null && <Known settlement={value} me={me} live={live} batch={batch} />}
    </>
  );
}

/** Why what is shown may not be so any more. */
function Doubt({ settlement }: { settlement: Settlement }) {
  const { trouble, asked_age_ms, told } = settlement;
  if (trouble !== null) {
    return (
      <Notice kind="bad">
        {trouble.charAt(0).toUpperCase() + trouble.slice(1)}.{" "}
        {asked_age_ms === null
          ? "It has halted, ended, or was not started: its own output says why."
          : `What is shown was so ${span(asked_age_ms)} ago; if it has halted, its own output says why.`}
      </Notice>
    );
  }
  if (told === null || isYoung(settlement)) return null;
  return <Notice kind="bad">The settler's last turn ended {span(turnAge(settlement)!)} ago: what is shown is as of then. Its own output says why it has come to no end since.</Notice>;
}

function Unnamed() {
  return (
    <section class="card">
      <h2>No settler was named</h2>
      <p>
        How batches stand knows the settler alone, which is another process. Have it tell, and name it to the engine:
      </p>
      <pre tabIndex={0}>{"surety settle run … --metrics 127.0.0.1:9105\nsurety serve … --console-settler 127.0.0.1:9105"}</pre>
      <p class="about">In the settings: <code>[console] settler = "127.0.0.1:9105"</code>. An engine whose collateral is on no chain has no settler, and needs none.</p>
    </section>
  );
}

function Known({ settlement, me, live, batch }: { settlement: Settlement; me: Me; live: Live; batch?: string }) {
  const told = settlement.told!;
  const { batches } = told;
  const wanted = batch === undefined ? undefined : Number(batch);
  const isThere = batches.some((row) => row.batch === wanted);
  return (
    <>
      <Tiles settlement={settlement} />
      <p class="about">
        As of the settler's last turn, {span(turnAge(settlement)!)} ago, {told.pending_transactions === 0 ? "no transaction waits" : told.pending_transactions === 1 ? "1 transaction waits" : `${count(told.pending_transactions)} transactions wait`} for a block.
      </p>
      {live.seconds.some(isSettled) && <Plot title="Age of what is settled" seconds={live.seconds} lines={SETTLED} label={span} />}
      {wanted !== undefined && !isThere && (
        <Notice kind="plain">
          Batch {batch} is not among those that the settler still tells of: {wanted > told.sealed ? "it is not sealed yet." : "it is older."}
        </Notice>
      )}
      <section class="card flush">
        <h2>Batches</h2>
        {batches.length === 0 ? <p class="about pad">{told.sealed === 0 ? "There was none yet." : "None since the settler was started, and none under way."}</p> : <Batches batches={batches} me={me} wanted={wanted} />}
      </section>
    </>
  );
}

/** How old things are, where that is known, and how many. */
function Tiles({ settlement }: { settlement: Settlement }) {
  const told = settlement.told!;
  const { ages } = settlement;
  const { chain } = told;
  const open = told.sealed - told.final;
  const age = (ms: number | null | undefined) => (ms == null ? "–" : span(ms));
  // A figure without an age is of the settler's last turn.
  const figure = (words: string) => (ages === null ? `${words}, as of then` : words);
  return (
    <div class="tiles">
      <Tile name="Waits for a batch" value={ages !== null && told.waiting_records === 0 ? "nothing" : age(ages?.waiting_age_ms)} about={figure(told.waiting_records === 0 ? "all changes are in batches" : `the oldest of ${count(told.waiting_records)} records`)} />
      <Tile name="Oldest not final" value={ages !== null && open === 0 ? "none" : age(ages?.batch_age_ms)} about={figure(open === 0 ? "all batches are final" : `of ${count(open)} batch${open === 1 ? "" : "es"} under way`)} />
      <Tile name="Newest block" value={age(ages?.chain_age_ms)} about={figure(chain === null ? "the chain was not seen yet" : ages === null ? `number ${count(chain.block)}` : `old; number ${count(chain.block)}`)} />
      <Tile name="Last final block" value={chain === null ? "–" : count(chain.block - chain.final_block)} unit=" behind" about={chain === null ? undefined : figure(`number ${count(chain.final_block)}`)} />
    </div>
  );
}

function Batches({ batches, me, wanted }: { batches: Batch[]; me: Me; wanted?: number }) {
  const now = useNow();
  const found = useRef<HTMLTableRowElement>(null);
  // Of which asset the contract is says nobody here: only where there is one, it is that.
  const asset = me.assets.length === 1 ? me.assets[0]! : null;
  const paid = (units: string) => (asset === null ? <Units units={units} /> : <Money units={units} asset={asset} />);

  useEffect(() => {
    found.current?.scrollIntoView({ block: "center" });
  }, [wanted]);

  return (
    <table class="list">
      <caption class="sr">Batches, the newest first</caption>
      <thead>
        <tr><th scope="col">Batch</th><th scope="col">How far it is</th><th scope="col">Pays out</th><th scope="col" title="what guaranteed something when it was sealed">Locked</th><th scope="col">Records</th><th scope="col">Transaction</th><th scope="col">Block</th><th scope="col">Sealed</th></tr>
      </thead>
      <tbody>
        {batches.map((batch) => {
          const isWanted = batch.batch === wanted;
          return (
            <tr key={batch.batch} ref={isWanted ? found : undefined} class={isWanted ? "wanted" : undefined} aria-current={isWanted ? "true" : undefined}>
              <th scope="row">{count(batch.batch)}</th>
              <td data-name="How far it is"><Steps batch={batch} /></td>
              <td data-name="Pays out" title={`of ${batch.partitions} partition${batch.partitions === 1 ? "" : "s"}`}>{paid(batch.credited)}</td>
              <td data-name="Locked" title="what guaranteed something when it was sealed">{paid(batch.locked)}</td>
              <td data-name="Records">{count(batch.records)}</td>
              <td data-name="Transaction" class="mono" title={batch.transaction ?? undefined}>{batch.transaction === null ? "–" : short(batch.transaction, 10, 6)}</td>
              <td data-name="Block">{batch.block === null ? "–" : count(batch.block)}</td>
              <td data-name="Sealed" title={moment(batch.sealed_ms)}>{distance(batch.sealed_ms, now)}</td>
            </tr>
          );
        })}
      </tbody>
    </table>
  );
}

/** The way of a batch: what it has behind it, and where it is. */
function Steps({ batch }: { batch: Batch }) {
  const here = STEPS.findIndex(({ stage }) => stage === batch.stage);
  return (
    <div class="way">
      <ol class="steps" aria-label={`Batch ${batch.batch} is ${batch.stage}`}>
        {STEPS.map(({ stage, about, at }, step) => {
          const when = at(batch);
          return (
            <li key={stage} class={step <= here ? "done" : undefined} aria-current={step === here ? "step" : undefined} title={`${about}${when === null ? "" : `: ${moment(when)}`}`}>
              {stage}
            </li>
          );
        })}
      </ol>
      {batch.held !== null && <span class="tag bad">refused: {HELD[batch.held] ?? batch.held}</span>}
    </div>
  );
}
