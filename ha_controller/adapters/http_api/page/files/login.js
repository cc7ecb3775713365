// The form to log in with an OpenNebula user.

import { html, useEffect, useRef, useSignal } from "./vendor.js";
import { logIn } from "./api.js";
import { begin } from "./feed.js";
import { session } from "./state.js";

export function LogIn() {
  const trouble = useSignal("");
  const busy = useSignal(false);

  async function send(event) {
    event.preventDefault();
    const { user, password } = event.target.elements;
    busy.value = true;
    trouble.value = "";
    try {
      session.value = await logIn(user.value, password.value);
      begin();
    } catch (error) {
      trouble.value = error.message;
      password.value = "";
    }
    busy.value = false;
  }

  const form = useRef(null);
  useEffect(() => { form.current.elements.user.focus(); }, []);
  return html`<main class="lonely">
    <form ref=${form} class="region" aria-label="Log in" onSubmit=${send}>
      <h1>ha-controller</h1>
      <p>Log in with your OpenNebula user. Your groups there say what you may do here.</p>
      <label>User <input name="user" autocomplete="username" required spellcheck="false" autocapitalize="none" /></label>
      <label>Password <input name="password" type="password" autocomplete="current-password" required /></label>
      <p class="trouble" role="alert">${trouble}</p>
      <button class="main" disabled=${busy}>Log in</button>
    </form>
  </main>`;
}
