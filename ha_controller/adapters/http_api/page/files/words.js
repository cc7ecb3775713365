// Words and shapes: how states, spans of time and moments are told. Knows nothing of the state or the page.

/** Each state has a shape and a word, so that nothing hangs on a colour alone. */
export const STATES = {
  ok: { shape: "●", word: "OK" },
  suspect: { shape: "◐", word: "SUSPECT" },
  failed: { shape: "▲", word: "FAILED" },
  fenced: { shape: "■", word: "FENCED" },
  recovered: { shape: "◆", word: "RECOVERED" },
  maintenance: { shape: "‖", word: "MAINTENANCE", short: "MAINT" },
};

/** What needs a person's eye first. */
export const SEVERITY = ["failed", "suspect", "fenced", "recovered", "maintenance", "ok"];

/** The state as it is shown: maintenance is no state of the controller, but is what people look for. */
export const stateOf = (row) => (row.maintenance && row.state === "ok" ? "maintenance" : row.state);

/** By the code of the status: 0 well, 1 degraded, 4 a guard holds something, 5 waits for a person. */
export const LEVELS = {
  0: { name: "well", shape: "●", colour: "#2e7d32" },
  1: { name: "degraded", shape: "◐", colour: "#b26a00" },
  4: { name: "guarded", shape: "‖", colour: "#b26a00" },
  5: { name: "waits", shape: "▲", colour: "#c62828" },
};

export const NOT_CONNECTED = { name: "unknown", shape: "?", colour: "#607080" };

/** @param {object} status @returns {string} */
export function modeWord(status) {
  if (status.paused) return "PAUSED";
  return { auto: "ARMED", observe: "OBSERVE", approve: "APPROVE" }[status.mode] ?? status.mode.toUpperCase();
}

const UNITS = [[86400, "d", 3600, "h"], [3600, "h", 60, "min"], [60, "min", 1, "s"]];

/** A span in its two biggest units. @param {number} seconds @returns {string} */
export function lasted(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  for (const [size, unit, smaller, smallUnit] of UNITS) {
    if (whole >= size) return `${Math.floor(whole / size)} ${unit} ${Math.floor((whole % size) / smaller)} ${smallUnit}`;
  }
  return `${whole} s`;
}

/** Whether two sentences differ in more than how long something lasts: only that is news to read aloud. */
export function isNews(before, after) {
  const withoutSpans = (text) => text.replace(/\d+(\.\d+)? ?(s|min|h|d)\b/g, "#");
  return withoutSpans(before) !== withoutSpans(after);
}

/** A short span with a decimal. @param {?number} seconds @returns {string} */
export function took(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  return seconds < 60 ? `${seconds.toFixed(1)} s` : lasted(seconds);
}

/** @param {?number} seconds @returns {string} */
export const ago = (seconds) => (seconds === null || seconds === undefined ? "never" : `${lasted(seconds)} ago`);

const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const DAY = new Intl.DateTimeFormat(undefined, { month: "short", day: "2-digit" });

/** A moment as local time; of another day with the day. @param {number} at seconds since 1970 @returns {string} */
export function clock(at) {
  const moment = new Date(at * 1000);
  const today = moment.toDateString() === new Date().toDateString();
  return today ? CLOCK.format(moment) : `${DAY.format(moment)} ${CLOCK.format(moment)}`;
}

/** @param {number} at @returns {string} for `<time datetime>` */
export const isoOf = (at) => new Date(at * 1000).toISOString();

/** @param {number} count @param {string} one @returns {string} */
export const counted = (count, one) => `${count} ${one}${count === 1 ? "" : "s"}`;

/** Names of others may carry marks that turn what is written around; these are shown as what they are. */
export const plain = (text) => String(text ?? "").replace(/[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g, "?");
