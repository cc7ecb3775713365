"""Runs one side of a measurement: `python -m bench.side MODULE:FUNCTION JSON`; prints what that returns."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import sys


def main() -> None:
    """Call the function and print its sample as the last line."""
    module, _, name = sys.argv[1].partition(":")
    found = getattr(importlib.import_module(module), name)(**json.loads(sys.argv[2]))
    sample = asyncio.run(found) if inspect.iscoroutine(found) else found
    print(json.dumps(sample))


if __name__ == "__main__":
    main()
