"""Lines of keys in TOML text: all of them, and the right ones."""

from __future__ import annotations

import tomllib

from hypothesis import given
from hypothesis import strategies as st

from ha_controller.config.positions import Layers, Origin, as_toml, parse, positions


def test_headers_and_keys_have_the_line_they_stand_on():
    found = positions('a = 1\n\n# b = 2\n[ t . "u v" ]\n  key = "x"  # [no] = 1\n[t]\nother.deep = 1\n')
    assert found == {
        ("a",): 1,
        ("t", "u v"): 4,
        ("t", "u v", "key"): 5,
        ("t",): 6,
        ("t", "other"): 7,
        ("t", "other", "deep"): 7,
    }


def test_items_of_an_array_of_tables_are_counted_and_what_is_below_belongs_to_the_last_one():
    found = positions("[[f]]\na = 1\n[[f]]\na = 2\n[f.sub]\nb = 3\n[[f.list]]\nc = 4\n[[f]]\n[[f.list]]\nc = 5\n")
    assert found["f", 0, "a"] == 2
    assert found["f", 1, "a"] == 4
    assert found["f", 1, "sub", "b"] == 6
    assert found["f", 1, "list", 0, "c"] == 8
    assert found["f", 2, "list", 0, "c"] == 11


def test_items_and_keys_inside_a_value_have_lines_of_their_own():
    found = positions('a = [\n  "x", # one\n  "y",\n  [1,\n 2]\n]\nb = { c = 1, d.e = [{ f = "}" }] }\n')
    assert [found["a", index] for index in range(3)] == [2, 3, 4]
    assert found["a", 2, 1] == 5
    assert found["b", "d", "e", 0, "f"] == 7


def test_strings_of_all_four_kinds_do_not_confuse_the_count():
    text = '''\
a = """
b = 1
\\""" ""still" inside"""""
c = 'x = "1" # \\'
d = \'\'\'
[no]
''\'\'\'
"quoted = key" = "\\" # \\\\"
last = 1
'''
    values, found = parse(text)
    assert list(values) == ["a", "c", "d", "quoted = key", "last"]
    assert found == {("a",): 1, ("c",): 4, ("d",): 5, ("quoted = key",): 8, ("last",): 9}


def test_line_ends_of_other_systems_and_odd_separators_do_not_shift_the_lines():
    assert positions("a = 1\r\n# \u2028 \x85\r\nb = '\u2028'\r\nc = 3\r\n") == {("a",): 1, ("b",): 3, ("c",): 4}


def test_text_that_is_no_toml_gives_the_lines_until_there():
    assert positions("a = 1\n= 2\n") == {("a",): 1}
    assert positions("[[a]\n") == {}


KEYS = st.sampled_from(["a", "b", "c-1", "x y", "ü", 'q"', "", "a.b"])
SCALARS = st.one_of(
    st.integers(), st.booleans(), st.text(max_size=20), st.sampled_from(["#", '"""', "]", "}", "[x]", "a = 1", "\n\n"])
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
)


def _places(value, location=()):
    if location:
        yield location
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from _places(inner, (*location, key))


@given(tables=st.lists(st.dictionaries(KEYS, VALUES, max_size=4), max_size=4))
def test_every_place_that_tomllib_knows_has_a_line_and_no_other_has(tables):
    lines = []
    expected = {}
    for index, table in enumerate(tables):
        lines.append("[[t]]")
        expected["t", index] = len(lines)
        for key, value in table.items():
            lines.append(f"{as_toml({key: value})[1:-1]}")
            expected["t", index, key] = len(lines)
    text = "\n".join(lines)
    values, found = parse(text)
    wanted = set(_places(values)) - {("t",)}
    assert set(found) == wanted
    assert {place: found[place] for place in expected} == expected
    assert tomllib.loads(text) == values


def test_a_value_that_is_replaced_takes_the_places_inside_it_along():
    layers = Layers(is_value=lambda _: False)
    layers.overlay({"a": {"b": 1}}, {("a",): Origin(file="x", line=1), ("a", "b"): Origin(file="x", line=2)})
    layers.overlay({"a": 5}, {("a",): Origin(file="y", line=7)})
    assert layers.values == {"a": 5}
    assert layers.origins == {("a",): Origin(file="y", line=7)}
