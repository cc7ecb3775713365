// The evidence matrix: what each channel shows, from here and from other hosts, and when it was last good.

import { html } from "./vendor.js";
import { Mark } from "./parts.js";
import { ago, lasted, plain } from "./words.js";

const LOOKS = { alive: "good", silent: "bad", off: "bad", on: "good", unknown: "none", dumping: "bad", leaving: "note" };

function Cell({ row }) {
  const span = row.silent_s === null ? "" : ` ${lasted(row.silent_s)}`;
  const age = row.signal === "alive" || !row.detail ? "" : row.detail;
  return html`<td class=${LOOKS[row.signal] ?? ""}><strong>${row.signal}${span}</strong>${age && html`<span class="detail"> ${plain(age)}</span>`}</td>`;
}

export function Evidence({ channels }) {
  const elsewhere = channels.some((row) => row.domain === "vantage");
  return html`<div class="scroll" tabindex="0" role="group" aria-label="Evidence"><table class="evidence">
    <thead><tr><th scope="col">Channel</th><th scope="col">from here</th>${elsewhere && html`<th scope="col">from other hosts</th>`}<th scope="col">last good</th></tr></thead>
    <tbody>${channels.map((row) => html`<tr key=${row.channel}>
      <th scope="row">${plain(row.channel)} <span class="detail">${row.domain === row.channel ? "" : row.domain}</span></th>
      ${row.domain === "vantage" ? html`<td class="none">–</td><${Cell} row=${row} />` : html`<${Cell} row=${row} />${elsewhere && html`<td class="none">–</td>`}`}
      <td>${ago(row.alive_s_ago)}</td>
    </tr>`)}</tbody>
  </table></div>`;
}

/** What the guards say; those that say no stand first. */
export function Guards({ guards }) {
  const sorted = [...guards].sort((a, b) => a.passes - b.passes);
  return html`<ul class="checks">${sorted.map((each) => html`<li key=${each.guard}><${Mark} ok=${each.passes} /> <strong>${plain(each.guard)}</strong> ${plain(each.reason)}</li>`)}</ul>`;
}

export function Devices({ devices }) {
  if (!devices.length) return html`<p class="trouble">✗ It has no fence device: it cannot be powered off.</p>`;
  return html`<ul class="checks">${devices.map((each) => html`<li key=${each.device}>
    <${Mark} ok=${Boolean(each.ready && !each.mismatch)} /> <strong>level ${each.level} ${plain(each.device)}</strong> ${plain(each.mismatch || each.summary)}
    <span class="detail"> checked ${ago(each.checked_s_ago)} · drill ${ago(each.drilled_s_ago)} · identity ${plain(each.identity) || "not proven"}</span>
  </li>`)}</ul>`;
}
