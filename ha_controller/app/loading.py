"""Finds the plugins and reads the configuration, checked as a whole: nothing is built or changed here."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from ha_controller.adapters.plugins import Registry, find_plugins
from ha_controller.config import Config, ConfigError, load
from ha_controller.config.positions import parse


def load_config(path: Path) -> tuple[Config, Registry]:
    """Find the plugins that the configuration names and read it. Blocks.

    All plugins together take a third of a start, and a quarter of its memory. Where something is wrong they are all
    looked at, so that what is said about it is about everything that is installed.

    Raises:
        ConfigError: with every problem found.
        PluginConflict: two distributions claim one kind.
    """
    named = _named(path)
    if named is not None:
        registry = find_plugins(only=named)
        try:
            return _load(path, registry), registry
        except ConfigError:
            pass
    registry = find_plugins()
    return _load(path, registry), registry


def _load(path: Path, registry: Registry) -> Config:
    return load(path, environ=os.environ, **registry.models())


def _named(path: Path) -> set[str] | None:
    """Every word of the configuration, among them the kinds; None: it cannot be read, which `load` tells."""
    try:
        texts = [file.read_text() for file in (path, *(path.parent / "conf.d").glob("*.toml"))]
        said = list(_strings([parse(text)[0] for text in texts]))
    except (OSError, ValueError):
        return None
    said += [value for name, value in os.environ.items() if name.startswith("HA_")]
    return {word for text in said for word in re.findall(r"[\w.-]+", text)}


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield key
            yield from _strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each)
