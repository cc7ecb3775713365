"""Whatever is done to a configuration: it is taken, or told with file, line, path and remedy, and without a secret."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz.people import EXAMPLE, SECRET, configuration
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ha_controller.config import ConfigError

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


# --- any text at all --------------------------------------------------------------------------------------------------

SNIPPETS = st.sampled_from(
    [
        *('mode = "auto"', "[guard]", "[[fence]]", "[fence]", 'agent = "ipmi"', 'agent = "broken"', "hosts = [", "]"),
        *('"a",', "a.b.c = 1", "[a.b]", '"""', "x = { y = 1 }", "[opennebula]", "auth = 3", "# c", 'name = "n"'),
        *("fence = 7", "channel = []", "[detect]", "channels = 5", 'channels = ["ssh", 3]', "misses = 1979-05-27"),
        *('password = { file = "/nowhere" }', 'password = "{X}"', "guard = []", "[channel.ssh]", "port = 'x'"),
        *('auth = { env = "A" }', "[[fence.hosts]]", "[[channel]]", "[channel]", "ssh = 5", 'interval = "1s"'),
        *("max_fences = { count = nan }", "max_fences = []", 'self_check = ["\\u0000", 5]', 'state_dir = "/\\u0000"'),
    ]
)
TEXTS = st.one_of(
    st.lists(SNIPPETS, max_size=12).map("\n".join), st.text(max_size=60), st.text('[]{}=."\n#a1_,', max_size=40)
)
NAMES = st.sampled_from(
    ["HA_MODE", "HA_GUARD__SETTLE", "HA_GUARD", "HA___", "HA_DETECT__", "HA_CHANNEL__SSH", "HA_FENCE__X"]
)
VARIABLES = st.dictionaries(NAMES, TEXTS, max_size=3)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXTS, more=TEXTS, environ=VARIABLES)
def test_whatever_the_text_it_ends_in_a_configuration_or_in_problems(site, text, more, environ):
    site.path.write_bytes(text.encode(errors="surrogatepass"))
    site.write(more.encode(errors="replace").decode(), "conf.d/10.toml")
    try:
        site.load(environ={**environ, "A": "user:password"})
    except ConfigError as error:
        assert error.problems
        assert all(str(problem) and "\n" not in str(problem) for problem in error.problems)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_good_configuration_with_anything_typed_into_it_ends_in_a_configuration_or_in_problems(site, data):
    start = data.draw(st.integers(0, len(site.good)))
    end = data.draw(st.integers(start, min(start + 10, len(site.good))))
    text = site.good[:start] + data.draw(st.text('[]{}=."\n#a1_, ', max_size=5)) + site.good[end:]
    try:
        site.load(text)
    except ConfigError as error:
        assert error.problems
