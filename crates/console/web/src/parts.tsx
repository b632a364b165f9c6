// Parts of pages: icons, notices, bars, dialogs.

import type { ComponentChildren } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import { type Asset, type Outcome, type Partition, get } from "./api";
import { amount, exact, grouped, percent, share, sum } from "./format";
import { STATES } from "./words";

const ICONS = {
  pulse: "M3 12h4l3-8 4 16 3-8h4",
  slices: "M4 5h16v4H4zM4 11h10v4H4zM4 17h13v3H4z",
  lock: "M6 11h12v9H6zM8.5 11V8a3.5 3.5 0 0 1 7 0v3",
  chain: "M10 14a4 4 0 0 1 0-5.600l3-3a4 4 0 0 1 5.600 5.600l-1.500 1.500M14 10a4 4 0 0 1 0 5.600l-3 3a4 4 0 0 1-5.600-5.600l1.500-1.500",
  disks: "M4 6c0-1.7 3.6-3 8-3s8 1.3 8 3-3.600 3-8 3-8-1.300-8-3zM4 6v12c0 1.700 3.600 3 8 3s8-1.300 8-3V6M4 12c0 1.700 3.600 3 8 3s8-1.300 8-3",
  people: "M9 11a3.500 3.500 0 1 0 0-7 3.500 3.500 0 0 0 0 7zM3 20c0-3.300 2.700-6 6-6s6 2.700 6 6M16 4.500a3.500 3.500 0 0 1 0 6.200M17.500 14.500c2.100.9 3.500 3 3.500 5.500",
  check: "M4 12.500 9.500 18 20 6.500",
  past: "M12 7v5l3.500 2M4 12a8 8 0 1 0 2.600-5.900M4 4v4h4",
  person: "M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM4.500 20.500c0-4 3.400-6.500 7.500-6.500s7.500 2.500 7.500 6.500",
  warn: "M12 4 2.500 20h19zM12 10v5M12 17.500v.5",
} as const;

export function Icon({ name }: { name: keyof typeof ICONS }) {
  return (
    <svg class="icon" viewBox="0 0 24 24" width="20" height="20" aria-hidden="true">
      <path d={ICONS[name]} />
    </svg>
  );
}

export function Notice({ kind, children }: { kind: "good" | "bad" | "plain"; children: ComponentChildren }) {
  return (
    <div class={`notice ${kind}`} role={kind === "bad" ? "alert" : "status"}>
      {children}
    </div>
  );
}

export function Head({ title, about, children }: { title: string; about?: ComponentChildren; children?: ComponentChildren }) {
  return (
    <div class="head">
      <div>
        <h1>{title}</h1>
        {about !== undefined && <p class="about">{about}</p>}
      </div>
      {children !== undefined && <div class="acts">{children}</div>}
    </div>
  );
}

/** An amount, with the last base unit on hover. */
export function Money({ units, asset, places }: { units: string; asset: Asset; places?: number }) {
  return (
    <span class="money" title={`${exact(units, asset)} ${asset.name}`}>
      {amount(units, asset, places)} <span class="unit">{asset.name}</span>
    </span>
  );
}

/** An amount of an asset that is not known: no other's decimal places stand in. */
export function Units({ units }: { units: string }) {
  return <span class="money">{grouped(units)} <span class="unit">base units</span></span>;
}

/** What a partition's collateral is doing, as one bar; beyond its end, in proportion, what has no collateral behind it. */
export function MoneyBar({ of }: { of: Record<(typeof STATES)[number]["key"] | "exposure", string> }) {
  const whole = sum(...STATES.map(({ key }) => of[key]));
  const exposure = of.exposure;
  const scale = sum(whole, exposure);
  const shares = STATES.map((state) => ({ ...state, share: share(of[state.key], scale) }));
  const words = STATES.filter(({ key }) => of[key] !== "0").map(({ key, name }) => `${name} ${percent(share(of[key], whole))}`);
  const exposed = exposure === "0" ? [] : [whole === "0" ? "exposure without any collateral" : `exposure of ${percent(share(exposure, whole))} beyond it`];
  return (
    <div class="moneybar" role="img" aria-label={[...(words.length === 0 ? ["No collateral"] : words), ...exposed].join(", ")}>
      {shares.map(({ key, share }) => share > 0 && <span key={key} class={`fill ${key}`} style={{ flexGrow: share }} />)}
      {exposure !== "0" && <span class="fill exposure" style={{ flexGrow: share(exposure, scale) }} />}
    </div>
  );
}

/** The same with names and amounts. */
export function MoneyTable({ of, asset }: { of: Record<(typeof STATES)[number]["key"] | "exposure", string>; asset: Asset }) {
  const whole = sum(...STATES.map(({ key }) => of[key]));
  return (
    <table class="states">
      <caption class="sr">Collateral by state</caption>
      <tbody>
        {STATES.map(({ key, name, about }) => (
          <tr key={key}>
            <th scope="row">
              <span class={`dot ${key}`} />
              {name} <span class="about">{about}</span>
            </th>
            <td><Money units={of[key]} asset={asset} /></td>
            <td class="share">{percent(share(of[key], whole))}</td>
          </tr>
        ))}
        {of.exposure !== "0" && (
          <tr>
            <th scope="row">
              <span class="dot exposure" />
              Exposure <span class="about">owed beyond all collateral</span>
            </th>
            <td class="bad"><Money units={of.exposure} asset={asset} /></td>
            <td class="share">{whole === "0" ? "–" : percent(share(of.exposure, whole))}</td>
          </tr>
        )}
      </tbody>
    </table>
  );
}

/** True if anything of a partition needs somebody's eyes. */
export function hasTrouble(partition: Partition): boolean {
  return partition.unreconciled || partition.frozen || partition.deficit !== "0" || partition.exposure !== "0";
}

/** What became of a request. */
export function Told({ outcome }: { outcome: Outcome }) {
  const kind = outcome.done ? "good" : "bad";
  return (
    <Notice kind={kind}>
      {outcome.code !== null && <strong>{outcome.code}</strong>} {outcome.words}
      {outcome.replayed && " (this request was done before: nothing was done twice)"}
      {outcome.done && outcome.seq !== undefined && (
        <span class="about"> — record {outcome.seq} of shard {outcome.shard}</span>
      )}
    </Notice>
  );
}

/**
 * A form that has one thing done. Its request's id is drawn when it opens, so sending it twice is one request; after an answer that leaves the
 * outcome open, the same id is sent again.
 */
export function Act({
  name,
  title,
  danger,
  disabled,
  send,
  done,
  children,
  confirm,
}: {
  name: string;
  title: string;
  danger?: boolean;
  disabled?: boolean;
  send: (id: string) => Promise<Outcome>;
  done?: () => void;
  children?: ComponentChildren;
  confirm: string;
}) {
  const dialog = useRef<HTMLDialogElement>(null);
  const heading = useId();
  const [id, setId] = useState<string | null>(null);
  const [outcome, setOutcome] = useState<Outcome | null>(null);
  const [error, setError] = useState<string | null>(null);
  const [isBusy, setBusy] = useState(false);

  async function open() {
    setOutcome(null);
    setError(null);
    setId(null);
    dialog.current?.showModal();
    try {
      setId((await get<{ id: string }>("id")).id);
    } catch (error) {
      setError((error as Error).message);
    }
  }

  async function submit(event: Event) {
    event.preventDefault();
    if (id === null || isBusy) return;
    setBusy(true);
    setError(null);
    try {
      const outcome = await send(id);
      setOutcome(outcome);
    } catch (error) {
      setError((error as Error).message);
    }
    setBusy(false);
  }

  const isOver = outcome !== null && outcome.known && outcome.code !== "OVERLOADED";
  return (
    <>
      <button type="button" class={danger ? "danger" : ""} disabled={disabled} onClick={() => void open()}>
        {name}
      </button>
      {/* What was done is shown before the page changes under it. */}
      <dialog ref={dialog} aria-labelledby={heading} onClose={() => outcome?.done && done?.()}>
        <form onSubmit={(event) => void submit(event)}>
          <h2 id={heading}>{title}</h2>
          {!isOver && children}
          {outcome !== null && <Told outcome={outcome} />}
          {error !== null && <Notice kind="bad">{error}</Notice>}
          <div class="acts">
            <button type="button" onClick={() => dialog.current?.close()}>{isOver ? "Close" : "Cancel"}</button>
            {/* It stays where it is: a second click must not hit what would be there instead. */}
            <button type="submit" class={danger ? "danger solid" : "solid"} disabled={id === null || isBusy || isOver}>
              {(outcome === null && error === null) || isOver ? confirm : "Send it again"}
            </button>
          </div>
        </form>
      </dialog>
    </>
  );
}

/** A number for the log. */
export function ReasonField({ value, change }: { value: string; change: (value: string) => void }) {
  const id = useId();
  return (
    <div class="field">
      <label for={id}>Reason</label>
      <input
        id={id}
        inputMode="numeric"
        pattern="[0-9]{1,15}"
        required
        value={value}
        onInput={(event) => change(event.currentTarget.value)}
        aria-describedby={`${id}-about`}
      />
      <p class="about" id={`${id}-about`}>A number of your own list of reasons; it stands in the engine's log beside your name.</p>
    </div>
  );
}

/** The moment, kept up to date. */
export function useNow(everyMs = 1000): number {
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), everyMs);
    return () => clearInterval(timer);
  }, [everyMs]);
  return now;
}
