// What waits for a person: the question, and yes or no.

import { html } from "./vendor.js";
import { Act, Region } from "./parts.js";
import { chosen, dialog, hosts, pending } from "./state.js";
import { plain } from "./words.js";

export function Waiting() {
  const list = pending.value;
  return html`<${Region} name="Waiting for you" className=${list.length ? "waiting" : "waiting none"}>
    ${list.length === 0 && html`<p class="quietly">Nothing waits for a decision.</p>`}
    <ul>${list.map((each) => html`<li key=${each.id}>
      <p><strong>${plain(each.host)}</strong> ${plain(each.question)}</p>
      <div class="buttons">
        ${each.can_approve && html`
          <${Act} className="danger" onClick=${() => { dialog.value = { kind: "approve", asked: each }; }}>Approve<//>
          <${Act} onClick=${() => { dialog.value = { kind: "reject", asked: each }; }}>Reject<//>`}
        <button type="button" class="quiet" onClick=${() => show(each.host)}>Show ${plain(each.host)}</button>
      </div>
    </li>`)}</ul>
  <//>`;
}

function show(name) {
  for (const [id, row] of hosts.value) if (row.peek().name === name) chosen.value = id;
}
