"""Rules of the house that a machine can check."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ha_controller.core.machine import TABLE

ROOT = Path(__file__).parents[2]
OURS = sorted([*ROOT.glob("ha_controller/**/*.py"), *ROOT.glob("plugins/*/ha_controller_*/*.py")])
LINES_MAX, FUNCTION_LINES_MAX = 400, 50
#: the borders where any exception becomes a value and a logged traceback
BORDERS = {
    "ha_controller/adapters/arbiter/leadership.py", "ha_controller/adapters/controllers.py",
    "ha_controller/adapters/fencer/switch.py", "ha_controller/adapters/http_api/server.py",
    "ha_controller/adapters/journal.py",
    "ha_controller/adapters/notifier.py", "ha_controller/adapters/plugins.py",
    "ha_controller/adapters/prober/channel.py", "ha_controller/adapters/prober/scheduler.py",
    "ha_controller/app/armory.py", "ha_controller/app/black_box.py", "ha_controller/app/counting.py",
    "ha_controller/app/hints.py", "ha_controller/app/reserve.py", "ha_controller/app/runtime.py",
    "ha_controller/app/warming.py", "ha_controller/app/watching.py",
    "ha_controller/config/loader.py",
    "ha_controller/sim/oned_server.py", "ha_controller/testing/tools.py",
    "ha_controller/testing/probe_tools.py",
    "ha_controller/process.py",
    "plugins/ipmi/ha_controller_ipmi/rmcp.py",
    "plugins/ipmi/ha_controller_ipmi/session.py",
}  # fmt: skip


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def nodes() -> Iterator[tuple[str, ast.AST]]:
    for path in OURS:
        for node in ast.walk(ast.parse(path.read_text())):
            yield name_of(path), node


def test_files_stay_short():
    long = {name_of(path) for path in OURS if path.read_text().count("\n") > LINES_MAX}
    assert long == set()


def test_functions_stay_short():
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    functions = [(name, node) for name, node in nodes() if isinstance(node, kinds)]
    long = [f"{name}: {each.name}" for name, each in functions if each.end_lineno - each.lineno >= FUNCTION_LINES_MAX]
    assert long == []


def test_tasks_live_in_task_groups():
    loose = ("create_task", "ensure_future", "gather")
    assert [name for name, node in nodes() if isinstance(node, ast.Attribute) and node.attr in loose] == []


def test_everything_is_caught_at_the_borders_only():
    everything = {
        name
        for name, node in nodes()
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or (isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException")))
    }
    assert everything <= BORDERS


def test_every_page_and_folder_that_is_named_exists():
    texts = [*OURS, *ROOT.glob("docs/**/*.md"), ROOT / "README.md"]
    missing = [
        f"{name_of(path)}: {named}"
        for path in texts
        for named in re.findall(r"\bdocs/[\w/.-]+\.md", path.read_text())
        if not (ROOT / named).exists()
    ]
    assert missing == []


@pytest.mark.parametrize("path", OURS, ids=name_of)
def test_nothing_of_the_design_notes_is_cited(path):
    """They are not part of the project: a reader could not follow."""
    assert "design.md" not in path.read_text()


def test_the_documented_transitions_are_the_table():
    """docs/architecture.md lists every change of state that the table knows, and no other."""
    page = (ROOT / "docs/architecture.md").read_text()
    documented = set(re.findall(r"^\| `(\w+)` \| ([^|`]+) \| `(\w+)` \|$", page, re.M))
    table = {
        (before.value, trigger.value, after.value)
        for before, row in TABLE.items()
        for trigger, after in row.items()
        if after is not before
    }
    assert documented == table
