"""Runs one side of a measurement: `python -m bench.side MODULE:FUNCTION JSON`; prints what that returns."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import os
import sys
from collections.abc import Coroutine
from typing import Any

from bench.harness import PEERS_PYTHON, UVLOOP


def main() -> None:
    """Call the function and print its sample as the last line."""
    module, _, name = sys.argv[1].partition(":")
    found = getattr(importlib.import_module(module), name)(**json.loads(sys.argv[2]))
    print(json.dumps(run(found) if inspect.iscoroutine(found) else found))


def run(found: Coroutine[Any, Any, Any]) -> Any:
    """On asyncio's own event loop, or on the one that is asked for."""
    if not os.environ.get(UVLOOP):
        return asyncio.run(found)
    sys.path += map(str, PEERS_PYTHON.parents[1].glob("lib/*/site-packages"))
    new_loop = importlib.import_module("uvloop").new_event_loop
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(found)


if __name__ == "__main__":
    main()
