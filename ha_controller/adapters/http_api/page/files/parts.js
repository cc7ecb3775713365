// Small pieces that several views use.

import { html } from "./vendor.js";
import { order } from "./api.js";
import { may, now, said, tick } from "./state.js";
import { clock, isoOf, lasted, STATES } from "./words.js";

/** A part of the page with a heading that names it. */
export function Region({ name, title, children, className = "", aside }) {
  return html`<section class="region ${className}" aria-label=${name}>
    <div class="head"><h2>${title ?? name}</h2>${aside}</div>
    ${children}
  </section>`;
}

export function StateWord({ state, isShort }) {
  const { shape, word, short } = STATES[state] ?? { shape: "?", word: state.toUpperCase() };
  return html`<span class="state ${state}"><span aria-hidden="true">${shape} </span>${(isShort && short) || word}</span>`;
}

export const When = ({ at }) => html`<time datetime=${isoOf(at)} title=${new Date(at * 1000).toLocaleString()}>${clock(at)}</time>`;

/** How long something lasts by now. */
export function Since({ at }) {
  tick.value;
  return html`<span>${lasted(now() - at)}</span>`;
}

/** A button for what needs a role: without it, it is there and says why it cannot be pressed. */
export function Act({ role = "operator", className = "", onClick, children, why = "" }) {
  const reason = may(role) ? why : `needs the role ${role}`;
  return html`<button type="button" class=${className} disabled=${Boolean(reason)} title=${reason} onClick=${onClick}>
    ${children}${reason && html`<span class="hidden"> (${reason})</span>`}
  </button>`;
}

/** Order something and tell the answer. @returns {Promise<string>} why it was refused; empty: it was carried out */
export async function ordered(path, body, tell = (answer) => answer.text) {
  said.value = { ok: null, text: "Asking the controller…" };
  try {
    const answer = await order(path, body);
    said.value = { ok: true, text: tell(answer) };
    return "";
  } catch (error) {
    said.value = { ok: false, text: error.message };
    return error.message;
  }
}

/** Marks of yes, no and cannot tell. */
export const Mark = ({ ok }) => {
  const [shape, word, look] = ok === true ? ["✓", "yes", "good"] : ok === false ? ["✗", "no", "bad"] : ["!", "note", "note"];
  return html`<span class="mark ${look}"><span aria-hidden="true">${shape}</span><span class="hidden">${word}: </span></span>`;
};
