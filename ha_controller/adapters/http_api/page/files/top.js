// The top line: the mode, who leads, how fresh OpenNebula's word is, counts, the connection, who is looking, and the pause.

import { html } from "./vendor.js";
import { leave } from "./feed.js";
import { Act, ordered } from "./parts.js";
import { dialog, hosts, leader, link, session, status, vmCount } from "./state.js";
import { counted, modeWord, plain } from "./words.js";

const MODES = {
  ARMED: "Failed hosts are powered off and their VMs are started elsewhere",
  APPROVE: "A person is asked before a host is powered off",
  OBSERVE: "It only looks: nothing is powered off or moved",
  PAUSED: "Nothing is powered off or moved until somebody resumes",
};

export function TopLine() {
  const told = status.value;
  const mode = told === null ? "" : modeWord(told);
  return html`<header>
    <h1 class="product">ha-controller</h1>
    ${mode && html`<span class="badge ${mode.toLowerCase()}" title=${MODES[mode] ?? ""}>${mode}</span>`}
    ${told && html`<span class="pill">${lead(told)}</span><${OnedAge} told=${told} />
      <span class="pill">${counted(hosts.value.size, "host")} · ${counted(vmCount.value, "VM")}</span>`}
    <span class="space"></span>
    <span class="pill link ${link.value}"><span class="dot" aria-hidden="true">●</span><span>${link.value}</span></span>
    <${Person} />
    ${told && (told.paused
      ? html`<${Act} className="main" onClick=${() => ordered("/resume")}>Resume<//>`
      : html`<${Act} className="main" onClick=${() => { dialog.value = { kind: "pause" }; }}>Pause all actions<//>`)}
    <button type="button" class="quiet" aria-label="Help and keys" onClick=${() => { dialog.value = { kind: "help" }; }}>?</button>
  </header>`;
}

function lead(told) {
  if (told.term === null) return told.leader ? `stands by: ${plain(told.leader)} leads` : "does not lead";
  const known = leader.value;
  const others = known === null ? 0 : known.members.filter((member) => !member.this).length;
  const name = known === null ? "leads" : `leader ${plain(known.name)}`;
  return `${name} · term ${told.term}${others ? ` · ${counted(others, "standby")}` : ""}`;
}

function OnedAge({ told }) {
  if (told.oned_error) return html`<span class="pill bad">✗ OpenNebula: ${plain(told.oned_error)}</span>`;
  const age = told.oned_age_s;
  return html`<span class="pill">${age === null ? "oned: no answer yet" : `oned answered ${age.toFixed(0)} s ago`}</span>`;
}

function Person() {
  const { name, role, via } = session.value;
  return html`<span class="pill">${plain(name)} · ${role}</span>
    ${via === "login" && html`<button type="button" class="quiet" onClick=${leave}>Log out</button>`}`;
}
