// The page: puts the views together, and listens to keys. Data come by feed.js into state.js; the views show that.

import { effect, html, render } from "./vendor.js";
import { Dialogs } from "./dialogs.js";
import { start } from "./feed.js";
import { HostPanel } from "./host.js";
import { Hosts } from "./hosts.js";
import { Incident } from "./incident.js";
import { startKeys } from "./keys.js";
import { LogIn } from "./login.js";
import { Readiness } from "./readiness.js";
import { readAddress, writeAddress } from "./address.js";
import { session, verdict } from "./state.js";
import { TopLine } from "./top.js";
import { Trail } from "./trail.js";
import { Answer, Verdict } from "./verdict.js";
import { Waiting } from "./waiting.js";

function Page() {
  if (session.value === null) return html`<main class="lonely"><p>Asking the controller…</p></main>`;
  if (session.value.role === "nobody") return html`<${LogIn} />`;
  return html`
    <${TopLine} />
    <main>
      <${Verdict} />
      <${Answer} />
      <div class="columns">
        <div class="now">
          <${Waiting} />
          <${Incident} />
          <${HostPanel} />
        </div>
        <div class="cloud">
          <${Hosts} />
          <${Readiness} />
        </div>
        <div class="past"><${Trail} /></div>
      </div>
    </main>
    <${Dialogs} />
  `;
}

/** A tab in the background tells the verdict, too. */
function tellTab() {
  const { shape, colour, text } = verdict.value;
  const shown = session.value?.role === "nobody" ? "ha-controller" : `${shape} ${text}`;
  if (document.title !== shown) document.title = shown;
  const picture = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="7" fill="${colour}"/><text x="16" y="23" font-size="20" text-anchor="middle" fill="#fff" font-family="sans-serif">${shape}</text></svg>`;
  const address = `data:image/svg+xml,${encodeURIComponent(picture)}`;
  const icon = document.querySelector("link[rel=icon]");
  if (icon.href !== address) icon.href = address;
}

readAddress();
render(html`<${Page} />`, document.getElementById("page"));
effect(tellTab);
effect(writeAddress);
startKeys();
start();
