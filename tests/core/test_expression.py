"""Requirement expressions mean here what they mean to OpenNebula's scheduler, and what is unclear is refused."""

from __future__ import annotations

import re
import time

import pytest

from ha_controller.core.placement.expression import Unreadable, parse

HOST = {
    "ID": ["4"],
    "NAME": ["kvm-04"],
    "CLUSTER_ID": ["100"],
    "HYPERVISOR": ["kvm"],
    "ARCH": ["x86_64"],
    "CPUSPEED": ["3200"],
    "FREE_MEMORY": ["2147483648"],
    "LOAD": ["1.5"],
    "EMPTY": [""],
    "UNITS": ["12 GB"],
    "TAG": ["gold", "ssd"],
    "RACK/ROW": ["7"],
    "STARRED": ["a*b"],
}


def holds(text: str, vms: frozenset[int] = frozenset({5, 6})) -> bool:
    return parse(text).holds(lambda name: HOST.get(name, []), vms)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "ID = 4",
        "ID=4",
        "ID != 5",
        "ID > 3",
        "ID < 5",
        "ID > -1",
        'ID = "4"',
        "HYPERVISOR = kvm",
        'HYPERVISOR = "kvm"',
        'NAME = "kvm-*"',
        'NAME = "kvm-0?"',
        'NAME = "kvm-0[1-4]"',
        'NAME = "kvm-0[!1-3]"',
        'NAME = "kvm-0[^1-3]"',
        'NAME != "web*"',
        r'STARRED = "a\*b"',
        "LOAD > 1.4",
        "LOAD = 1.5",
        "LOAD < 2.0",
        "LOAD = 1",  # an integer is compared with the integer at the beginning
        "UNITS = 12",
        "UNITS > 11.5",
        'EMPTY = "*"',
        'TAG @> "ssd"',
        'TAG = "gold"',  # the first one decides
        '"ID" @> 4',
        '"RACK/ROW" = 7',
        "CURRENT_VMS = 5",
        "CURRENT_VMS != 7",
        "!(PIN_POLICY = PINNED)",
        "(CLUSTER_ID = 100) & !(PUBLIC_CLOUD = YES) & !(PIN_POLICY = PINNED)",
        "(CLUSTER_ID = 0 | CLUSTER_ID = 100)",
        "!!ID = 4",
        "!ID = 5 & ID = 4",
        "ID = 4;",
        "ID = 4\n  & ARCH = x86_64",
    ],
)
def test_met(text):
    assert holds(text)


@pytest.mark.parametrize(
    "text",
    [
        "ID = 5",
        "NOSUCH = 1",
        "NOSUCH != 1",  # not there: neither equal nor unequal
        "NOSUCH > 1",
        'NOSUCH @> "x"',
        "HYPERVISOR = 1",  # no number
        "HYPERVISOR != 1",
        'NAME = "KVM-04"',
        'NAME = "kvm"',
        r'NAME = "kvm-0\[4]"',
        'STARRED = "ab"',
        r'STARRED = "a\?b"',
        'NAME = ""',
        'NAME != ""',  # the empty string matches nothing
        'EMPTY = ""',
        'TAG @> "bronze"',
        "FREE_MEMORY > 1",  # does not fit a C++ int: it is as if it were not there
        "CURRENT_VMS = 7",
        "CURRENT_VMS != 5",
        "!(ID = 4)",
        "ID = 4 & ID = 5",
        "ID = 5 | ID = 6",
        "ID = 4 | ID = 4 & ID = 5",  # one precedence, from the left: (a | b) & c
        "!ID = 4 | ID = 5",
        "!(NOSUCH = 1) & ID = 5",
    ],
)
def test_not_met(text):
    assert not holds(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("ID", "column 3: expected =, !=, <, > or @>"),
        ("= 4", "column 1: expected an attribute"),
        ("ID = ", "column 6: expected a value"),
        ("ID = 4 &", "column 9: expected an attribute"),
        ("ID = 4 ID = 5", "column 8: expected & or |"),
        ("(ID = 4", "column 8: expected &, | or a closing parenthesis"),
        ("ID = 4)", "column 7: expected & or |"),
        ("ID => 4", "column 5: expected a value"),
        ("ID >= 4", "column 5: expected a number"),
        ("ID == 4", "column 5: expected a value"),
        ("ID = 4 && ID = 5", "column 9: expected an attribute"),
        ('NAME > "a"', "column 8: expected a number"),
        ("NAME =~ kvm", "column 7: a character that is no part"),  # OpenNebula skips ~ in silence
        ("NAME = 'kvm'", "column 8: a character that is no part"),
        ('NAME = "kvm', "column 8: a character that is no part"),
        ("ID = 1.", "column 7: a character that is no part"),
        ("ID = 99999999999", "column 6: a number that OpenNebula cannot hold"),
        ("CURRENT_VMS > 5", "column 15: CURRENT_VMS can only"),
        ('CURRENT_VMS = "5"', "CURRENT_VMS can only"),
        ("CURRENT_VMS @> 5", "CURRENT_VMS can only"),
        ('"" = 1', "a path that is not followed"),
        ('"/HOST/ID" = 4', "a path that is not followed"),
        ('"HOST_SHARE/MAX_CPU" > 4', "a path that is not followed"),
        ('"//*" = 4', "a path that is not followed"),
        (r'NAME = "kvm\"', "a pattern that is not understood"),
        ('NAME = "[[:alpha:]]*"', "a pattern that is not understood"),
        ("(" * 60 + "ID = 4" + ")" * 60, "nested deeper than"),
        ("!" * 60 + "ID = 4", "nested deeper than"),
        ("ID = 4 & " * 3000 + "ID = 4", "longer than"),
    ],
)
def test_what_is_not_understood_is_refused_with_its_column(text, reason):
    with pytest.raises(Unreadable, match=re.escape(reason)):
        parse(text)


def test_a_refusal_never_repeats_what_the_owner_of_the_vm_wrote():
    with pytest.raises(Unreadable) as caught:
        parse('NAME = "x" \x1b[31mfire everybody')
    assert "fire" not in str(caught.value)


def test_it_tells_what_it_looks_at():
    assert parse("ID = 4 & (CURRENT_VMS != 3 | !ARCH = x)").names == {"ID", "CURRENT_VMS", "ARCH"}
    assert parse("CURRENT_VMS = 3").looks_at_vms
    assert not parse("ID = 3").looks_at_vms


def test_a_pattern_made_to_be_slow_is_not():
    expression = parse('NAME = "' + "*a" * 30 + '*b"')
    began = time.perf_counter()
    assert not expression.holds(lambda _: ["a" * 2000], ())
    assert time.perf_counter() - began < 1


def test_a_chain_as_long_as_a_group_of_vms_is_evaluated():
    text = " & ".join(f"(CURRENT_VMS != {vm})" for vm in range(100, 800))
    assert holds(text)
    assert not holds(text + " & (CURRENT_VMS != 5)")
