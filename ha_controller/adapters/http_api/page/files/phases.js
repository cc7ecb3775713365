// The phases of an incident as bars on one clock, from what is on record. What is not known is not drawn.

import { html } from "./vendor.js";
import { now, tick } from "./state.js";
import { clock, counted, plain, took } from "./words.js";

const STEPS_S = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400];
const OUTCOMES = { "off read": "✓", voided: "✗", unverified: "✗", refused: "✗", "not sent": "✗", ordered: "…", accepted: "…" };

/** @returns rows of {mark, name, begin, end, note, ticks, look}; `end` null: it goes on */
export function phasesOf(record) {
  const vms = record.vms ?? [];
  const life = record.last_life_at;
  const off = record.rebooted ? record.opened_at : record.fenced_at;
  const rows = [{ name: "Detect", begin: life, end: record.opened_at, note: `judged ${record.verdict}`, look: "detect" }];
  if (!record.rebooted) rows.push(guards(record), ...attempts(record), verify(record));
  const ordered = vms.map((vm) => vm.first_ordered_at).filter(Boolean);
  const settled = vms.map((vm) => vm.settled_at).filter(Boolean);
  const done = vms.length > 0 && settled.length === vms.length;
  const begun = ordered.length ? Math.min(...ordered) : null;
  if (off !== null && !record.rebooted) rows.push({ name: "OpenNebula told", begin: off, end: begun ?? (done ? off : null), note: record.lever, look: "told" });
  const ran = vms.filter((vm) => vm.stage === "running").length;
  rows.push({
    name: `Restart ${counted(vms.length, "VM")}`,
    begin: begun ?? (record.rebooted ? off : null),
    end: done ? Math.max(...settled) : null,
    note: `${ran} of ${vms.length} run again`,
    ticks: settled,
    look: "restart",
  });
  return rows.map((row) => ({ ...row, mark: row.mark ?? markOf(row, record) }));
}

const markOf = (row, record) => (row.begin === null || row.begin === undefined ? "·" : row.end !== null ? "✓" : record.open ? "…" : "–");

function guards(record) {
  const begins = record.opened_at;
  const note = record.failed_at === null ? record.stopped || record.hold || "asked before the power-off" : record.approved_by ? `approved by ${record.approved_by}` : "all passed";
  return { name: "Guards", begin: begins, end: record.failed_at, note, look: "guards" };
}

function attempts(record) {
  if (!record.attempts.length) return [{ name: "Fence", begin: record.failed_at, end: record.fenced_at, note: "", look: "fence" }];
  return record.attempts.map((attempt, index) => {
    const later = record.attempts[index + 1]?.ordered_at ?? record.fenced_at;
    const over = !["ordered", "accepted"].includes(attempt.outcome);
    return {
      mark: OUTCOMES[attempt.outcome],
      name: `Fence: ${attempt.devices.join(" + ")}`,
      begin: attempt.ordered_at,
      end: attempt.off_read_at ?? (over ? later ?? attempt.ordered_at : null),
      note: [attempt.outcome, attempt.detail].filter(Boolean).join(": "),
      look: OUTCOMES[attempt.outcome] === "✗" ? "failed-attempt" : "fence",
    };
  });
}

function verify(record) {
  const read = record.attempts.map((attempt) => attempt.off_read_at).filter(Boolean).at(-1) ?? null;
  return { name: "Verify off", begin: read, end: record.fenced_at, note: record.proof?.text ?? "", look: "verify" };
}

export function Phases({ record }) {
  if (record.open) tick.value;
  const rows = phasesOf(record);
  const moments = rows.flatMap((row) => [row.begin, row.end, ...(row.ticks ?? [])]).filter((at) => at !== null && at !== undefined);
  const goesOn = record.open && rows.some((row) => row.begin !== null && row.begin !== undefined && row.end === null);
  const begin = Math.min(...moments, record.opened_at);
  const end = Math.max(...moments, goesOn ? now() : 0, begin + 1);
  const share = (at) => ((Math.min(Math.max(at, begin), end) - begin) / (end - begin)) * 100;
  return html`<ol class="phases" aria-label="Phases">
    ${rows.map((row, index) => html`<li key=${index}><${Bar} row=${row} share=${share} open=${record.open} /></li>`)}
    <li class="axis" aria-hidden="true"><span></span><span class="when">${clock(begin)}</span>
      <span class="track">${ticksOf(end - begin).map((after) => html`<span class="moment" style=${{ left: `${share(begin + after)}%` }}>+${axisWord(after)}</span>`)}</span><span></span></li>
  </ol>`;
}

function Bar({ row, share, open }) {
  const known = row.begin !== null && row.begin !== undefined;
  const end = row.end ?? (open ? now() : row.begin);
  const left = known ? share(row.begin) : 100;
  const width = known ? Math.max(share(end) - left, 0.6) : 0;
  const after = 100 - left - width;
  const side = left > after ? { right: `${100 - left}%`, maxWidth: `${left}%` } : { left: `${left + width}%`, maxWidth: `${after}%` };
  return html`<span class="mark" aria-hidden="true">${row.mark}</span><span class="name">${plain(row.name)}</span>
    <span class="track">
      ${known && html`<span class="bar ${row.look} ${row.end === null && open ? "going" : ""}" style=${{ left: `${left}%`, width: `${width}%` }}></span>`}
      ${(row.ticks ?? []).map((at) => html`<span class="vm-tick" style=${{ left: `${share(at)}%` }}></span>`)}
      ${known && row.note && html`<span class="note" style=${side} title=${plain(row.note)}>${plain(row.note)}</span>`}
    </span>
    <span class="took">${known ? took(end - row.begin) : "–"}</span>`;
}

function ticksOf(span) {
  const step = STEPS_S.find((each) => span / each <= 6) ?? span / 6;
  const found = [];
  for (let at = step; at < span * 0.97; at += step) found.push(at);
  return found;
}

const axisWord = (seconds) => (seconds < 120 ? `${seconds} s` : seconds < 7200 ? `${seconds / 60} min` : `${seconds / 3600} h`);
