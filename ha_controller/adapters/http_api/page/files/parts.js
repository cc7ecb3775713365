// Small pieces that several views use.

import { html, useRef } from "./vendor.js";
import { isRefusal, order } from "./api.js";
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

const REST_MS = 700; //: what a button does may turn into its opposite, and a double click means one of them

/** A button for what needs a role: without it, it is there and says why it cannot be pressed. */
export function Act({ role = "operator", className = "", onClick, children }) {
  const reason = may(role) ? "" : `needs the role ${role}`;
  const busy = useRef(false);
  const press = async () => {
    const going = busy.current ? null : onClick();
    if (!going?.then) return;
    busy.current = true;
    await Promise.all([going, new Promise((rested) => { setTimeout(rested, REST_MS); })]).finally(() => { busy.current = false; });
  };
  return html`<button type="button" class=${className} disabled=${Boolean(reason)} title=${reason} onClick=${press}>
    ${children}${reason && html`<span class="hidden"> (${reason})</span>`}
  </button>`;
}

export const done = (text) => ({ look: "good", text: `✓ ${text}` });
export const failed = (text) => ({ look: "bad", text: `✗ ${text}` });

/** Order something and tell the answer. @param tell of an answer: `{look, text}` @returns {Promise<string>} why it is not known to be done; empty: it is done */
export async function ordered(path, body, tell = (answer) => done(answer.text)) {
  said.value = { look: "under-way", text: "… Asking the controller…" };
  try {
    said.value = tell(await order(path, body));
    return "";
  } catch (error) {
    said.value = isRefusal(error.status)
      ? failed(`Refused: ${error.message}`)
      : { look: "bad", text: `? It is not known whether this was done: ${error.message} Look before you order it again.` };
    return said.value.text;
  }
}

/** Marks of yes, no and cannot tell. */
export const Mark = ({ ok }) => {
  const [shape, word, look] = ok === true ? ["✓", "yes", "good"] : ok === false ? ["✗", "no", "bad"] : ["!", "note", "note"];
  return html`<span class="mark ${look}"><span aria-hidden="true">${shape}</span><span class="hidden">${word}: </span></span>`;
};
