// Ready for the next failure? How many hosts may fail, what could be powered off, drills, and the checks of `doctor`.

import { html } from "./vendor.js";
import { askReadiness } from "./feed.js";
import { Mark, Region } from "./parts.js";
import { readiness, rows } from "./state.js";
import { clock, counted, plain } from "./words.js";

export function Readiness() {
  const { busy, at, trouble } = readiness.value;
  const aside = html`<span class="quietly">${at && `looked at ${clock(at / 1000)} `}<button type="button" class="quiet" disabled=${busy} onClick=${askReadiness}>${busy ? "Looking…" : "Look again"}</button></span>`;
  return html`<${Region} name="Ready for the next failure?" className="ready" aside=${aside}>
    <div class="cards"><${Capacity} /><${Fencing} /><${Drills} /></div>
    ${Object.entries(trouble).map(([name, text]) => html`<p class="trouble" key=${name}>✗ ${name}: ${plain(text)}</p>`)}
    <${Doctor} />
  <//>`;
}

function Card({ value, look, children }) {
  return html`<div class="card"><p class="value ${look}">${value}</p><p>${children}</p></div>`;
}

function Capacity() {
  const known = readiness.value.capacity;
  if (known === null) return null;
  return known.clusters.map((each) => {
    const lost = each.too_many;
    const unplaced = lost ? lost.vms.filter((vm) => vm.outcome === "nowhere").length : 0;
    const look = each.may_fail === 0 ? "bad" : each.may_fail === 1 ? "note" : "good";
    return html`<${Card} key=${each.cluster} value=${`N+${each.may_fail}`} look=${look}>
      ${counted(each.may_fail, "host")} of ${plain(each.name)} may fail${unplaced > 0 && lost.hosts.length < each.hosts.length ? `; with ${lost.hosts.length} lost, ${counted(unplaced, "VM")} would not fit` : ""}<//>`;
  });
}

function Fencing() {
  const guarded = rows.value.filter((row) => !row.maintenance);
  const unable = guarded.filter((row) => !row.fencing.some((device) => device.ready && !device.mismatch));
  const named = unable.slice(0, 3).map((row) => plain(row.name)).join(", ");
  return html`<${Card} value=${`${guarded.length - unable.length} / ${guarded.length}`} look=${unable.length ? "bad" : "good"}>
    hosts can be powered off${unable.length ? `; not ${named}${unable.length > 3 ? ` and ${unable.length - 3} more` : ""}` : ""}<//>`;
}

function Drills() {
  const known = readiness.value.drills;
  if (known === null || known.length === 0) return null;
  const overdue = known.filter((row) => row.overdue);
  return html`<${Card} value=${`${known.length - overdue.length} / ${known.length}`} look=${overdue.length ? "note" : "good"}>
    fence devices drilled lately${overdue.length ? "; the others are due" : ""}<//>`;
}

function Doctor() {
  const known = readiness.value.doctor;
  if (known === null) return html`<p class="quietly">The checks are under way…</p>`;
  const well = known.filter((check) => check.ok === true);
  const others = known.filter((check) => check.ok !== true).sort((a, b) => (a.ok === null) - (b.ok === null));
  const list = (checks) => html`<ul class="checks">${checks.map((check) => html`<li key=${check.text}><${Mark} ok=${check.ok} /> ${plain(check.text)}</li>`)}</ul>`;
  return html`${others.length > 0 && list(others)}
    <details><summary>${counted(well.length, "check")} passed</summary>${list(well)}</details>`;
}
