#!/usr/bin/env python3
"""The inside of a pretended PDU: a pass_persist program of net-snmp's snmpd.

Usage: pdu_backend.py VENDOR FOLDER OUTLETS

The outlets are files FOLDER/outlet.N (1 or 0). Fault files: `stuck` acknowledges and changes nothing, `lag` holds the
seconds until a change shows, `readonly` refuses every order. `names` holds one name a line. Each order is noted in
`orders`. Its objects are written down here apart from the agent's own table, after the makers' MIBs.
"""

import sys
import time
from pathlib import Path

vendor, folder, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])

APC = "1.3.6.1.4.1.318.1.1"
#: status object, what it reads when on and off; control objects with what each written value means; names; index prefix
VENDORS = {
    "apc-rpdu": (f"{APC}.12.3.5.1.1.4", 1, 2, {f"{APC}.12.3.3.1.1.4": {1: 1, 2: 0}}, f"{APC}.12.3.5.1.1.2", ""),
    "apc-rpdu2": (f"{APC}.26.9.2.3.1.5", 2, 1, {f"{APC}.26.9.2.4.1.5": {1: 1, 2: 0}}, f"{APC}.26.9.2.3.1.3", ""),
    "raritan": (
        "1.3.6.1.4.1.13742.6.4.1.2.1.3", 7, 8, {"1.3.6.1.4.1.13742.6.4.1.2.1.2": {1: 1, 0: 0}},
        "1.3.6.1.4.1.13742.6.3.5.3.1.3", "1.",
    ),
    "eaton-epdu": (
        "1.3.6.1.4.1.534.6.6.7.6.6.1.2", 1, 0,
        {"1.3.6.1.4.1.534.6.6.7.6.6.1.3": {0: 0}, "1.3.6.1.4.1.534.6.6.7.6.6.1.4": {0: 1}},
        "1.3.6.1.4.1.534.6.6.7.6.1.1.3", "0.",
    ),
    "servertech-sentry4": (
        "1.3.6.1.4.1.1718.4.1.8.3.1.1", 1, 0, {"1.3.6.1.4.1.1718.4.1.8.5.1.2": {1: 1, 2: 0}},
        "1.3.6.1.4.1.1718.4.1.8.2.1.3", "1.1.",
    ),
    "cyberpower": (
        "1.3.6.1.4.1.3808.1.1.3.3.5.1.1.4", 1, 2, {"1.3.6.1.4.1.3808.1.1.3.3.3.1.1.4": {1: 1, 2: 0}},
        "1.3.6.1.4.1.3808.1.1.3.3.3.1.1.2", "",
    ),
}  # fmt: skip
PENDING = {"eaton-epdu": 2}  #: what the status reads while a power-off is under way
status_oid, reads_on, reads_off, controls, name_oid, prefix = VENDORS[vendor]
pending: dict[int, tuple[float, int]] = {}


def content(name: str, default: str = "") -> str:
    try:
        return (folder / name).read_text()
    except OSError:
        return default


def state(outlet: int) -> int:
    if outlet in pending and time.time() >= pending[outlet][0]:
        store(outlet, pending.pop(outlet)[1])
    return int(content(f"outlet.{outlet}", "1") or 0)


def store(outlet: int, value: int) -> None:
    (folder / f"outlet.{outlet}").write_text(str(value))


def order(outlet: int, value: int) -> str:
    if (folder / "readonly").exists():
        return "not-writable"
    with (folder / "orders").open("a") as file:
        file.write(f"{outlet} {value}\n")
    if (folder / "stuck").exists():
        return "DONE"
    lag_s = float(content("lag", "0"))
    if lag_s:
        pending[outlet] = (time.time() + lag_s, value)
    else:
        pending.pop(outlet, None)
        store(outlet, value)
    return "DONE"


def key(oid: str) -> list[int]:
    return [int(part) for part in oid.split(".")]


def read(oid: str) -> tuple[str, object] | None:
    column, _, tail = oid.rpartition("." + prefix) if prefix else oid.rpartition(".")
    if not tail.isdigit() or not 1 <= int(tail) <= count:
        return None
    outlet = int(tail)
    if column == status_oid:
        now_on = state(outlet)
        if outlet in pending and vendor in PENDING:
            return "integer", PENDING[vendor]
        return "integer", reads_on if now_on else reads_off
    if column == name_oid:
        names = content("names").splitlines()
        return "string", names[outlet - 1] if outlet <= len(names) else f"Outlet {outlet}"
    if column in controls:
        meaning = controls[column]
        return "integer", next((written for written, means in meaning.items() if means == state(outlet)), -1)
    return None


def write(oid: str, kind: str, value: str) -> str:
    column, _, tail = oid.rpartition("." + prefix) if prefix else oid.rpartition(".")
    if column not in controls or read(oid) is None:
        return "not-writable"
    if kind != "integer":
        return "wrong-type"
    meaning = controls[column]
    return order(int(tail), meaning[int(value)]) if int(value) in meaning else "wrong-value"


ALL = sorted(
    (f"{column}.{prefix}{outlet}" for column in (status_oid, name_oid, *controls) for outlet in range(1, count + 1)),
    key=key,
)


def say(*lines: object) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def line() -> str:
    return sys.stdin.readline().strip()


while raw := sys.stdin.readline():  # empty lines come too, after a value
    command = raw.strip()
    if command == "PING":
        say("PONG")
    elif command in ("get", "getnext"):
        oid = line().lstrip(".")
        if command == "getnext":
            oid = next((known for known in ALL if key(known) > key(oid)), "")
        found = read(oid) if oid else None
        say("NONE") if found is None else say("." + oid, *found)
    elif command == "set":
        oid = line().lstrip(".")
        kind, _, value = line().partition(" ")
        say(write(oid, kind, value))
