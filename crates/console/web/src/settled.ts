// How far what a settler tells can be relied upon.

import type { Settlement } from "./api";

/** How long ago the settler's last turn was, which all that it tells is of; none where it has told nothing. */
export function turnAge({ asked_age_ms, told }: Settlement): number | null {
  return told === null ? null : (asked_age_ms ?? 0) + told.turn_age_ms;
}

/** True if the settler's last turn is not too long ago, by its own interval. */
export function isYoung(settlement: Settlement): boolean {
  const [age, most] = [turnAge(settlement), settlement.turn_age_max_ms];
  return age !== null && most !== null && age <= most;
}

/** True if what the settler tells is so now, too. */
export function isFresh(settlement: Settlement): boolean {
  return settlement.trouble === null && isYoung(settlement);
}
