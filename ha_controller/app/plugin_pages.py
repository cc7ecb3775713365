"""What a person wants to know of a plugin before using it, and the skeleton of a new one."""

from __future__ import annotations

import inspect
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ha_controller.adapters.plugins import find_plugins
from ha_controller.plugin import Capability


class BadName(Exception):
    """The name of a new plugin cannot be used; the text says why."""


def show_plugin(kind: str, variant: str | None = None) -> dict[str, Any] | None:
    """The settings and capabilities of a plugin's kind, or of a variant of it; None if there is none."""
    registry = find_plugins()
    agent, probe = registry.agents.get(kind), registry.probes.get(kind)
    if agent is not None:
        can = [str(each.name) for each in Capability if each in agent.capabilities]
        if variant is not None:
            found = agent.variant(variant)
            if found is None:
                return None
            return {"kind": f"{kind} {variant}", "what": "fence agent", "capabilities": can, **asdict(found)}
        page = _page(agent, agent.config_model)
        return {"kind": kind, "what": "fence agent", "capabilities": can, "variants": list(agent.variants()), **page}
    arbiter = registry.arbiters.get(kind)
    if arbiter is not None and variant is None:
        return {"kind": kind, "what": "arbiter", "capabilities": [], **_page(arbiter, arbiter.config_model)}
    notifier = registry.notifiers.get(kind)
    if notifier is not None and variant is None:
        return {"kind": kind, "what": "notifier", "capabilities": [], **_page(notifier, notifier.config_model)}
    if probe is not None and variant is None:
        return {"kind": kind, "what": "probe channel", "capabilities": [], **_page(probe, probe.config_model)}
    return None


def _page(plugin: type, model: type[BaseModel]) -> dict[str, Any]:
    schema = model.model_json_schema()
    required = schema.get("required", [])
    settings = [
        {
            "name": name,
            "type": _type(field),
            "required": name in required,
            "default": "" if field.get("default") is None else str(field["default"]),
            "text": field.get("description", ""),
        }
        for name, field in schema.get("properties", {}).items()
    ]
    summary = (inspect.getdoc(plugin) or "").split("\n")[0]
    return {"summary": summary, "settings": settings}


def _type(field: dict[str, Any]) -> str:
    if "enum" in field:
        return "|".join(map(str, field["enum"]))
    if field.get("format") == "password" or field.get("writeOnly"):
        return "secret"
    if "anyOf" in field:
        return "|".join(dict.fromkeys(_type(each) for each in field["anyOf"] if each.get("type") != "null"))
    return str(field.get("type", "table"))


def new_plugin(name: str, directory: Path) -> list[Path]:
    """Write a working skeleton of a fence agent with its conformance test; returns the files.

    Raises:
        BadName: no name for a plugin, or something of that name is there already.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise BadName(f'"{name}" is no name for an agent: use small letters, digits and single dashes')
    root = directory / f"ha-controller-{name}"
    if root.exists():
        raise BadName(f"{root} is there already")
    module = f"ha_controller_{name.replace('-', '_')}"
    written = []
    for template in sorted((Path(__file__).parent / "skeleton").glob("*.txt")):
        place = template.name.removesuffix(".txt").replace("+", "/").replace("MODULE", module)
        path = root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        text = template.read_text().replace("MODULE", module).replace("KIND", name)
        path.write_text(text.replace("CLASS", "".join(part.title() for part in name.split("-"))))
        written.append(path)
    return written
