// The trail: what was decided, ordered, reported and told, and what people did, newest first.

import { html, useSignal } from "./vendor.js";
import { Region, When } from "./parts.js";
import { hostName, trail } from "./state.js";
import { plain } from "./words.js";

const SHOWN = 60;

const who = (line) => (line.kind === "operator" ? `${line.data?.who ?? "somebody"}${line.data?.origin ? ` (${line.data.origin})` : ""}` : "controller");

function textOf(line) {
  const { result, code } = line.data ?? {};
  return line.kind === "operator" && code ? `${line.text} · refused: ${result}` : line.text;
}

/** Which host a line is about, where its words do not say. */
function about(line) {
  const name = line.host === null ? "" : hostName(line.host);
  return name && !line.text.includes(name) ? html`<span class="detail">${plain(name)} </span>` : "";
}

export function Trail() {
  const wanted = useSignal("");
  const kind = useSignal("");
  const kinds = [...new Set(trail.value.map((line) => line.kind))].sort();
  const words = wanted.value.toLowerCase().split(/\s+/).filter(Boolean);
  const fits = (line) => {
    if (kind.value && line.kind !== kind.value) return false;
    const text = `${textOf(line)} ${who(line)} ${line.kind} ${hostName(line.host)} ${line.incident === null ? "" : `incident ${line.incident}`}`.toLowerCase();
    return words.every((word) => text.includes(word));
  };
  const found = trail.value.filter(fits).slice(-SHOWN).reverse();
  const aside = html`<div class="filters">
    <select aria-label="Kind of line" value=${kind} onChange=${(event) => { kind.value = event.target.value; }}>
      <option value="">all kinds</option>${kinds.map((each) => html`<option key=${each} value=${each}>${each}</option>`)}</select>
    <input type="search" aria-label="Filter the trail" placeholder="Filter" value=${wanted} onInput=${(event) => { wanted.value = event.target.value; }} /></div>`;
  return html`<${Region} name="Trail" className="trail" aside=${aside}>
    <div class="scroll tall" tabindex="0" role="group" aria-label="Lines of the trail"><table>
      <thead class="hidden"><tr><th scope="col">when</th><th scope="col">who</th><th scope="col">what</th></tr></thead>
      <tbody>${found.map((line) => html`<tr key=${line.id} class=${`kind-${line.kind}`}><td class="when"><${When} at=${line.at} /></td><td class="who">${plain(who(line))}</td><td>${about(line)}${plain(textOf(line))}</td></tr>`)}</tbody>
    </table></div>
    ${found.length === 0 && html`<p class="quietly">${trail.value.length ? "No line fits." : "Nothing is on the trail yet."}</p>`}
  <//>`;
}
