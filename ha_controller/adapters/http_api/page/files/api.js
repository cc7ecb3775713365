// The way to the API: questions, orders, and who is asking. Keeps nothing but what a change must carry.

const BASE = "/api/v1";
const AGAIN_MS = 1000;
let csrf = "";

/** An answer that is no: `status` of HTTP (0: none came), and a sentence. */
export class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

async function fetched(method, path, { body, headers } = {}) {
  const said = { Accept: "application/json", ...headers };
  if (body !== undefined) said["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(BASE + path, {
      method,
      headers: said,
      body: body === undefined ? undefined : JSON.stringify(body),
      credentials: "same-origin",
      cache: "no-store",
    });
  } catch {
    throw new Refused(0, "The controller does not answer.");
  }
  if (answer.status === 204) return null;
  const told = await answer.json().catch(() => null);
  if (!answer.ok) throw new Refused(answer.status, told?.detail ?? told?.title ?? `HTTP ${answer.status}`);
  return told;
}

/** Look. @param {string} path below /api/v1 */
export const look = (path) => fetched("GET", path);

/** Order something, once: where the connection broke it is sent again with its key, and is not carried out again. */
export async function order(path, body = {}) {
  const headers = { "X-HA-CSRF": csrf || "page", "Idempotency-Key": newKey() };
  try {
    return await fetched("POST", path, { body, headers });
  } catch (error) {
    if (error.status !== 0) throw error;
    await new Promise((done) => { setTimeout(done, AGAIN_MS); });
    return fetched("POST", path, { body, headers });
  }
}

function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Who is asking: `{name, role, via}`. */
export async function whoAmI() {
  const session = await look("/session");
  csrf = session.csrf;
  return session;
}

/** @returns the session */
export async function logIn(user, password) {
  const session = await fetched("POST", "/session", { body: { user, password } });
  csrf = session.csrf;
  return session;
}

export const logOut = () => fetched("DELETE", "/session", { headers: { "X-HA-CSRF": csrf || "page" } });

export const streamAddress = (after) => `${BASE}/events/stream${after ? `?after=${after}` : ""}`;
