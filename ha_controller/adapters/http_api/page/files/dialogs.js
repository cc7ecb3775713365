// Dialogs: one at a time, never one on another. What kills asks for the host's name.

import { html, useEffect, useRef, useSignal } from "./vendor.js";
import { ordered } from "./parts.js";
import { dialog, hostName, pending } from "./state.js";
import { WhatIf } from "./whatif.js";
import { plain } from "./words.js";

const KINDS = { pause: Pause, maintenance: Maintenance, "confirm-off": ConfirmOff, "give-back": GiveBack, approve: Approve, reject: Reject, "what-if": WhatIfDialog, help: Help };

export function Dialogs() {
  const open = dialog.value;
  if (open === null) return null;
  const Kind = KINDS[open.kind];
  return html`<${Kind} key=${open.kind} ...${open} />`;
}

const close = () => { dialog.value = null; };

function Dialog({ name, children, wide }) {
  const ref = useRef(null);
  useEffect(() => {
    const before = document.activeElement;
    ref.current.showModal();
    ref.current.querySelector("form input, form select, .picked select")?.focus();
    return () => before?.focus?.();
  }, []);
  return html`<dialog ref=${ref} aria-label=${name} class=${wide ? "wide" : ""} onClose=${close}>
    <div class="head"><h2>${name}</h2><button type="button" class="quiet" aria-label="Close" onClick=${close}>✕</button></div>
    ${children}
  </dialog>`;
}

/** A dialog that ends with an order. `path` and `body` come from the form's fields; `moot`: why it makes no sense any more. */
function OrderDialog({ name, verb, path, bodyOf, danger, moot = "", ready = () => true, children }) {
  const busy = useSignal(false);
  const fits = useSignal(false);
  const trouble = useSignal("");
  const form = useRef(null);
  const fieldsOf = () => Object.fromEntries(new FormData(form.current));
  useEffect(() => { fits.value = ready(fieldsOf()); }, []);

  async function send(event) {
    event.preventDefault();
    const fields = fieldsOf();
    if (!ready(fields) || moot || busy.value) return;
    busy.value = true;
    trouble.value = await ordered(path, bodyOf(fields));
    busy.value = false;
    if (!trouble.value) close();
  }

  return html`<${Dialog} name=${name}>
    <form ref=${form} onSubmit=${send} onInput=${() => { fits.value = ready(fieldsOf()); }}>
      ${children}
      <p class="trouble" role="alert">${plain(moot || trouble.value)}</p>
      <div class="buttons">
        <button class=${danger ? "danger" : "main"} disabled=${busy.value || !fits.value || Boolean(moot)}>${verb}</button>
        <button type="button" onClick=${close}>Cancel</button>
      </div>
    </form>
  <//>`;
}

const Reason = ({ needed }) => html`<label>Reason${needed ? "" : " (optional)"} <input name="reason" maxlength="500" required=${needed} autocomplete="off" /></label>`;

const hasReason = ({ reason }) => reason.trim() !== "";

function Pause() {
  return html`<${OrderDialog} name="Pause all actions" verb="Pause" path="/pause" bodyOf=${({ reason }) => ({ reason })} ready=${hasReason}>
    <p>No power-off and no move anywhere, until somebody resumes. Probing goes on.</p>
    <${Reason} needed />
  <//>`;
}

const SPANS = [["", "until somebody gives it back"], ["3600", "1 hour"], ["14400", "4 hours"], ["43200", "12 hours"], ["86400", "1 day"], ["604800", "1 week"]];

function Maintenance({ host, name }) {
  const bodyOf = ({ reason, span }) => (span ? { reason, for_s: Number(span) } : { reason });
  return html`<${OrderDialog} name=${`Maintenance of ${plain(name)}`} verb="Begin maintenance" path=${`/hosts/${host}/maintenance/on`} bodyOf=${bodyOf} ready=${hasReason}>
    <p>The controller keeps its hands off this host: it is not powered off, and its VMs are not moved, whatever happens.</p>
    <${Reason} needed />
    <label>Duration <select name="span">${SPANS.map(([value, word]) => html`<option value=${value}>${word}</option>`)}</select></label>
  <//>`;
}

const HOWS = [
  ["I stand before it and its lights are out", "seen: its lights are out"],
  ["I pulled its power cords", "I pulled its power cords"],
  ["Its rack or PDU has no power", "its rack or PDU has no power"],
  ["Somebody at the machine told me", "told by somebody at the machine"],
];

function ConfirmOff({ host, name, incident }) {
  const bodyOf = ({ how, reason }) => ({ incident, reason: [how, reason.trim()].filter(Boolean).join("; ") });
  const ready = ({ typed, how }) => (typed === name || typed === plain(name)) && Boolean(how);
  return html`<${OrderDialog} name=${`I have seen that ${plain(name)} is off`} verb="It is off" danger path=${`/hosts/${host}/confirm-off`} bodyOf=${bodyOf} ready=${ready}>
    <p class="trouble">Its VMs are started elsewhere at once. If it is <strong>not</strong> off, they run twice and their disks are destroyed.</p>
    <fieldset><legend>How do you know?</legend>${HOWS.map(([word, value]) => html`<label class="choice"><input type="radio" name="how" value=${value} /> ${word}</label>`)}</fieldset>
    <label>Type the host's name <input name="typed" autocomplete="off" spellcheck="false" autocapitalize="none" placeholder=${plain(name)} /></label>
    <label>Anything to add (optional) <input name="reason" maxlength="400" autocomplete="off" /></label>
  <//>`;
}

function GiveBack({ host, name, incident }) {
  const bodyOf = ({ reason, repaired }) => ({ incident, reason, repaired: repaired === "on" });
  return html`<${OrderDialog} name=${`Give ${plain(name)} back to OpenNebula`} verb="Give back" path=${`/hosts/${host}/unfence`} bodyOf=${bodyOf}>
    <p>VMs may be placed on it again. It is refused while a condition of the way back is not met.</p>
    <label class="choice"><input type="checkbox" name="repaired" /> What made it fail is repaired</label>
    <${Reason} />
  <//>`;
}

/** A question may end, or become another one, while the dialog is open. */
function mootOf(asked) {
  const now = pending.value.find((each) => each.id === asked.id);
  return now?.can_approve && now.state === asked.state ? "" : "✗ This is not asked any more. Close, and look again.";
}

function Approve({ asked }) {
  return html`<${OrderDialog} name=${`Approve for ${plain(asked.host)}`} verb="Approve" danger path=${`/incidents/${asked.id}/approve`} bodyOf=${({ reason }) => ({ reason })} moot=${mootOf(asked)}>
    <p>${plain(asked.question)}</p>
    <p><strong>${asked.state === "suspect" ? `${plain(asked.host)} is powered off, and its VMs are started elsewhere.` : "What it asks is done."}</strong></p>
    <${Reason} />
  <//>`;
}

function Reject({ asked }) {
  return html`<${OrderDialog} name=${`Reject for ${plain(asked.host)}`} verb="Reject" path=${`/incidents/${asked.id}/reject`} bodyOf=${({ reason }) => ({ reason })} moot=${mootOf(asked)}>
    <p>${plain(asked.question)}</p>
    <p><strong>${plain(asked.host)} is not powered off.</strong></p>
    <${Reason} />
  <//>`;
}

function WhatIfDialog({ host }) {
  return html`<${Dialog} name="What if?" wide><${WhatIf} first=${hostName(host)} /><//>`;
}

const KEYS = [["/", "filter the hosts"], ["← ↑ → ↓", "go between the hosts"], ["Enter", "show a host"], ["Esc", "close, or end the filter"], ["?", "this help"]];

function Help() {
  return html`<${Dialog} name="Help and keys">
    <dl class="keys">${KEYS.map(([key, what]) => html`<dt><kbd>${key}</kbd></dt><dd>${what}</dd>`)}</dl>
    <p>● OK · ◐ SUSPECT, does not answer · ▲ FAILED, is being powered off · ■ FENCED, is off, its VMs are moved · ◆ RECOVERED, its VMs are cared for · ‖ in maintenance</p>
    <p>The strip below a host is what this page saw in the last minute: high where it answered, low where a channel was silent.</p>
    <p>All of this is in the terminal, too: <code>ha-controller status</code>, <code>explain HOST</code>, <code>top</code>.</p>
  <//>`;
}
