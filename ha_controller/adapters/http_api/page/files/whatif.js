// What if these hosts failed at once? Where each VM would go, and which would not fit. Nothing is done.

import { html, useEffect, useSignal } from "./vendor.js";
import { FORECAST_MS, look } from "./api.js";
import { rows } from "./state.js";
import { counted, plain } from "./words.js";

export function WhatIf({ first }) {
  const picked = useSignal(first ? [first] : []);
  const answer = useSignal(null);
  const trouble = useSignal("");

  useEffect(() => {
    let isOld = false;
    async function ask(names) {
      answer.value = null;
      trouble.value = "";
      if (!names.length) return;
      try {
        const told = await look(`/simulate/fail?${names.map((name) => `host=${encodeURIComponent(name)}`).join("&")}`, FORECAST_MS);
        if (!isOld) answer.value = told;
      } catch (error) {
        if (!isOld) trouble.value = error.message;
      }
    }
    ask(picked.value);
    return () => { isOld = true; };
  }, [picked.value]);

  const add = (event) => {
    const name = event.target.value;
    if (rows.value.some((row) => row.name === name) && !picked.value.includes(name)) picked.value = [...picked.value, name];
    event.target.value = "";
  };
  return html`<p>If these hosts failed at once, now. Nothing is done by asking.</p>
    <div class="picked">
      ${picked.value.map((name) => html`<button type="button" key=${name} class="chip" aria-label=${`Without ${plain(name)}`} onClick=${() => { picked.value = picked.value.filter((each) => each !== name); }}>${plain(name)} ✕</button>`)}
      <label>Add a host <select onChange=${add}><option value="">…</option>${rows.value.filter((row) => !picked.value.includes(row.name)).map((row) => html`<option key=${row.id} value=${row.name}>${plain(row.name)}</option>`)}</select></label>
    </div>
    <div role="status" aria-label="Forecast">
      ${trouble.value && html`<p class="trouble">✗ ${plain(trouble.value)}</p>`}
      ${answer.value ? html`<${Forecast} told=${answer.value} />` : !trouble.value && picked.value.length > 0 && html`<p class="quietly">Computing…</p>`}
    </div>`;
}

function Forecast({ told }) {
  const of = (outcome) => told.vms.filter((vm) => vm.outcome === outcome);
  const targets = new Map();
  for (const vm of of("moved")) targets.set(vm.to, [...(targets.get(vm.to) ?? []), vm]);
  const sorted = [...targets].sort(([a], [b]) => (a < b ? -1 : 1));
  const nowhere = of("nowhere");
  return html`
    <p class="sentence">${nowhere.length === 0 ? "✓ " : "✗ "}${counted(told.moved, "VM")} would be started elsewhere, ${nowhere.length} would not fit, ${told.left_alone} would be left alone.</p>
    <${List} title="Would not fit" vms=${nowhere} look="bad" /><${List} title="Left alone" vms=${of("left alone")} look="note" />
    ${sorted.length > 0 && html`<h3>Would go to</h3><ul class="flows">${sorted.map(([to, vms]) => html`<li key=${to}><strong>${plain(to)}</strong> <span class="count">+${vms.length}</span> <span>${vms.slice(0, 12).map((vm) => plain(vm.name)).join(", ")}${vms.length > 12 ? ` and ${vms.length - 12} more` : ""}</span></li>`)}</ul>`}
    ${told.order_faults.length > 0 && html`<h3>Orders of start that are not followed</h3><ul>${told.order_faults.map((line) => html`<li>${plain(line)}</li>`)}</ul>`}`;
}

function List({ title, vms, look }) {
  if (!vms.length) return null;
  return html`<h3 class=${look}>${title}</h3><ul>${vms.slice(0, 100).map((vm) => html`<li key=${vm.id}><strong>${plain(vm.name)}</strong> ${plain(vm.reason)}</li>`)}</ul>`;
}
