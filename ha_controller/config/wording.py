"""What is said about keys and values that a configuration must not have, in the words of TOML."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

from pydantic_core import ErrorDetails

from ha_controller.config.model import Config, fields_at
from ha_controller.config.positions import Location


def about_unknown(key: str, near: list[str], known: Mapping[str, object], here: Location) -> str:
    """The remedy for an unknown key: what was meant, or where it belongs."""
    if near:
        return f'Did you mean "{near[0]}"?'
    sections = [section for section in fields_at(Config, ()) if key in fields_at(Config, (section,))]
    if len(here) <= 2 and key in fields_at(Config, ()):  # TOML has no way back to the top
        return "It belongs to the top of the file, before the first [table]"
    if len(here) <= 2 and len(sections) == 1:
        return f"It belongs into [{sections[0]}]"
    return f"Known here: {', '.join(sorted(known)) or 'none'}"


def told(details: ErrorDetails, value: object) -> tuple[str, str]:
    """What pydantic says, as message and remedy in the words of TOML."""
    match details["type"]:
        case "literal_error":
            expected = str(details["ctx"]["expected"])
            near = difflib.get_close_matches(str(value), re.findall(r"'([^']*)'", expected), n=1)
            return f"must be {expected}", f'Did you mean "{near[0]}"?' if near else ""
        case "tuple_type" if details["loc"] == ("fence",):
            return "must be a list of tables", "Write [[fence]], with two brackets"
        case "tuple_type" | "list_type":
            return "must be a list", 'Write it in brackets, like ["a", "b"]'
        case "model_type" | "model_attributes_type" | "dict_type":
            return "must be a table", ""
        case _:
            text = re.sub("^(Value error|Assertion failed), ", "", details["msg"]).replace("Input should", "must")
            message, _, remedy = text.replace("Tuple should", "must").partition(". ")
            return message, remedy


def about_zones(one: object) -> list[tuple[Location, str, str]]:
    """Where and why a configuration that names two OpenNebulas cannot be, and what helps; nothing if it does not."""
    inner = {key: value for key, value in one.items() if key != "auth"} if isinstance(one, dict) else {}
    several = [key for key, value in inner.items() if isinstance(value, list | dict)]
    if not isinstance(one, list) and not several:
        return []
    message = "names more than one OpenNebula, and a controller serves one zone"
    remedy = (
        "Each zone of a federation has its own hosts, VMs and leader: run a controller for each, with a configuration, "
        "a state directory and an OpenNebula user of its own"
    )
    return [(("opennebula", *several[:1]), message, remedy)]
