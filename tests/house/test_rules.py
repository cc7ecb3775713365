"""Rules of the house that a machine can check."""

from __future__ import annotations

import ast
import re
from functools import cache
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


def lines_of(name: str) -> list[str]:
    return (ROOT / name).read_text().splitlines()


@cache
def nodes() -> tuple[tuple[str, ast.AST], ...]:
    return tuple((name_of(path), node) for path in OURS for node in ast.walk(ast.parse(path.read_text())))


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


def catches_everything(node: ast.AST) -> bool:
    """Whether it is an `except` or a `suppress` of everything: bare, by its name, or by one among others."""
    match node:
        case ast.ExceptHandler(type=None):
            return True
        case ast.ExceptHandler(type=caught):
            caughts = caught.elts if isinstance(caught, ast.Tuple) else [caught]
        case ast.Call(func=ast.Name(id="suppress") | ast.Attribute(attr="suppress"), args=caughts):
            pass
        case _:
            return False
    return any(ast.unparse(each).removeprefix("builtins.") in ("Exception", "BaseException") for each in caughts)


def test_everything_is_caught_at_the_borders_only_and_says_why():
    everything = {(name, node.lineno) for name, node in nodes() if catches_everything(node)}
    assert {name for name, _ in everything} == BORDERS
    silent = [f"{name}:{line}" for name, line in sorted(everything) if "  # " not in lines_of(name)[line - 1]]
    assert silent == []


@pytest.mark.parametrize(
    ("text", "all_of_it"),
    [
        ("try: f()\nexcept: g()", True),
        ("try: f()\nexcept Exception: g()", True),
        ("try: f()\nexcept builtins.BaseException: g()", True),
        ("try: f()\nexcept (ValueError, Exception): g()", True),
        ("try: f()\nexcept* (Exception, KeyError): g()", True),
        ("with contextlib.suppress(OSError, Exception): f()", True),
        ("try: f()\nexcept (ValueError, OSError): g()", False),
        ("with suppress(OSError): f()", False),
        ("print(Exception)", False),
    ],
)
def test_every_form_of_catching_everything_is_seen(text: str, all_of_it: bool):
    assert any(map(catches_everything, ast.walk(ast.parse(text)))) == all_of_it


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
