"""The protocol is safe and live in every state of its model, every naive variant is not, and the pages say so."""

from __future__ import annotations

import ast
import re
from dataclasses import fields, replace
from functools import cache

import pytest

from protocol_model import oned_store, report
from protocol_model.checker import Checker
from protocol_model.protocol import Faults, Protocol, Rules, World
from protocol_model.report import (
    ALL_WORLDS,
    LIMITS,
    PAGE,
    RIGHT,
    ROOT,
    SPARE,
    STORE_LIMIT,
    STORE_VARIANTS,
    STORES,
    VARIANTS,
    WORLDS,
    beyond,
    look,
    naive,
    naive_store,
    right,
    right_store,
)

PROTOCOL = ROOT / "docs" / "protocol.md"
INVARIANTS = {"S1", "S2", "S3", "D1", "D2", "G2", "L0", "L1"}


@pytest.mark.parametrize("world", ALL_WORLDS)
def test_the_protocol_is_safe_and_live_in_every_state(world: str):
    result = right()[world]
    assert (result.broken, result.story) == ("", ())
    assert result.states > 10_000  # a model that stands still is safe, too


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_a_naive_variant_breaks_what_its_rule_is_for(variant: report.Variant):
    assert naive()[variant.name].broken == variant.breaks


@pytest.mark.parametrize("limit", LIMITS)
def test_what_the_protocol_relies_on_is_needed(limit: str):
    assert beyond()[limit].broken == LIMITS[limit][2]


@pytest.mark.parametrize("rule", SPARE)
def test_a_spare_rule_is_not_needed_in_the_model(rule: str):
    assert look(WORLDS["flapping"], replace(RIGHT, **{rule: False})).broken == ""


def test_every_invariant_is_broken_by_some_variant():
    assert {result.broken for result in naive().values()} | {
        result.broken for result in beyond().values()
    } == INVARIANTS


def test_every_rule_is_switched_off_somewhere():
    tried = [variant.rules for variant in VARIANTS] + [rules for _, rules, _ in LIMITS.values()]
    never = [rule.name for rule in fields(Rules) if all(getattr(rules, rule.name) for rules in tried)]
    assert never == []


def test_every_fault_happens_in_some_world():
    assert all(any(kind) for kind in zip(*WORLDS.values(), strict=True))


def test_the_model_goes_all_the_way():
    told = frozenset().union(*(result.rules for result in right().values()))
    ends = [
        "moving._recovered",
        "rejoin.unfence",
        "commands._release",
        "vms.not_as_decided",
        "takeover.why_foreign",
        "handover.take_over",
    ]
    assert [end for end in ends if not any(end in each for each in told)] == []


# --- the record in OpenNebula ---


@pytest.mark.parametrize("world", STORES)
def test_the_record_in_opennebula_has_what_was_ordered_in_every_state(world: str):
    result = right_store()[world]
    assert (result.broken, result.story) == ("", ())
    assert result.states > 10_000


@pytest.mark.parametrize(("name", "breaks"), [(each[0], each[3]) for each in STORE_VARIANTS] + [STORE_LIMIT])
def test_a_record_written_otherwise_is_older_torn_or_lost(name: str, breaks: str):
    assert naive_store()[name].broken == breaks


def test_every_rule_of_the_record_is_switched_off_somewhere():
    assert {rule for _, rule, _, _ in STORE_VARIANTS} == {rule.name for rule in fields(oned_store.Rules)}


def test_every_fault_of_the_record_happens_in_some_world():
    happens = {name for given in STORES.values() for name, times in given._asdict().items() if times}
    assert happens | {"put_back"} == set(oned_store.Faults._fields)  # that one is beyond it


def test_the_model_of_the_record_goes_all_the_way():
    told = frozenset().union(*(result.rules for result in right_store().values()))
    ends = ["and goes on", "a person is asked", "is refused", "is carried out", "the order leaves", "is given up"]
    assert [end for end in ends if not any(end in each for each in told)] == []


# --- the checker ---


def _count(first: int, steps: dict[int, list[int]], goal: int) -> Checker[int]:
    return Checker(
        first=first,
        steps=lambda state: ((f"to {after}", after, "") for after in steps[state]),
        broken=lambda state: "X" if state == 9 else "",
        goal=lambda state: state == goal,
    )


def test_the_checker_finds_the_shortest_story():
    result = _count(0, {0: [1, 3], 1: [2], 2: [9], 3: [9]}, goal=0).run()
    assert (result.broken, result.story) == ("X", ("to 3", "to 9"))


def test_the_checker_finds_a_circle_that_leads_nowhere():
    result = _count(0, {0: [1, 4], 1: [2], 2: [1], 4: [4]}, goal=4).run()
    assert (result.broken, result.story, result.states) == ("L1", ("to 1",), 4)


def test_the_checker_is_content_when_every_state_leads_to_the_goal():
    result = _count(0, {0: [1, 4], 1: [2], 2: [1, 4], 4: [4]}, goal=4).run()
    assert (result.broken, result.states) == ("", 4)


def test_a_world_without_faults_stays_as_it_is():
    steps = [told for told, _, _ in Protocol(RIGHT).steps(World(faults=Faults()))]
    assert steps == ["time passes", "C1 takes the lead, term 1 (takeover.lead_changed)"]


# --- the pages ---


@cache
def functions() -> frozenset[str]:
    """Of the production code: path::name, path::Class.name, and module.name, Class.name as the stories have them."""
    found: set[str] = set()
    for path in ROOT.glob("ha_controller/**/*.py"):
        for node in ast.parse(path.read_text()).body:
            inside = node.body if isinstance(node, ast.ClassDef) else [node]
            for each in inside:
                if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef):
                    within = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
                    found |= {
                        f"{path.relative_to(ROOT)}::{within}{each.name}",
                        f"{within or f'{path.stem}.'}{each.name}",
                    }
    return frozenset(found)


def test_the_steps_are_named_like_functions_that_exist():
    told = frozenset().union(*(result.rules for result in (*right().values(), *right_store().values())))
    named = {name for each in told for name in re.findall(r"\(([\w.]+)\)$", each)}
    assert len(named) > 15
    assert named - functions() == set()


def test_every_rule_of_the_page_names_functions_that_exist():
    rows = re.findall(r"^\| (\d+) \|.*\| ([^|]*) \|$", PROTOCOL.read_text(), re.M)
    assert [int(number) for number, _ in rows] == list(range(1, len(rows) + 1))
    named = {number: re.findall(r"`([\w/.]+\.py::[\w.]+)`", code) for number, code in rows}
    assert all(named.values())
    assert {name for names in named.values() for name in names} - functions() == set()


def test_every_rule_of_the_page_but_the_spare_ones_has_a_variant():
    page = PROTOCOL.read_text()
    numbers = {int(number) for number in re.findall(r"^\| (\d+) \|", page, re.M)}
    spare = {int(number) for number in re.findall(r"^\| (\d+) \| \(spare\)", page, re.M)}
    assert numbers - spare == {variant.rule for variant in VARIANTS}


def test_the_page_of_results_is_up_to_date():
    assert PAGE.read_text() == report.page(), "make model ARGS=--accept"


def test_the_page_of_the_protocol_explains_the_invariants_and_counts_right():
    page = PROTOCOL.read_text()
    assert all(f"| {name} |" in page for name in INVARIANTS | {"R1", "R2"})
    assert f"{sum(result.states for result in right().values()):,}" in page
    assert f"{sum(result.states for result in right_store().values()):,}" in page
