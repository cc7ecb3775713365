// What is known, as signals, and what follows from it. The feed writes here, the views read here.

import { computed, signal } from "./vendor.js";
import { isNews, LEVELS, NOT_CONNECTED, SEVERITY, stateOf } from "./words.js";

export const DENSE_FROM = 150; //: with more hosts the well ones become squares
export const BEATS = 30;
export const BEAT_S = 2;
const SAME_WORDS_MS = 60000;
const STALE_MS = 30000; //: three times as long as between two questions for the status
const STALE_RESTING_MS = 150000; //: browsers let a tab that nobody looks at do something once a minute
const ROLES = ["nobody", "viewer", "operator", "admin"];

// --- what the controller says ---
export const session = signal(null); //: null: not asked yet
export const status = signal(null);
export const hosts = signal(new Map()); //: id -> signal of a row; a new Map when hosts come or go
export const ranks = signal(0); //: grows when a state or a name changes: the order of the tiles hangs on it
export const trail = signal([]); //: oldest first
export const incidents = signal([]); //: newest first
export const pending = signal([]);
export const explained = signal(null); //: of the shown host
export const leader = signal(null);
export const readiness = signal({ capacity: null, doctor: null, drills: null, trouble: {}, at: null, busy: false });
export const link = signal("reconnecting"); //: or "live"
export const lostSince = signal(null);
export const isResting = signal(false); //: nobody looks at the tab, so the stream is closed
const heard = signal(null); //: when the controller last said how it is: by the clock, which may be set, and since the page began, which may stand still

// --- what the person here does ---
export const filter = signal("");
export const wantedState = signal("");
export const chosen = signal(null); //: a host's id
export const chosenIncident = signal(null); //: the number of a closed one
export const dialog = signal(null); //: {kind, ...}: one at a time
export const said = signal(null); //: the answer to the last order: {look, text}

// --- the clock of the controller ---
export const tick = signal(0);
let aheadS = 0;
export const setClock = (at) => {
  aheadS = at - Date.now() / 1000;
  heard.value = { wall: Date.now(), running: performance.now() };
};
export const now = () => Date.now() / 1000 + aheadS;

/** Whether what is shown may be old, whatever the connection looks like: a machine slept, or the other end hangs. */
export const isStale = computed(() => {
  tick.value;
  if (heard.value === null) return false;
  const silentMs = Math.max(Math.abs(Date.now() - heard.value.wall), performance.now() - heard.value.running);
  return silentMs > (isResting.value ? STALE_RESTING_MS : STALE_MS);
});

export const may = (role) => ROLES.indexOf(session.value?.role ?? "nobody") >= ROLES.indexOf(role);

/** @param {?number} id @returns {string} */
export const hostName = (id) => (id === null ? "" : hosts.value.get(id)?.peek().name ?? `host ${id}`);

export const rows = computed(() => {
  ranks.value;
  return [...hosts.value.values()].map((each) => each.peek());
});

export const isDense = computed(() => hosts.value.size > DENSE_FROM);
export const vmCount = computed(() => rows.value.reduce((sum, row) => sum + row.vms, 0));

const NATURAL = new Intl.Collator(undefined, { numeric: true });

const rank = (row) => SEVERITY.indexOf(stateOf(row));

function placeOf(row) {
  const places = Object.values(row.places ?? {}).join(" · ");
  const cluster = row.cluster_name || (row.cluster >= 0 ? `cluster ${row.cluster}` : "");
  return [cluster, places].filter(Boolean).join(" · ") || "hosts";
}

function isWanted(row) {
  if (wantedState.value && stateOf(row) !== wantedState.value && row.state !== wantedState.value) return false;
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  const text = `${row.name} ${stateOf(row)} ${placeOf(row)} ${row.note}`.toLowerCase();
  return words.every((word) => text.includes(word));
}

/** The tiles in their order: groups of `{name, rows, squares}`; of many hosts those that are not OK stand first. */
export const groups = computed(() => {
  const wanted = rows.value.filter(isWanted).sort((a, b) => NATURAL.compare(a.name, b.name));
  const found = new Map();
  const unwell = [];
  for (const row of wanted) {
    if (isDense.value && stateOf(row) !== "ok") { unwell.push(row); continue; }
    const place = placeOf(row);
    if (!found.has(place)) found.set(place, []);
    found.get(place).push(row);
  }
  const well = [...found].sort(([a], [b]) => NATURAL.compare(a, b));
  const listed = well.map(([name, list]) => ({ name, rows: list, squares: isDense.value }));
  unwell.sort((a, b) => rank(a) - rank(b));
  return unwell.length ? [{ name: "Not OK", rows: unwell, squares: false }, ...listed] : listed;
});

/** The host that the incident is shown of: the chosen one, else the worst one that has one. */
export const shownHost = computed(() => {
  if (chosen.value !== null && hosts.value.has(chosen.value)) return chosen.value;
  if (chosenIncident.value !== null) return null;
  const open = rows.value.filter((row) => row.incident !== null || row.state !== "ok");
  open.sort((a, b) => rank(a) - rank(b) || a.id - b.id);
  return open.length ? open[0].id : null;
});

export const shownRow = computed(() => {
  ranks.value;
  return shownHost.value === null ? null : hosts.value.get(shownHost.value)?.value ?? null;
});

/** The incident that is shown: the open one of the host, or a closed one that was asked for. */
export const shownRecord = computed(() => {
  const own = explained.value?.record;
  if (shownHost.value !== null) return explained.value?.id === shownHost.value ? own ?? null : null;
  return incidents.value.find((each) => each.id === chosenIncident.value) ?? null;
});

/** What happens next, as the newest decision about one of these incidents said. @param {Set<number>} numbers */
export function nextStepOf(numbers) {
  const said = trail.value.findLast((line) => numbers.has(line.incident) && line.data?.next_step);
  return said?.data.next_step ?? "";
}

export const nextStep = computed(() => {
  const open = rows.value.map((row) => row.incident).filter((number) => number !== null);
  return nextStepOf(new Set(open));
});

let sentence = "";
let sentenceAt = 0;

/** What is read aloud stays as it is while nothing but its seconds goes on. */
function calm(text) {
  if (isNews(sentence, text) || Date.now() - sentenceAt > SAME_WORDS_MS) {
    sentence = text;
    sentenceAt = Date.now();
  }
  return sentence;
}

/** The verdict as it is shown everywhere: its level, its sentence. Without a connection nothing is said to be well. */
export const verdict = computed(() => {
  const told = status.value;
  if (told === null) return { ...NOT_CONNECTED, text: "No answer from the controller yet." };
  if (isStale.value || (link.value !== "live" && lostSince.value !== null)) {
    return { ...NOT_CONNECTED, text: `No connection to the controller. It said last: ${told.verdict}` };
  }
  return { ...(LEVELS[told.code] ?? LEVELS[1]), text: calm(told.verdict) };
});
