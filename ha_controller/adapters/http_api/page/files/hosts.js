// The tiles: each host a button. Of many hosts the well ones are squares, the others stay large and stand first.

import { html, useRef, useEffect } from "./vendor.js";
import { stripOf } from "./beats.js";
import { Region, StateWord } from "./parts.js";
import { BEAT_S, BEATS, chosen, chosenIncident, filter, groups, hosts, isDense, rows, shownHost, wantedState } from "./state.js";
import { counted, plain, STATES, stateOf } from "./words.js";

export function Hosts() {
  const shown = groups.value.reduce((sum, group) => sum + group.rows.length, 0);
  const first = groups.value[0]?.rows[0]?.id;
  return html`<${Region} name="Hosts" className="hosts" aside=${html`<${Filter} shown=${shown} />`}>
    ${groups.value.map((group) => html`<div class="group" key=${group.name}>
      <h3>${plain(group.name)} <span class="count">${group.rows.length}</span></h3>
      <div class=${group.squares ? "squares" : "tiles"}>
        ${group.rows.map((row) => html`<${Tile} key=${row.id} row=${hosts.value.get(row.id)} small=${group.squares} entry=${row.id === first} />`)}
      </div>
    </div>`)}
    ${shown === 0 && html`<p class="quietly">${hosts.value.size ? "No host fits the filter." : "No host is known yet."}</p>`}
  <//>`;
}

function Filter({ shown }) {
  const counts = Object.entries(STATES).map(([state, { shape, word }]) => [state, shape, word, rows.value.filter((row) => stateOf(row) === state).length]);
  return html`<div class="filters">
    ${counts.filter(([state, , , count]) => count && (isDense.value || state !== "ok" || wantedState.value === "ok") || wantedState.value === state).map(([state, shape, word, count]) => html`
      <button type="button" key=${state} class="chip ${state}" aria-pressed=${wantedState.value === state}
        onClick=${() => { wantedState.value = wantedState.value === state ? "" : state; }}>
        <span aria-hidden="true">${shape}</span> ${count} ${word}${wantedState.value === state ? " ✕" : ""}</button>`)}
    <input id="filter" type="search" aria-label="Filter hosts" placeholder="Filter ( / )" value=${filter}
      onInput=${(event) => { filter.value = event.target.value; }} />
    <span class="hidden" role="status">${filter.value || wantedState.value ? `${counted(shown, "host")} shown` : ""}</span>
  </div>`;
}

function choose(id) {
  chosenIncident.value = null;
  chosen.value = chosen.value === id ? null : id;
}

/** One host. Reads its own signal, so that a change of one host draws one tile. */
function Tile({ row, small, entry }) {
  const host = row.value;
  const state = stateOf(host);
  const isShown = shownHost.value === host.id;
  const ref = useRef(null);
  useEffect(() => { if (isShown && chosen.peek() === host.id) ref.current?.scrollIntoView({ block: "nearest" }); }, [isShown]);
  const name = plain(host.name);
  const label = `${name} ${STATES[state].word}, ${counted(host.vms, "VM")}${helpless(host) ? ", no fence device is ready" : ""}`;
  const shared = {
    ref, type: "button", "data-host": host.name, "data-state": state, "aria-label": label, "aria-pressed": isShown,
    tabIndex: entry || isShown ? 0 : -1, onClick: () => choose(host.id),
  };
  if (small) return html`<button ...${shared} class="square ${state}" title=${label}><span aria-hidden="true">${STATES[state].shape}</span></button>`;
  return html`<button ...${shared} class="tile ${state}" title=${plain(host.note)}>
    <span class="line"><span class="name">${name}</span><${StateWord} state=${state} isShort /></span>
    <span class="line small"><span>${counted(host.vms, "VM")}</span><span>${fencing(host)}</span></span>
    <${Strip} id=${host.id} />
  </button>`;
}

const helpless = (host) => !host.fencing.some((device) => device.ready && !device.mismatch);

function fencing(host) {
  if (host.silent.length && host.state !== "ok") return `silent: ${host.silent.join(", ")}`;
  if (!host.fencing.length) return "⚠ no fence device";
  return helpless(host) ? "⚠ fencing not ready" : "fencing ✓";
}

/** What this page saw of it lately: a high tick where it answered, a low red one where a channel was silent. */
function Strip({ id }) {
  const text = stripOf(id).value;
  const draw = (letter, top) => [...text].map((each, index) => (each === letter ? `M${index * 4 + 1.5} ${top}V10` : "")).join("");
  return html`<svg class="strip" viewBox="0 0 ${BEATS * 4 - 1} 10" preserveAspectRatio="none" aria-hidden="true">
    <title>the last ${BEATS * BEAT_S} s</title>
    <path class="unseen" d=${draw(" ", 8)} /><path class="answered" d=${draw(".", 1)} /><path class="silent" d=${draw("x", 5)} />
  </svg>`;
}
