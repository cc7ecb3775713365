"""Placeholders in the settings of fence devices: `{ATTR}` stands for an attribute of the host in OpenNebula."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

_PLACEHOLDER: Final = re.compile(r"\{([A-Z][A-Z0-9_]*)\}")


class MissingAttribute(Exception):
    """A host lacks an attribute that a fence device's settings ask for."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the host has no attribute {name}")
        self.name = name


def has_placeholder(value: object) -> bool:
    """Whether a value is only known per host."""
    if isinstance(value, dict):
        return any(map(has_placeholder, value.values()))
    if isinstance(value, list):
        return any(map(has_placeholder, value))
    return isinstance(value, str) and _PLACEHOLDER.search(value) is not None


def is_placeholder(value: object) -> bool:
    """Whether a value is one placeholder and nothing else: the only text that may stand for a secret."""
    return isinstance(value, str) and _PLACEHOLDER.fullmatch(value) is not None


def filled(value: Any, attributes: Mapping[str, str]) -> Any:
    """Return a value with all placeholders in it replaced.

    Raises:
        MissingAttribute: a host has not this attribute, or has it empty.
    """
    if isinstance(value, dict):
        return {key: filled(inner, attributes) for key, inner in value.items()}
    if isinstance(value, list):
        return [filled(inner, attributes) for inner in value]
    if not isinstance(value, str):
        return value

    def attribute(match: re.Match[str]) -> str:
        if not (found := attributes.get(match[1])):
            raise MissingAttribute(match[1])
        return found

    return _PLACEHOLDER.sub(attribute, value)
