"""Reads Redfish documents (DMTF DSP0266, DSP2046): JSON objects in, plain values out. Pure functions, no I/O.

Whatever does not have the expected form is a `FenceError`, never a value that could be taken for "off".
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from ha_controller.plugin import FenceError, Identity, PowerState, one_line

Document = Mapping[str, Any]

RESET: Final = "#ComputerSystem.Reset"
ENDS_SOON: Final = timedelta(days=30)  #: of passwords and certificates
_UNSET_UUIDS: Final = frozenset({uuid.UUID(int=0), uuid.UUID(int=2**128 - 1)})
#: Everything but "Off" has power or may have. "PoweringOff" claims nothing: the order is on its way.
_POWER_STATES: Final = {
    "On": PowerState.ON,
    "PoweringOn": PowerState.ON,
    "Paused": PowerState.ON,
    "Off": PowerState.OFF,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ResetAction:
    """Where and how a system is reset."""

    target: str
    allowed: frozenset[str] | None  #: reset types; None when the document does not list them
    action_info: str | None  #: path of the document that lists them instead


def link(document: Document, *names: str) -> str:
    """Return the path in `NAME/@odata.id`.

    Raises:
        FenceError: it is not there, or leads to another machine.
    """
    found: Any = document
    for name in (*names, "@odata.id"):
        found = found.get(name) if isinstance(found, Mapping) else None
    return own_path(found, "/".join(names) or "link")


def own_path(written: object, what: str) -> str:
    """Return a path on the BMC itself; credentials are sent nowhere else.

    Raises:
        FenceError: it is none.
    """
    if not isinstance(written, str) or not written.startswith("/") or written.startswith("//"):
        raise FenceError(f"the BMC names no path of its own for {what}")
    return written


def member_paths(collection: Document) -> list[str]:
    """Return the paths of a collection's members."""
    members = collection.get("Members")
    if not isinstance(members, Sequence) or isinstance(members, str):
        raise FenceError("the BMC answered a collection without members")
    if "Members@odata.nextLink" in collection or collection.get("Members@odata.count", len(members)) != len(members):
        raise FenceError("the BMC shows only a part of a collection: nothing is guessed from it")
    return [link(member) for member in members if isinstance(member, Mapping)]


def power_of(system: Document) -> PowerState:
    """Return what `PowerState` says; a state that is not known here is UNKNOWN."""
    state = system.get("PowerState")
    return _POWER_STATES.get(state, PowerState.UNKNOWN) if isinstance(state, str) else PowerState.UNKNOWN


def identity_of(system: Document) -> Identity | None:
    """Return UUID and serial number of the system, None when it has neither."""
    serial = system.get("SerialNumber")
    named = Identity(
        system_uuid=_uuid(system.get("UUID")), serial=one_line(serial) or None if isinstance(serial, str) else None
    )
    return named if named.system_uuid or named.serial else None


def is_called(system: Document, name: str) -> bool:
    """Whether `name` is the system's UUID, serial number or Id."""
    written = {
        value.strip().lower() for key in ("UUID", "SerialNumber", "Id") if isinstance(value := system.get(key), str)
    }
    return name.strip().lower() in written - {""}


def reset_action(system: Document) -> ResetAction:
    """Return the system's reset action.

    Raises:
        FenceError: the system offers none.
    """
    actions = system.get("Actions")
    action = actions.get(RESET) if isinstance(actions, Mapping) else None
    if not isinstance(action, Mapping):
        raise FenceError("the system offers no ComputerSystem.Reset")
    info = action.get("@Redfish.ActionInfo")
    return ResetAction(
        target=own_path(action.get("target"), "ComputerSystem.Reset"),
        allowed=_words(action.get("ResetType@Redfish.AllowableValues")),
        action_info=None if info is None else own_path(info, "@Redfish.ActionInfo"),
    )


def allowed_reset_types(action_info: Document) -> frozenset[str] | None:
    """Return the reset types that an ActionInfo document lists; None when it lists none."""
    parameters = action_info.get("Parameters")
    for parameter in parameters if isinstance(parameters, list) else []:
        if isinstance(parameter, Mapping) and parameter.get("Name") == "ResetType":
            return _words(parameter.get("AllowableValues"))
    return None


def task_failure(task: Document) -> str | None:
    """Return why a task failed in the BMC's words; None while it runs, or when it went well."""
    if task.get("TaskState") not in ("Exception", "Killed", "Cancelled", "Interrupted"):
        return None
    return said(task) or str(task.get("TaskState"))


def is_running(task: Document) -> bool:
    """Whether a task goes on."""
    return task.get("TaskState") in ("New", "Pending", "Starting", "Running", "Service", "Stopping")


def said(document: object) -> str:
    """Return what the BMC says of an error, as it says it; empty when it says nothing."""
    if not isinstance(document, Mapping):
        return ""
    error = document.get("error")
    holders = [error, document] if isinstance(error, Mapping) else [document]
    for holder in holders:
        for key in ("@Message.ExtendedInfo", "Messages"):
            messages = holder.get(key)
            texts = [m.get("Message") for m in messages if isinstance(m, Mapping)] if isinstance(messages, list) else []
            if words := " ".join(text for text in texts if isinstance(text, str)):
                return words
    message = error.get("message") if isinstance(error, Mapping) else None
    return message if isinstance(message, str) else ""


def may_reset(role: Document) -> bool | None:
    """Whether a role may reset systems; None when it does not tell its privileges.

    POST to a ComputerSystem needs ConfigureComponents (Redfish privilege registry, DSP8011).
    """
    privileges = _words(role.get("AssignedPrivileges"))
    return None if privileges is None else "ConfigureComponents" in privileges


def password_trouble(account: Document, now: datetime) -> tuple[bool, str]:
    """Return whether the password still serves, and what there is to say of its age."""
    if account.get("PasswordChangeRequired") is True:
        return False, "the BMC demands a new password for the account"
    written = account.get("PasswordExpiration")
    if not isinstance(written, str):
        return True, ""
    try:
        ends = datetime.fromisoformat(written)
    except ValueError:
        return True, ""
    ends = ends if ends.tzinfo else ends.replace(tzinfo=UTC)
    if ends <= now:
        return False, f"the password expired on {ends:%Y-%m-%d}"
    return True, f"the password expires on {ends:%Y-%m-%d}" if ends - now < ENDS_SOON else ""


def _uuid(written: object) -> str | None:
    if not isinstance(written, str) or not written.isascii() or "_" in written:
        return None
    try:
        value = uuid.UUID(written)
    except ValueError:
        return None
    return None if value in _UNSET_UUIDS else str(value)


def _words(values: object) -> frozenset[str] | None:
    if not isinstance(values, list) or not values:
        return None
    return frozenset(value for value in values if isinstance(value, str))
