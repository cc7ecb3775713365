// The way to the API: questions, orders, and who is asking. Keeps nothing but what a change must carry.

const BASE = "/api/v1";
const AGAIN_MS = 1000;
const AGAIN_WITHIN_MS = 10000; //: whoever's machine slept since then does not mean it any more
const LOOK_MS = 20000;
export const FORECAST_MS = 450000; //: the controller itself gives up before
const ORDER_MS = 120000; //: devices are asked for some of them
let csrf = "";
const parting = new AbortController(); //: who logs out looks no more

/** An answer that is no: `status` of HTTP (0: none came), and a sentence. */
export class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

async function fetched(method, path, { body, headers, withinMs, until } = {}) {
  const said = { Accept: "application/json", ...headers };
  if (body !== undefined) said["Content-Type"] = "application/json";
  const late = AbortSignal.timeout(withinMs);
  let answer;
  try {
    answer = await fetch(BASE + path, {
      method,
      headers: said,
      body: body === undefined ? undefined : JSON.stringify(body),
      credentials: "same-origin",
      cache: "no-store",
      signal: until && AbortSignal.any ? AbortSignal.any([late, until]) : late, // of 2023: older browsers have none
    });
  } catch {
    throw new Refused(0, "The controller does not answer.");
  }
  if (answer.status === 204) return null;
  const told = await answer.json().catch(() => null);
  if (answer.ok && told === null) throw new Refused(0, "The controller's answer broke off.");
  if (!answer.ok) throw new Refused(answer.status, told?.detail ?? told?.title ?? `HTTP ${answer.status}`);
  return told;
}

/** Look. @param {string} path below /api/v1 */
export const look = (path, withinMs = LOOK_MS) => fetched("GET", path, { withinMs, until: parting.signal });

/** Whether an order that ended so was not carried out. Where nobody says, it is not known. @param {number} status of HTTP */
export const isRefusal = (status) => status >= 400 && ![408, 500, 502, 504].includes(status);

/** Order something, once: where the connection broke it is sent again with its key, and is not carried out again. */
export async function order(path, body = {}) {
  const headers = { "X-HA-CSRF": csrf || "page", "Idempotency-Key": newKey() };
  const asked = { body, headers, withinMs: ORDER_MS };
  const began = Date.now();
  try {
    return await fetched("POST", path, asked);
  } catch (error) {
    if (error.status !== 0) throw error;
    await new Promise((done) => { setTimeout(done, AGAIN_MS); });
    if (Math.abs(Date.now() - began) > AGAIN_WITHIN_MS) throw error;
    return fetched("POST", path, asked);
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
  const session = await fetched("POST", "/session", { body: { user, password }, withinMs: ORDER_MS });
  csrf = session.csrf;
  return session;
}

/** Nothing is looked at any more, not even what is under way: without a session it would be refused. */
export function logOut() {
  parting.abort();
  return fetched("DELETE", "/session", { headers: { "X-HA-CSRF": csrf || "page" }, withinMs: LOOK_MS });
}

export const streamAddress = (after) => `${BASE}/events/stream${after ? `?after=${after}` : ""}`;
