"""Whatever is done to a configuration: it is taken, or told with file, line, path and remedy, and without a secret."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz.people import EXAMPLE, SECRET, configuration
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

LINES = EXAMPLE.read_text().splitlines(keepends=True)
#: the example, with its commented settings in force, too: some of them do not go together, which must be told
BUSY = [line.removeprefix("# ") if line.startswith("# ") and "=" in line else line for line in LINES]
VALUES = st.one_of(
    st.sampled_from(
        ['"10s"', '"-1s"', "[]", "{}", "0", "-1", "nan", "inf", "true", '""', "1979-05-27", "[[1]]", '"x"']
    ),
    st.integers(-(2**70), 2**70).map(str),
    st.floats().map(str),
    st.text(max_size=30).map(lambda text: '"' + text.replace("\\", "").replace('"', "") + '"'),
    st.sampled_from(['{ file = "SECRETFILE" }', '{ command = ["x"] }', '{ env = "HOME" }', '"{FENCE_IP}"']),
)


@st.composite
def mutations(draw: st.DrawFn) -> bytes:
    """The example with some lines changed, moved, doubled, lost, or broken."""
    lines = list(draw(st.sampled_from([LINES, BUSY])))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(lines) - 1))
        match draw(st.sampled_from(["value", "key", "lose", "double", "move", "noise"])):
            case "value" if "=" in lines[at]:
                lines[at] = f"{lines[at].partition('=')[0].lstrip('# ')}= {draw(VALUES)}\n"
            case "key" if "=" in lines[at]:
                lines[at] = f"{draw(st.text('abc_. ', max_size=8))}={lines[at].partition('=')[2]}"
            case "lose":
                lines[at] = ""
            case "double":
                lines.insert(at, lines[at])
            case "move":
                lines.insert(draw(st.integers(0, len(lines))), lines.pop(at))
            case _:
                lines[at] = draw(st.text(max_size=40)) + "\n"
    return "".join(lines).encode("utf-8", "surrogatepass")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mutations())
def test_any_mutation_of_the_example_is_taken_or_told(text):
    configuration(text)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_taken_or_told(text):
    configuration(text)


@pytest.mark.parametrize("depth", [30, 33, 500, 100_000])
def test_nesting_without_an_end_is_told(depth):
    configuration(b"x = " + b"[" * depth + b"]" * depth + b"\n")
    configuration(b"x = " + b"{a=" * depth + b"1" + b"}" * depth + b"\n")
    configuration(b"[" + b"a." * depth + b"b]\n")
    configuration(b"a." * depth + b"b = 1\n")


def test_the_target_would_find_a_secret_that_is_told(monkeypatch):
    """The check itself: a problem that quotes the secret is a finding."""
    from ha_controller.config import loader

    monkeypatch.setattr(loader, "told", lambda details, value: (f"it is {SECRET}", ""))
    monkeypatch.setattr(loader.Vault, "masked", lambda vault, text: text)
    with pytest.raises(AssertionError, match="cannot be shown"):
        configuration(b"mode = 7\n")


def test_the_example_is_where_it_is_looked_for():
    assert Path(EXAMPLE).is_file()
