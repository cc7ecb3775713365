// An incident as Markdown, for a ticket. `ha-controller incidents export` writes the whole post-mortem.

import { phasesOf } from "./phases.js";
import { hostName } from "./state.js";
import { isoOf, plain, took } from "./words.js";

const safe = (text) => plain(text).replace(/[\\`*_{}[\]<>#|!~$@&]/g, "\\$&");

const row = (cells) => `| ${cells.join(" | ")} |`;

/** @param {object} record an incident as of the API @returns {string} */
export function asMarkdown(record) {
  const ran = record.vms.filter((vm) => vm.stage === "running").length;
  const lines = [
    `## Incident ${record.id}: ${safe(record.host_name)}, ${isoOf(record.opened_at)}`,
    "",
    `Judged ${safe(record.verdict)}, now ${record.state.toUpperCase()}. ${ran} of ${record.vms.length} VMs run again. ${record.open ? "It is open." : `Closed: ${safe(record.closing)}.`}`,
    "",
    row(["Phase", "Took", ""]), row(["---", "---", "---"]),
  ];
  for (const { name, begin, end, note } of phasesOf(record)) {
    const isKnown = Number.isFinite(begin) && Number.isFinite(end);
    lines.push(row([safe(name), isKnown ? took(end - begin) : "–", safe(note)]));
  }
  lines.push("", row(["VM", "Was", "Outcome", "On", "Outage"]), row(["---", "---", "---", "---", "---"]));
  for (const vm of record.vms) {
    lines.push(row([`${safe(vm.name)} (${vm.id})`, safe(vm.was_label), safe([vm.stage, vm.reason].filter(Boolean).join(": ")), safe(hostName(vm.runs_on ?? vm.destination)), took(vm.outage_s)]));
  }
  return `${lines.join("\n")}\n`;
}
