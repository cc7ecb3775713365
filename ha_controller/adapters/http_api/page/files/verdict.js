// The verdict: one sentence, what comes next, and what is to be done. And the answer to the last order.

import { html } from "./vendor.js";
import { link, lostSince, nextStep, pending, said, status, verdict } from "./state.js";
import { plain } from "./words.js";

export function Verdict() {
  const { name, shape, text } = verdict.value;
  return html`<section class="verdict ${name}" role="status" aria-label="Verdict" aria-live="polite">
    <p class="sentence"><span class="shape" aria-hidden="true">${shape}</span> ${plain(text)}</p>
    <${Then} />
  </section>`;
}

function Then() {
  const told = status.value;
  if (told === null) return null;
  const parts = [];
  if (link.value !== "live" && lostSince.value !== null) parts.push("What follows may be old; it connects again by itself.");
  if (told.code === 5) parts.push(`For you: decide ${pending.value.length > 1 ? `${pending.value.length} questions` : "the question"} under “Waiting for you”.`);
  if (nextStep.value && told.code < 4 && link.value === "live") parts.push(`Next: ${plain(nextStep.value)}`);
  if (told.settling_s) parts.push(`Settling after the start: nothing is powered off yet.`);
  if (told.paused && !told.verdict.includes(told.paused)) parts.push(`Paused: ${plain(told.paused)}.`);
  return parts.length ? html`<p class="then">${parts.join(" ")}</p>` : null;
}

export function Answer() {
  const answer = said.value;
  return html`<div class="answer ${answer?.look ?? ""}" role="status" aria-label="Answer">
    ${answer && html`<p>${plain(answer.text)}</p>
      <button type="button" class="quiet" aria-label="Dismiss" onClick=${() => { said.value = null; }}>✕</button>`}
  </div>`;
}
