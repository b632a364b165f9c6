// How far what a settler tells can be relied upon.

import type { Settlement } from "./api";

/** A settler whose last turn is older than this has failed since. The console has the same bound. */
const TURN_AGE_MAX_MS = 30_000;

/** How long ago the settler's last turn was, which all that it tells is of; none where it has told nothing. */
export function turnAge({ asked_age_ms, told }: Settlement): number | null {
  return told === null ? null : (asked_age_ms ?? 0) + told.turn_age_ms;
}

/** True if the settler's last turn is not too long ago. */
export function isYoung(settlement: Settlement): boolean {
  const age = turnAge(settlement);
  return age !== null && age <= TURN_AGE_MAX_MS;
}

/** True if what the settler tells is so now, too. */
export function isFresh(settlement: Settlement): boolean {
  return settlement.trouble === null && isYoung(settlement);
}
