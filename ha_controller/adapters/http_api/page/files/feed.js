// Keeps the state as the controller says it is: the live stream, and questions for what the stream does not carry.

import { FORECAST_MS, logOut, look, Refused, streamAddress, whoAmI } from "./api.js";
import { batch, effect, signal } from "./vendor.js";
import * as beats from "./beats.js";
import {
  chosenIncident, explained, hosts, incidents, isResting, isStale, leader, link, lostSince, pending, ranks, readiness, session, setClock,
  shownHost, status, tick, trail,
} from "./state.js";
import { isNews } from "./words.js";

const TRAIL_MAX = 500;
const GATHER_MS = 30; //: what comes within this is shown at once: a storm is one picture, not a thousand
const AGAIN_MS = 2000;
const LOST_AFTER_MS = 1500; //: a short break is no news
const STATUS_EVERY_MS = 10000; //: ages; and a dead connection is noticed
const STATUS_WITHIN_MS = 8000;
const STREAM_SILENT_MS = 45000; //: it says every 15 s that it is alive
const READY_EVERY_MS = 300000;
const REST_AFTER_MS = 300000; //: browsers have six connections for all tabs of an address, and each stream is one
const INCIDENTS_SHOWN = 20;
const CHANGING = ["suspect", "failed", "fenced"]; //: what is shown of such a host is asked for more often

let source = null;
let lastLine = 0;
let streamedAt = 0;
let waiting = [];
let again = null;
let resting = null;

// --- the stream ---

const HANDLERS = {
  status(told) {
    setClock(told.at);
    status.value = told;
  },
  hosts(told) {
    hosts.value = new Map(told.map((row) => [row.id, signal(row)]));
    ranks.value += 1;
  },
  host(row) {
    const known = hosts.peek().get(row.id);
    if (known) known.value = row;
    else hosts.value = new Map(hosts.peek()).set(row.id, signal(row));
    ranks.value += 1;
  },
  gone({ id }) {
    const left = new Map(hosts.peek());
    left.delete(id);
    hosts.value = left;
  },
  /** Lines are missing between, or the numbers begin anew: another trail must not be mixed with this one. */
  gap() {
    trail.value = [];
    lastLine = 0;
    askTrail();
  },
  alive() {},
};

function take(kind, data, id) {
  streamedAt = performance.now();
  waiting.push([kind, data, id]);
  if (waiting.length === 1) setTimeout(takeAll, GATHER_MS);
}

const isNewRow = (row) => {
  const known = hosts.peek().get(row.id)?.peek();
  return !known || known.state !== row.state || known.incident !== row.incident || isNews(known.note, row.note);
};

function takeAll() {
  const all = waiting;
  waiting = [];
  const lines = [];
  const isWorthAsking = all.some(([kind, data]) => (kind === "host" ? isNewRow(data) : !["status", "alive"].includes(kind)));
  batch(() => {
    for (const [kind, data, id] of all) {
      if (kind === "trail") {
        lastLine = Number(id) || lastLine;
        lines.push(data);
      } else HANDLERS[kind](data);
    }
    addLines(lines);
  });
  if (isWorthAsking) refresh();
}

function addLines(lines) {
  if (!lines.length) return;
  const known = new Set(trail.peek().map((line) => line.id));
  const fresh = lines.filter((line) => !known.has(line.id));
  trail.value = [...trail.peek(), ...fresh].sort((a, b) => a.id - b.id).slice(-TRAIL_MAX);
}

function connect() {
  source?.close();
  source = new EventSource(streamAddress(lastLine));
  source.onopen = isBack;
  source.onerror = lost;
  streamedAt = performance.now();
  for (const kind of ["alive", "status", "hosts", "host", "gone", "trail", "gap"]) {
    source.addEventListener(kind, (event) => take(kind, JSON.parse(event.data), event.lastEventId));
  }
}

/** The browser comes back by itself, unless it was refused: then we look why. */
function lost() {
  link.value = "reconnecting";
  setTimeout(() => { if (link.peek() !== "live" && lostSince.peek() === null) lostSince.value = Date.now(); }, LOST_AFTER_MS);
  if (again === null) again = setTimeout(comeBack, AGAIN_MS);
}

async function comeBack() {
  again = null;
  if (link.peek() === "live") return;
  try {
    session.value = await whoAmI();
  } catch (error) {
    if (error.status !== 401) return lost();
    session.value = { name: "nobody", role: "nobody", via: "", csrf: "" };
  }
  if (session.peek().role === "nobody") source?.close();
  else if (isResting.peek()) isBack();
  else {
    connect();
    again = setTimeout(comeBack, AGAIN_MS * 2);
  }
}

const isBack = () => batch(() => { link.value = "live"; lostSince.value = null; });

/** A tab that nobody looks at for long asks for the status now and then, which its title shows; seen again, it is live. */
function restOrWake() {
  clearTimeout(resting);
  if (document.hidden) resting = setTimeout(() => { isResting.value = true; source?.close(); }, REST_AFTER_MS);
  else if (isResting.peek()) {
    isResting.value = false;
    if (session.peek()?.role !== "nobody") connect();
  }
}

// --- questions ---

/** @returns {Promise<boolean>} whether there was an answer */
async function ask(path, into) {
  try {
    into(await look(path));
    return true;
  } catch (error) {
    if (error.status === 401) lost();
    if (!(error instanceof Refused)) throw error;
    return false;
  }
}

const askTrail = () => ask("/events?newest=true&limit=200", (lines) => {
  addLines(lines);
  lastLine = Math.max(lastLine, lines.at(-1)?.id ?? 0);
});

/** At most once a second, and one at a time; what comes meanwhile is asked for afterwards. */
function paced(work, everyMs = 1000) {
  let busy = false;
  let wanted = false;
  return async function run() {
    if (busy) { wanted = true; return; }
    busy = true;
    try {
      await work();
    } finally {
      setTimeout(() => { busy = false; if (wanted) { wanted = false; run(); } }, everyMs);
    }
  };
}

let isOwed = false; //: what changed was not told yet, so it is asked for again

const refresh = paced(async () => {
  isOwed = true;
  const told = await Promise.all([
    ask("/pending", (told) => { pending.value = told; }),
    ask(`/incidents?limit=${INCIDENTS_SHOWN}`, (told) => { incidents.value = told; }),
    explainShown(),
  ]);
  isOwed = told.includes(false);
});

async function explainShown() {
  const id = shownHost.peek();
  if (id === null) { explained.value = null; return true; }
  return ask(`/hosts/${id}/explain`, (told) => { if (shownHost.peek() === told.id) explained.value = told; });
}

export const explainSoon = paced(explainShown, 300);

export const askReadiness = paced(async () => {
  readiness.value = { ...readiness.peek(), busy: true, trouble: {} };
  const one = async (name, path) => {
    try {
      const told = await look(path, FORECAST_MS);
      readiness.value = { ...readiness.peek(), [name]: told };
    } catch (error) {
      readiness.value = { ...readiness.peek(), trouble: { ...readiness.peek().trouble, [name]: error.message } };
    }
  };
  await Promise.all([one("capacity", "/simulate/capacity"), one("doctor", "/doctor"), one("drills", "/drills")]);
  readiness.value = { ...readiness.peek(), busy: false, at: Date.now() };
});

const askLeader = () => ask("/leader", (told) => { leader.value = told; });

/** A status that does not come within its time says that the stream is dead as well. */
async function askStatus() {
  if (session.peek()?.role === "nobody") return;
  try {
    const told = await look("/status", STATUS_WITHIN_MS);
    batch(() => HANDLERS.status(told));
    const isMute = source?.readyState === EventSource.CLOSED || performance.now() - streamedAt > STREAM_SILENT_MS;
    if (isMute && !isResting.peek()) lost();
  } catch (error) {
    if (error instanceof Refused && error.status !== 503) lost(); // 503: too much is asked, and the stream says more
  }
}

/** Each second. */
function tickOn() {
  tick.value += 1;
  beats.note(tick.value);
  if (isStale.peek() && link.peek() === "live" && session.peek()?.role !== "nobody") lost();
}

const isLooking = () => session.peek()?.role !== "nobody" && !isResting.peek();

/** Show everything, if the person may look. */
export async function begin() {
  connect();
  await Promise.all([askTrail(), askLeader()]);
  refresh();
  askReadiness();
}

export async function start() {
  try {
    session.value = await whoAmI();
  } catch (error) {
    session.value = { name: "nobody", role: "nobody", via: "", csrf: "" };
    if (error.status !== 401) lost();
  }
  if (session.value.role !== "nobody") begin();
  effect(() => { shownHost.value; chosenIncident.value; explainSoon(); });
  setInterval(tickOn, 1000);
  setInterval(askStatus, STATUS_EVERY_MS);
  setInterval(() => { if (isLooking()) { askLeader(); if (isOwed) refresh(); else explainSoon(); } }, STATUS_EVERY_MS);
  setInterval(() => { if (isLooking() && CHANGING.includes(explained.peek()?.state)) explainSoon(); }, 2000);
  setInterval(() => { if (isLooking()) askReadiness(); }, READY_EVERY_MS);
  document.addEventListener("visibilitychange", restOrWake);
}

export async function leave() {
  source?.close();
  await logOut().catch(() => null);
  location.reload();
}
