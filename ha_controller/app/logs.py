"""Logging: structlog over the standard library, one pipeline for us and the libraries. Never a secret in a line."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog

from ha_controller.showable import without_escapes

_NOISY = ("asyncssh", "aiohttp.access", "pyghmi")


def set_up_logging(*, level: str, format_name: str) -> None:
    """Set up the process's logging. `format_name`: auto, console, logfmt or json; auto: console on a terminal."""
    chosen = format_name if format_name != "auto" else ("console" if sys.stderr.isatty() else "logfmt")
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=chosen != "console"),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _unescaped,
                _renderer(chosen),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)


def _unescaped(_: object, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The last door before a terminal: names and answers of others are in the values, and must not steer it."""
    for key, value in line.items():
        # the one value of several lines
        line[key] = without_escapes(str(value)) if key == "exception" else _plain(value)
    return line


def _plain(value: Any) -> Any:
    if isinstance(value, bool | int | float | None):
        return value
    if isinstance(value, Mapping):
        return {_plain(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(each) for each in value]
    return without_escapes(str(value)).replace("\n", " ")


def _renderer(chosen: str) -> Any:
    if chosen == "json":
        return structlog.processors.JSONRenderer()
    if chosen == "logfmt":
        return structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"], drop_missing=True)
    return structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
