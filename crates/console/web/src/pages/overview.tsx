// What is happening to the collateral, at a glance.

import type { ComponentChildren } from "preact";
import { type Me, type Money as MoneyOf, type Second } from "../api";
import { assetOf, count, micros, percent, span } from "../format";
import type { Live } from "../live";
import { Head, Icon, Money, MoneyBar, MoneyTable, Notice } from "../parts";
import { type Line, Plot } from "../plot";
import { codeWords } from "../words";

const RATE: Line[] = [
  { name: "Done", color: "good", of: (second) => second.done },
  { name: "Declined", color: "warn", of: (second) => second.declined },
  { name: "Not admitted", color: "bad", of: (second) => second.refused },
];
const LATENCY: Line[] = [
  { name: "p50", color: "good", of: (second) => second.p50_us },
  { name: "p99", color: "accent", of: (second) => second.p99_us },
  { name: "Disk p99", color: "ink-2", of: (second) => second.write_p99_us },
];
const USE: Line[] = [
  { name: "In use", color: "accent", of: (second) => (second.used_bps === null ? null : second.used_bps / 100) },
  { name: "Exposure", color: "bad", of: (second) => (second.exposure_bps === null ? null : second.exposure_bps / 100) },
];

const REASON_COLORS = ["bad", "warn", "accent", "captured", "pending"];

/** How often a code was the answer. */
function line(code: string, at: number): Line {
  return { name: code, color: REASON_COLORS[at]!, of: (second) => second.reasons?.[code] ?? 0 };
}

/** How old what waits for the chain is, and the chain itself. */
export const SETTLED: Line[] = [
  { name: "Waits for a batch", color: "warn", of: (second) => second.waiting_age_ms ?? null },
  { name: "Batch not final", color: "accent", of: (second) => second.batch_age_ms ?? null },
  { name: "Newest block", color: "ink-2", of: (second) => second.chain_age_ms ?? null },
];

/** True if a settler told something of this second. */
export function isSettled(second: Second): boolean {
  return second.batch_age_ms != null;
}

export function Overview({ live, me }: { live: Live; me: Me }) {
  const { standing, seconds, reasons } = live;
  const now = seconds.at(-1);
  const exposed = standing?.money.filter((money) => money.states.exposure !== "0" || money.states.deficit !== "0") ?? [];
  const frozen = standing?.money.reduce((sum, money) => sum + money.frozen, 0) ?? 0;
  const unreconciled = standing?.money.reduce((sum, money) => sum + money.unreconciled, 0) ?? 0;
  // Those that are plotted, in an order that does not change with every request.
  const codes = reasons.slice(0, REASON_COLORS.length).map(([code]) => code).sort();
  const low = standing?.shards.filter((shard) => shard.storage_low) ?? [];
  return (
    <>
      <Head title="Overview" about="The engine as a whole, over the last 15 minutes." />
      {(standing?.violations ?? 0) > 0 && (
        <Notice kind="bad">
          The money of a partition was found not to add up. Stop taking payments and run <code>surety verify</code>.
        </Notice>
      )}
      {low.length > 0 && <Notice kind="bad">New locks are declined for want of disk space on shard {low.map((shard) => shard.shard).join(", ")}.</Notice>}
      {unreconciled > 0 && (
        <Notice kind="bad">
          {unreconciled === 1 ? "1 partition is" : `${unreconciled} partitions are`} not reconciled since a loss: no payment is taken and nothing moves there until{" "}
          <code>surety ctl partition reconcile</code>. <a href="#/partitions">Show partitions</a>
        </Notice>
      )}
      {exposed.map((money) => {
        const asset = assetOf(me.assets, money.asset);
        return (
          <Notice kind="bad" key={money.asset}>
            {money.states.deficit !== "0" && <>A deficit of <Money units={money.states.deficit ?? "0"} asset={asset} /> is open. </>}
            {money.states.exposure !== "0" && <>Losses of <Money units={money.states.exposure ?? "0"} asset={asset} /> have no collateral behind them.</>}
          </Notice>
        );
      })}
      <div class="tiles">
        <Tile name="Requests" value={now === undefined ? "–" : count(now.done + now.declined + now.refused)} unit="/s" />
        <Tile name="Answered in, p99" value={micros(now?.p99_us)} about={`half within ${micros(now?.p50_us)}`} />
        <Tile name="Open locks" value={standing === null ? "–" : count(standing.open_locks)} about={standing === null ? undefined : `${count(standing.in_flight)} requests under way`} />
        <Tile name="In use" value={inUse(now)} about={frozen > 0 ? <strong class="bad">{frozen} frozen partition{frozen > 1 ? "s" : ""}</strong> : "of all collateral"} />
      </div>
      <div class="plots">
        <Plot title="Requests a second" seconds={seconds} lines={RATE} label={count} />
        <Plot title="Time to answer" seconds={seconds} lines={LATENCY} label={micros} isLog />
        <Plot title="Collateral" seconds={seconds} lines={USE} label={(value) => `${value < 10 && value > 0 ? value.toFixed(1) : Math.round(value)} %`} />
        <Reasons reasons={reasons} />
        {codes.length > 0 && <Plot key={codes.join(" ")} title="Not done, by reason" seconds={seconds} lines={codes.map(line)} label={count} />}
        {seconds.some(isSettled) && <Plot title="Age of what is settled" seconds={seconds} lines={SETTLED} label={span} />}
      </div>
      {standing !== null && standing.money.length === 0 && (
        <Notice kind="plain">There is no collateral yet. <code>surety ctl partition create 0:1</code> makes the first partition.</Notice>
      )}
      {standing?.money.map((money) => <Asset key={money.asset} money={money} me={me} />)}
    </>
  );
}

function inUse(now: Second | undefined): string {
  return now?.used_bps == null ? "–" : percent(now.used_bps / 100);
}

export function Tile({ name, value, unit, about }: { name: string; value: string; unit?: string; about?: ComponentChildren }) {
  return (
    <section class="card tile">
      <h2>{name}</h2>
      <p class="value">{value}{unit !== undefined && <span class="unit">{unit}</span>}</p>
      {about !== undefined && <p class="about">{about}</p>}
    </section>
  );
}

/** Why requests were not done. */
function Reasons({ reasons }: { reasons: [string, number][] }) {
  const most = reasons[0]?.[1] ?? 1;
  return (
    <section class="card reasons">
      <h2>Not done, in 15 minutes</h2>
      {reasons.length === 0 && <p class="empty"><Icon name="check" /> Everything that was asked for was done.</p>}
      <ul>
        {reasons.slice(0, 6).map(([code, times]) => (
          <li key={code}>
            <span class="name"><strong>{code}</strong> <span class="about">{codeWords(code)}</span></span>
            <span class="times">{count(times)}</span>
            <span class="track"><span class="part" style={{ width: `${(100 * times) / most}%` }} /></span>
          </li>
        ))}
      </ul>
    </section>
  );
}

function Asset({ money, me }: { money: MoneyOf; me: Me }) {
  const asset = assetOf(me.assets, money.asset);
  const state = (name: string) => money.states[name] ?? "0";
  const of = { free: state("free"), held: state("held"), captured: state("captured"), pending: state("pending"), owed: state("owed"), exposure: state("exposure") };
  const partitions = money.open + money.frozen;
  return (
    <section class="card">
      <div class="row">
        <h2>{asset.name} in {partitions} partition{partitions === 1 ? "" : "s"}</h2>
        <a href="#/partitions">Show partitions</a>
      </div>
      <MoneyBar of={of} />
      <MoneyTable of={of} asset={asset} />
    </section>
  );
}
