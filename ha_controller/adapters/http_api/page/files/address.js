// What of the page stands in its address, so that an alert can link to it: `?state=failed`, `?filter=rack-a`, `?host=kvm-07`.

import { chosen, filter, hosts, ranks, wantedState } from "./state.js";
import { STATES } from "./words.js";
import { effect } from "./vendor.js";

let wantedHost = "";

/** Once, at the start. */
export function readAddress() {
  const asked = new URLSearchParams(location.search);
  const state = (asked.get("state") ?? "").toLowerCase();
  wantedState.value = state in STATES ? state : "";
  filter.value = asked.get("filter") ?? "";
  wantedHost = asked.get("host") ?? "";
  effect(() => {
    ranks.value;
    if (!wantedHost) return;
    for (const [id, row] of hosts.value) {
      if (row.peek().name === wantedHost) { chosen.value = id; wantedHost = ""; return; }
    }
  });
}

export function writeAddress() {
  const host = chosen.value === null ? wantedHost : hosts.peek().get(chosen.value)?.peek().name ?? "";
  const parts = { state: wantedState.value, filter: filter.value, host };
  const kept = new URLSearchParams(Object.entries(parts).filter(([, value]) => value));
  const query = kept.size ? `?${kept}` : location.pathname;
  if (query !== (location.search || location.pathname)) history.replaceState(null, "", query);
}
