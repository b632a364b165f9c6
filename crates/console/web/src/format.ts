// Numbers and moments for people. Amounts are never JavaScript numbers: those end at 2^53.

import type { Asset } from "./api";

const GROUPS = /\B(?=(\d{3})+(?!\d))/g;

/** A whole number with thin spaces between its thousands. */
export function grouped(digits: string): string {
  return digits.replace(GROUPS, "\u202f");
}

/** A count. */
export function count(value: number): string {
  return grouped(String(Math.round(value)));
}

export function assetOf(assets: Asset[], id: number): Asset {
  return assets.find((asset) => asset.id === id) ?? { id, name: `asset ${id}`, decimals: 0 };
}

/** An amount in whole units, cut (not rounded) to so many places; "<" where it would be nothing and is not. */
export function amount(units: string, asset: Asset, places = 2): string {
  const padded = units.padStart(asset.decimals + 1, "0");
  const whole = padded.slice(0, padded.length - asset.decimals);
  const fraction = padded.slice(padded.length - asset.decimals);
  const shown = fraction.slice(0, places);
  if (units !== "0" && /^0*$/.test(whole + shown)) {
    return places === 0 ? "<1" : `<0.${"0".repeat(places - 1)}1`;
  }
  return grouped(whole) + (/^0*$/.test(shown) ? "" : `.${shown}`);
}

/** The same in full, to the last base unit. */
export function exact(units: string, asset: Asset): string {
  return amount(units, asset, asset.decimals);
}

/** A part of a whole in per cent, from base units. */
export function share(part: string, whole: string): number {
  const all = BigInt(whole);
  if (all === 0n || part === "0") return 0;
  // Never nothing where there is something.
  return Math.max(Number((BigInt(part) * 1_000_000n) / all) / 10_000, 0.000_1);
}

export function sum(...amounts: string[]): string {
  return amounts.reduce((total, one) => total + BigInt(one), 0n).toString();
}

export function percent(value: number): string {
  if (value === 0) return "0 %";
  if (value < 0.01) return "<0.01 %";
  if (value > 99.99 && value < 100) return ">99.99 %";
  return `${value < 10 ? value.toFixed(2) : value.toFixed(1)} %`;
}

/** Microseconds. */
export function micros(value: number | null | undefined): string {
  if (value === null || value === undefined) return "–";
  if (value < 1000) return `${count(value)} µs`;
  if (value < 1_000_000) return `${(value / 1000).toFixed(value < 10_000 ? 2 : 1)} ms`;
  return `${(value / 1_000_000).toFixed(2)} s`;
}

/** A moment on this machine's clock and calendar. */
export function moment(at: number | null): string {
  return at === null ? "–" : new Date(at).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
}

/** A span of time, in milliseconds, rounded. */
export function span(ms: number): string {
  const seconds = Math.round(ms / 1000);
  if (seconds < 120) return `${seconds} s`;
  return seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}

/** How far away a moment is. */
export function distance(at: number, now: number): string {
  const away = span(Math.abs(at - now));
  return at < now ? `${away} ago` : `in ${away}`;
}

/** The beginning and the end of something long. */
export function short(text: string, head = 8, tail = 4): string {
  return text.length <= head + tail + 1 ? text : `${text.slice(0, head)}…${text.slice(-tail)}`;
}
