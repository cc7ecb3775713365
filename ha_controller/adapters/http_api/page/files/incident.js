// The incident: its phases on one clock, its VMs, the evidence, why it is in its state and why it goes no further.

import { html, useSignal } from "./vendor.js";
import { Evidence, Guards } from "./evidence.js";
import { Act, done, failed, ordered, Region, StateWord, When } from "./parts.js";
import { asMarkdown } from "./markdown.js";
import { Phases } from "./phases.js";
import { chosen, chosenIncident, dialog, explained, hostName, incidents, nextStepOf, rows, said, shownHost, shownRecord } from "./state.js";
import { lasted, plain, stateOf, took } from "./words.js";

const VMS_SHOWN = 8;
const OTHERS_SHOWN = 8;
const STILL_ON = ["suspect", "failed"];
const OFF = ["fenced", "recovered"];

export function Incident() {
  const record = shownRecord.value;
  if (record === null) return html`<${Region} name="Incident" className="incident none"><${Quiet} /><//>`;
  const about = explained.value?.record?.id === record.id ? explained.value : null;
  const title = html`${plain(record.host_name)} · incident ${record.id}`;
  return html`<${Region} name="Incident" title=${title} className="incident ${record.state}" aside=${html`<span><${StateWord} state=${record.open ? record.state : "ok"} />${record.open ? "" : " closed"}</span>`}>
    <p class="quietly">opened <${When} at=${record.opened_at} />${!record.open && html`, closed <${When} at=${record.closed_at} />: ${plain(record.closing) || "no reason on record"}`}
      ${record.phases_s.total !== null && html` · all of it took ${took(record.phases_s.total)}`}</p>
    <${Phases} record=${record} />
    ${about && html`<${Why} about=${about} record=${record} />`}
    <${Vms} record=${record} />
    ${record.open && html`<${Buttons} record=${record} />`}
    ${!record.open && html`<div class="buttons"><button type="button" onClick=${() => { chosenIncident.value = null; }}>Back</button><${Copy} record=${record} /></div>`}
    <${Others} except=${record.id} />
    ${record.open && html`<${Earlier} />`}
  <//>`;
}

/** The other open ones, so that none hides behind the one that is shown. */
function Others({ except = null }) {
  const others = rows.value.filter((row) => row.incident !== null && row.incident !== except);
  if (!others.length) return null;
  return html`<p class="others">${except === null ? "Open incidents: " : "Also open: "}${others.slice(0, OTHERS_SHOWN).map((row) => html`<button type="button" key=${row.id}
    class="chip ${stateOf(row)}" onClick=${() => { chosen.value = row.id; }}><${StateWord} state=${stateOf(row)} /> ${plain(row.name)}</button> `)}
    ${others.length > OTHERS_SHOWN && `and ${others.length - OTHERS_SHOWN} more`}</p>`;
}

function Quiet() {
  return html`<p class="quietly">${shownHost.value !== null && chosen.value !== null ? `${hostName(shownHost.value)} has no open incident.` : "No incident is open."}</p><${Others} /><${Earlier} />`;
}

function Earlier() {
  const closed = incidents.value.filter((each) => !each.open).slice(0, 5);
  if (!closed.length) return null;
  return html`<details class="earlier"><summary>Earlier incidents</summary><ul>${closed.map((each) => html`<li key=${each.id}>
    <button type="button" class="link" onClick=${() => { chosen.value = null; chosenIncident.value = each.id; }}>${each.id}: ${plain(each.host_name)}</button>
    <span> <${When} at=${each.opened_at} />, ${plain(each.verdict)}; ${each.vms.filter((vm) => vm.stage === "running").length} of ${each.vms.length} VMs ran again</span>
  </li>`)}</ul></details>`;
}

function Why({ about, record }) {
  const blocked = record.stopped || record.hold;
  const refusing = about.guards.filter((guard) => !guard.passes);
  return html`
    <div class="why"><h3>Why this state</h3>
      <p><strong>${about.state.toUpperCase()}</strong> for ${lasted(about.for_s)}. Verdict now: ${about.verdict.kind}: ${plain(about.verdict.reason)}.</p></div>
    <${Evidence} channels=${about.channels} />
    <div class="why ${blocked ? "blocked" : ""}"><h3>Why not further</h3>
      <p>${plain(blocked || goesOn(record))}</p>
      ${refusing.length > 0 && html`<${Guards} guards=${refusing} />`}
      ${OFF.includes(record.state) && about.rejoin.length > 0 && html`<details><summary>The way back: ${about.rejoin.filter((each) => each.passes).length} of ${about.rejoin.length} conditions are met</summary>
        <${Guards} guards=${about.rejoin.map((each) => ({ guard: each.condition, ...each }))} /></details>`}
      ${about.plan.length > 0 && html`<details><summary>Where its VMs would go</summary><ul>${about.plan.map((line) => html`<li>${plain(line)}</li>`)}</ul></details>`}
    </div>`;
}

function goesOn(record) {
  if (record.state === "recovered") return "All its VMs have an outcome. The host waits for repair.";
  const next = nextStepOf(new Set([record.id]));
  return next ? `Nothing blocks it. Next: ${next}` : "Nothing blocks it.";
}

function Vms({ record }) {
  const all = useSignal(false);
  if (!record.vms.length) return html`<p class="quietly">No VM is on record.</p>`;
  const unsettled = (vm) => (["running", "moved, not started"].includes(vm.stage) ? 1 : 0);
  const sorted = [...record.vms].sort((a, b) => unsettled(a) - unsettled(b) || a.id - b.id);
  const shown = all.value ? sorted : sorted.slice(0, VMS_SHOWN);
  return html`<div class="scroll" tabindex="0" role="group" aria-label="VMs"><table class="vms">
    <thead><tr><th scope="col">VM</th><th scope="col">was</th><th scope="col">is</th><th scope="col">on</th><th scope="col">outage</th></tr></thead>
    <tbody>${shown.map((vm) => html`<tr key=${vm.id}>
      <th scope="row">${plain(vm.name)} <span class="detail">${vm.id}</span></th><td>${plain(vm.was_label)}</td>
      <td class=${vm.stage === "running" ? "good" : vm.stage === "left alone" ? "bad" : "note"}><strong>${plain(vm.stage)}</strong>${vm.reason && html`<span class="detail"> ${plain(vm.reason)}</span>`}</td>
      <td>${plain(hostName(vm.runs_on ?? vm.destination))}</td><td>${vm.outage_s === null ? "–" : took(vm.outage_s)}</td>
    </tr>`)}</tbody>
  </table></div>
  ${sorted.length > VMS_SHOWN && html`<button type="button" class="quiet" onClick=${() => { all.value = !all.value; }}>${all.value ? "Fewer" : `All ${sorted.length} VMs`}</button>`}`;
}

/** Browsers give the clipboard to pages that came over TLS or from this machine. */
function Copy({ record }) {
  if (!navigator.clipboard) return null;
  const copy = async () => {
    await navigator.clipboard.writeText(asMarkdown(record)).then(
      () => { said.value = done(`Incident ${record.id} is in the clipboard.`); },
      () => { said.value = failed("The browser does not give the clipboard."); },
    );
  };
  return html`<button type="button" class="quiet" onClick=${copy}>Copy as Markdown</button>`;
}

function Buttons({ record }) {
  const host = `/hosts/${record.host}`;
  const open = (kind) => () => { dialog.value = { kind, host: record.host, name: record.host_name, incident: record.id }; };
  return html`<div class="buttons">
    ${record.held_by
      ? html`<${Act} onClick=${() => ordered(`${host}/release`)}>Release<//>`
      : html`<${Act} onClick=${() => ordered(`${host}/hold`)}>Hold<//>`}
    <button type="button" onClick=${open("what-if")}>What if?</button>
    ${STILL_ON.includes(record.state) && html`<${Act} role="admin" className="danger" onClick=${open("confirm-off")}>I have seen it is off…<//>`}
    ${record.state === "recovered" && html`<${Copy} record=${record} />`}
    ${record.stopped && !record.held_by && html`<${Act} onClick=${() => ordered(`${host}/release`)}>Release<//>`}
  </div>`;
}
