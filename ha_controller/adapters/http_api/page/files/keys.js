// Keys: "/" goes to the filter, "?" shows them all, arrows go between tiles. Esc closes dialogs by itself.

import { chosen, dialog, filter, wantedState } from "./state.js";

const STEPS = { ArrowLeft: -1, ArrowRight: 1 };

const isText = (element) => element.matches("input, textarea, select, [contenteditable]");

export function startKeys() {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    const tile = event.target.closest?.("button[data-host]");
    if (event.key === "Escape") escape(event.target);
    else if (isText(event.target)) return;
    else if (event.key === "/") focusFilter(event);
    else if (event.key === "?") dialog.value = { kind: "help" };
    else if (tile) moveFrom(tile, event);
  });
}

function focusFilter(event) {
  const field = document.getElementById("filter");
  if (!field) return;
  event.preventDefault();
  field.focus();
  field.select();
}

/** Out of the filter with all of it, else back from the host. */
function escape(target) {
  if (target.id === "filter" || filter.value || wantedState.value) {
    filter.value = "";
    wantedState.value = "";
    if (target.id === "filter") target.blur();
  } else chosen.value = null;
}

function moveFrom(tile, event) {
  const tiles = [...document.querySelectorAll("button[data-host]")];
  const index = tiles.indexOf(tile);
  let next = null;
  if (event.key in STEPS) next = tiles[index + STEPS[event.key]];
  else if (event.key === "Home") next = tiles[0];
  else if (event.key === "End") next = tiles.at(-1);
  else if (event.key === "ArrowUp" || event.key === "ArrowDown") next = above(tiles, tile, event.key === "ArrowUp");
  else return;
  event.preventDefault();
  next?.focus();
}

/** The nearest tile of the next row. */
function above(tiles, tile, up) {
  const from = tile.getBoundingClientRect();
  const middle = from.left + from.width / 2;
  let best = null;
  for (const other of tiles) {
    const at = other.getBoundingClientRect();
    const away = up ? from.top - at.bottom : at.top - from.bottom;
    if (away < -1) continue;
    const score = away * 4 + Math.abs(at.left + at.width / 2 - middle);
    if (other !== tile && (best === null || score < best.score)) best = { other, score };
  }
  return best?.other;
}
