// The strips below the tiles: what this page has seen of each host in the last minute. What it did not see is empty.

import { signal } from "./vendor.js";
import { BEAT_S, BEATS, DENSE_FROM, hosts, isResting, link } from "./state.js";

const strips = new Map(); //: id -> signal of a text: "." answered, "x" a channel was silent, " " not seen

/** @param {number} id @returns signal of a text */
export function stripOf(id) {
  if (!strips.has(id)) strips.set(id, signal(" ".repeat(BEATS)));
  return strips.get(id);
}

/** Called each second. */
export function note(second) {
  if (second % BEAT_S || hosts.peek().size > DENSE_FROM) return;
  for (const [id, row] of hosts.peek()) {
    const now = link.peek() !== "live" || isResting.peek() ? " " : row.peek().silent.length ? "x" : ".";
    stripOf(id).value = stripOf(id).peek().slice(1) + now;
  }
}
