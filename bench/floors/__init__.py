"""Programs in C, compiled when they are needed: the least that a measurement could cost, and what is asked in it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from bench.harness import ROOT, Missing

_FOLDER = ROOT / ".bench/floors"


def build(name: str) -> Path:
    """Compile `name.c` unless that was done. Raises Missing: there is no compiler."""
    source, program = Path(__file__).with_name(f"{name}.c"), _FOLDER / name
    if program.exists() and program.stat().st_mtime > source.stat().st_mtime:
        return program
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise Missing("gcc")
    _FOLDER.mkdir(parents=True, exist_ok=True)
    fresh = program.with_suffix(".new")
    subprocess.run([compiler, "-O2", "-Wall", "-o", fresh, source], check=True, timeout=60)
    fresh.replace(program)
    return program
