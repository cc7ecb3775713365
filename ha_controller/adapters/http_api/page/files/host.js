// A host that was chosen: evidence, fence devices, what would become of its VMs, and maintenance.

import { html } from "./vendor.js";
import { Devices, Evidence, Guards } from "./evidence.js";
import { Act, done, failed, ordered, Region, StateWord } from "./parts.js";
import { chosen, dialog, explained, shownHost, shownRow } from "./state.js";
import { counted, lasted, plain, stateOf } from "./words.js";

export function HostPanel() {
  const row = shownRow.value;
  if (row === null) return null;
  const about = explained.value?.id === row.id ? explained.value : null;
  const name = plain(row.name);
  const isAway = ["fenced", "recovered"].includes(row.state);
  const open = (kind) => () => { dialog.value = { kind, host: row.id, name: row.name, incident: row.incident }; };
  return html`<${Region} name=${`Host ${name}`} title=${name} className="host" aside=${html`<${StateWord} state=${stateOf(row)} />`}>
    <p class="quietly">${counted(row.vms, "VM")}${about ? `, ${row.state.toUpperCase()} for ${lasted(about.for_s)}` : ""}${row.note && row.incident === null ? `. ${plain(row.note)}` : ""}</p>
    ${about && row.incident === null && html`
      <p>${about.verdict.kind}: ${plain(about.verdict.reason)}.</p>
      <${Evidence} channels=${about.channels} />
      ${about.if_failed && html`<p><strong>If it failed now:</strong> ${plain(about.if_failed)}</p>`}`}
    <h3>Fencing</h3>
    <${Devices} devices=${row.fencing} />
    ${about && about.guards.length > 0 && html`<details><summary>Guards: ${about.guards.filter((each) => each.passes).length} of ${about.guards.length} would let it be powered off</summary><${Guards} guards=${about.guards} /></details>`}
    <div class="buttons">
      ${row.maintenance
        ? html`<${Act} onClick=${() => ordered(`/hosts/${row.id}/maintenance/off`)}>Give back<//>`
        : html`<${Act} onClick=${open("maintenance")}>Maintenance…<//>`}
      ${isAway && !row.maintenance && html`<${Act} role="admin" onClick=${open("give-back")}>Give back<//>`}
      ${row.incident === null && html`<button type="button" onClick=${open("what-if")}>What if?</button>`}
      <${Act} onClick=${() => checkDevices(row)}>Read power<//>
      ${chosen.value === shownHost.value && html`<button type="button" class="quiet" onClick=${() => { chosen.value = null; }}>Close</button>`}
    </div>
  <//>`;
}

const checkDevices = (row) => ordered(`/fencing/check?host=${encodeURIComponent(row.id)}`, {}, whatDevicesSay);

function whatDevicesSay(hosts) {
  const devices = hosts.flatMap((host) => host.fencing.map((device) => ({ ...device, host: host.name })));
  if (!devices.length) return failed("There is no fence device.");
  const text = devices.map((each) => `${each.host} ${each.device}: ${each.mismatch || each.summary}`).join("; ");
  return devices.every((each) => each.ready && !each.mismatch) ? done(text) : failed(text);
}
