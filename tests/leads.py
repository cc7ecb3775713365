"""For tests of what only a leader may do."""

from __future__ import annotations


async def always(term: int | None) -> bool:
    """Stands in for the proof of the lead where it is not what the test is about."""
    del term
    return True
