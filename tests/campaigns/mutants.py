"""Mutation testing of the core: mutmut's mutants, each in the place of its function, in a process with all tests.

make mutants [ARGS="--only fencing lever --budget 4"]      # hours; a run that was ended goes on where it was

What mypy sees is left out, and so are sentences for people. Of the tests that reach the changed line those run first
that reach what few others reach in that module, until one fails or `--budget` seconds of the processor are over.
`.mutants` holds the mutated sources, what mypy says of them, which test reaches which line (coverage), and a line for
each mutant in results.PART.jsonl: killed; survived, with how many of its tests were run; or reached by no test.

mutmut alone starts anew, for each mutant, all tests that reach its function: some days of one processor for this core.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import gc
import json
import os
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest

SURVIVED, KILLED, NOT_PLACED = 0, 1, 3  #: how a child ends
WORDS = {SURVIVED: "survived", KILLED: "killed", NOT_PLACED: "not placed"}
TYPES = {
    "arg-type",
    "call-arg",
    "call-overload",
    "union-attr",
    "assignment",
    "operator",
    "return-value",
    "index",
    "return",
}
MANGLED = re.compile(r"^x(?:ǁ(?P<cls>\w+)ǁ)?_?(?P<name>\w+?)__mutmut_(?P<number>\d+|orig)$")


@dataclass(frozen=True)
class Mutant:
    """One change of one function; `line` is that of the file as it is."""

    module: str
    function: str
    number: int
    line: int
    before: str
    after: str
    source: str

    @property
    def key(self) -> str:
        """Its name in the results."""
        return f"{self.module}:{self.function}:{self.number}"


def mutate(root: Path, work: Path, files: list[Path]) -> list[Mutant]:
    """All mutants that mypy does not see and that are no sentence; writes the mutated tree to WORK/tree."""
    from mutmut.mutation.file_mutation import mutate_file_contents

    tree = work / "tree"
    if not tree.exists():
        shutil.copytree(root / "ha_controller", tree / "ha_controller")
        shutil.copy(root / "pyproject.toml", tree)
        for file in files:
            made = mutate_file_contents(str(file), (root / file).read_text())
            (tree / file).write_text(made.code)
    seen = _what_mypy_sees(tree, work)
    mutants = []
    for file in files:
        mutants += _of_file(root, tree, file, seen.get(str(file), set()))
    return mutants


def _what_mypy_sees(tree: Path, work: Path) -> dict[str, set[int]]:
    report = work / "mypy.txt"
    if not report.exists():
        done = subprocess.run(
            [sys.executable, "-m", "mypy", "ha_controller/core", "--no-error-summary", "--hide-error-context"],
            cwd=tree, env={**os.environ, "PYTHONPATH": ""}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        report.write_text(done.stdout + done.stderr)
    seen: dict[str, set[int]] = defaultdict(set)
    for line in report.read_text().splitlines():
        match = re.match(r"(\S+\.py):(\d+)(?::\d+)?: error.*\[([a-z-]+)\]$", line)
        if match and match[3] in TYPES:
            seen[match[1]].add(int(match[2]))
    return seen


def _of_file(root: Path, tree: Path, file: Path, seen: set[int]) -> list[Mutant]:
    text = (tree / file).read_text()
    lines = text.splitlines()
    originals, made = {}, []
    for owner, node in _functions(ast.parse(text)):
        match = MANGLED.match(node.name)
        if match is None:
            continue
        first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
        source = textwrap.dedent("\n".join(lines[first - 1 : node.end_lineno]))
        number = match["number"]
        plain = node.name[: node.name.rindex("__mutmut_")]
        qualname = f"{owner}.{plain.split('ǁ')[-1]}" if owner else plain.removeprefix("x_")
        source = source.replace(node.name, qualname.rsplit(".")[-1], 1)
        span = range(first, (node.end_lineno or first) + 1)
        if number == "orig":
            originals[qualname] = source
        else:
            made.append((qualname, int(number), source, not seen.isdisjoint(span)))
    begins = {}
    for owner, node in _functions(ast.parse((root / file).read_text())):
        name = f"{owner}.{node.name}" if owner else node.name
        begins[name] = min([node.lineno, *(each.lineno for each in node.decorator_list)])
    module = ".".join(file.with_suffix("").parts)
    found = []
    for qualname, number, source, typed in made:
        before, after, offset = _difference(originals[qualname], source)
        if typed or _is_sentence(before, after):
            continue
        found.append(Mutant(module, qualname, number, begins[qualname] + offset, before, after, source))
    return found


def _functions(tree: ast.Module) -> list[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    found: list[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]] = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.append(("", node))
        elif isinstance(node, ast.ClassDef):
            found += [
                (node.name, each) for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
            ]
    return found


def _difference(before: str, after: str) -> tuple[str, str, int]:
    old, new = before.splitlines(), after.splitlines()
    for tag, i1, i2, j1, j2 in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag != "equal":
            return "\n".join(old[i1:i2]).strip(), "\n".join(new[j1:j2]).strip(), i1
    return "", "", 0


def _is_sentence(before: str, after: str) -> bool:
    """A change of case or XX around a text that has a space in it, or stands in a formatted one."""
    if before.lower() == after.lower() or after.replace("XX", "") == before.replace("XX", ""):
        texts = re.findall(r'"([^"]*)"', before)
        return any(" " in text for text in texts)
    return False


def put_in_place(mutant: Mutant) -> bool:
    """Change the code of the function itself, so that everybody who has it calls the mutant."""
    module = import_module(mutant.module)
    owner, _, name = mutant.function.rpartition(".")
    target: Any = vars(getattr(module, owner))[name] if owner else getattr(module, name)
    if isinstance(target, staticmethod | classmethod):
        target = target.__func__
    if not isinstance(target, FunctionType):
        return False
    text = mutant.source
    if owner:
        text = f"class {owner}:\n" + textwrap.indent(text, "    ")
    code = compile("from __future__ import annotations\n" + text, module.__file__ or "", "exec")
    found = _code_of(code, name)
    if found is None or found.co_freevars != target.__code__.co_freevars:
        return False
    target.__code__ = found
    defaults = _defaults(mutant.source, vars(module))
    if defaults is not None:
        target.__defaults__, target.__kwdefaults__ = defaults
    return True


def _defaults(source: str, names: dict[str, Any]) -> tuple[Any, Any] | None:
    node = ast.parse(source).body[0]
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    if not node.args.defaults and not any(node.args.kw_defaults):
        return None
    node.body, node.decorator_list, node.returns = [ast.Pass()], [], None
    scope = dict(names)
    exec(compile(ast.fix_missing_locations(ast.Module([node], [])), "defaults", "exec"), scope)
    made = scope[node.name]
    return made.__defaults__, made.__kwdefaults__


def _code_of(code: CodeType, name: str) -> CodeType | None:
    for each in code.co_consts:
        if isinstance(each, CodeType):
            if each.co_name == name:
                return each
            if (inner := _code_of(each, name)) is not None:
                return inner
    return None


def reached(database: Path, root: Path) -> dict[str, dict[int, set[str]]]:
    """Module to line to the tests that reach it."""
    from coverage.numbits import numbits_to_nums

    link = sqlite3.connect(database)
    contexts = {number: text.removesuffix("|run") for number, text in link.execute("select id, context from context")}
    by_line: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    rows = link.execute("select path, context_id, numbits from line_bits join file on file.id = file_id")
    for path, context, bits in rows:
        module = ".".join(Path(path).relative_to(root).with_suffix("").parts)
        if (test := contexts[context]) and not test.endswith(("|setup", "|teardown")):
            for line in numbits_to_nums(bits):
                by_line[module][line].add(test)
        elif test:
            for line in numbits_to_nums(bits):
                by_line[module][line].add(test.rsplit("|", 1)[0])
    return by_line


def durations(log: Path) -> dict[str, float]:
    """Seconds of each test, from --durations=0."""
    found: dict[str, float] = defaultdict(lambda: 0.004)
    for line in log.read_text().splitlines():
        if match := re.match(r"\s*([\d.]+)s (?:call|setup)\s+(\S.*)$", line):
            found[match[2]] += float(match[1])
    return found


class Run:
    """A plugin of pytest that forks for each mutant instead of running the tests."""

    def __init__(self, args: argparse.Namespace, root: Path) -> None:
        self.args, self.root = args, root
        self.kills: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """All mutants, one after the other."""
        items = {item.nodeid: item for item in session.items}
        files = sorted(each.relative_to(self.root) for each in (self.root / "ha_controller/core").rglob("*.py"))
        mutants = mutate(self.root, self.args.work, files)
        tests = reached(self.args.work / "cov.db", self.root)
        takes = durations(self.args.work / "cov.log")
        rare: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        for module, lines in tests.items():
            for names in lines.values():
                for name in names:
                    rare[module][name] += 1 / len(names)
        part, parts = map(int, self.args.part.split("/"))
        out = self.args.work / f"results.{part}.jsonl"
        done = self._done(out)
        if self.args.only:
            of = {name: [each for each in mutants if each.module.endswith("." + name)] for name in self.args.only}
            mutants = [each for name in self.args.only for each in of[name]]
        mutants = [each for index, each in enumerate(mutants) if index % parts == part]
        gc.collect()
        gc.freeze()
        gc.disable()
        with out.open("a") as file:
            for index, mutant in enumerate(mutants):
                if mutant.key in done:
                    continue
                names = [name for name in tests[mutant.module].get(mutant.line, ()) if name in items]
                about = rare[mutant.module]
                killers = self.kills[mutant.module + mutant.function]
                names.sort(key=lambda name: (-killers[name], -about[name] / (takes[name] + 0.05)))
                begun = time.monotonic()
                result, ran, killer = self._fork(mutant, [items[name] for name in names], takes)
                if killer:
                    killers[killer] += 1
                line = {key: value for key, value in asdict(mutant).items() if key != "source"}
                line |= {"key": mutant.key, "result": result, "tests": len(names), "ran": ran, "killer": killer,
                         "budget": self.args.budget, "seconds": round(time.monotonic() - begun, 2)}  # fmt: skip
                file.write(json.dumps(line) + "\n")
                file.flush()
                if index % 50 == 0:
                    print(f"{index}/{len(mutants)} {mutant.key} {result}", flush=True)
        return True

    def _done(self, out: Path) -> set[str]:
        """Whose result stands. What survived for want of time is run again if there is more of it."""
        lines = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
        last = {line["key"]: line for line in lines}
        return {
            key
            for key, line in last.items()
            if line["result"] != WORDS[SURVIVED]
            or line["ran"] >= line["tests"]
            or line.get("budget", 0) >= self.args.budget
        }

    def _fork(self, mutant: Mutant, tests: list[pytest.Item], takes: dict[str, float]) -> tuple[str, int, str]:
        if not tests:
            return "no test", 0, ""
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            self._in_child(mutant, tests, takes, write)
        os.close(write)
        said = b""
        while piece := os.read(read, 4096):
            said += piece
        os.close(read)
        _, status = os.waitpid(child, 0)
        ran = said.count(b".")
        if os.WIFSIGNALED(status):
            return "timed out", ran, tests[ran].nodeid if ran < len(tests) else ""
        code = os.WEXITSTATUS(status)
        return WORDS[code], ran, tests[ran].nodeid if code == KILLED else ""

    def _in_child(self, mutant: Mutant, tests: list[pytest.Item], takes: dict[str, float], write: int) -> None:
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 1)
        os.dup2(null, 2)
        resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        try:
            if not put_in_place(mutant):
                os._exit(NOT_PLACED)
            from _pytest.runner import runtestprotocol

            for index, item in enumerate(tests):
                if index and time.process_time() > self.args.budget:
                    break
                signal.setitimer(signal.ITIMER_PROF, 3.0 + 10 * takes[item.nodeid])
                reports = runtestprotocol(item, log=False, nextitem=None)
                if any(report.failed for report in reports):
                    os._exit(KILLED)
                os.write(write, b".")
            os._exit(SURVIVED)
        except BaseException:
            os._exit(KILLED)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("work", type=Path, help="a folder with cov.db and cov.log, as `make mutants` makes it")
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--budget", type=float, default=4.0, help="CPU seconds of tests for one mutant")
    parser.add_argument("--part", default="0/1", help="which of how many processes this is")
    args = parser.parse_args()
    args.work = args.work.resolve()
    root = Path.cwd()
    sys.exit(pytest.main(["-q", "tests/core", "tests/scenarios", "-p", "no:cacheprovider"], plugins=[Run(args, root)]))


if __name__ == "__main__":
    main()
