"""Every kept input and every seed at its door again: nothing but what may come out, soon, and in little memory.

The corpora hold what once went wrong and what reached code that the seeds do not. New findings: `make fuzz`.
"""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path

import pytest

from .targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
INPUT_TIMEOUT_S = 2.0
MEMORY_MAX_BYTES = 64 << 20


def inputs_of(name: str) -> dict[str, bytes]:
    kept = {path.name: path.read_bytes() for path in sorted((CORPUS / name).glob("*"))}
    return {**{f"seed {number}": seed for number, seed in enumerate(TARGETS[name].seeds)}, **kept}


@pytest.mark.parametrize("name", TARGETS)
def test_every_kept_input_is_handled_soon_and_in_little_memory(name):
    TARGETS[name].run(TARGETS[name].seeds[0])  # what is built once costs once
    tracemalloc.start()
    try:
        for title, data in inputs_of(name).items():
            tracemalloc.reset_peak()
            before, began_at = tracemalloc.get_traced_memory()[0], time.perf_counter()
            TARGETS[name].run(data)
            took_s, peak = time.perf_counter() - began_at, tracemalloc.get_traced_memory()[1] - before
            assert took_s < INPUT_TIMEOUT_S, title
            assert peak < MEMORY_MAX_BYTES, title
    finally:
        tracemalloc.stop()


def test_every_corpus_belongs_to_a_door():
    assert {path.name for path in CORPUS.iterdir()} <= set(TARGETS)
