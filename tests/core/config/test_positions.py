"""Where things stand in TOML: the same names as the standard library reads, each where it is written."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postseal.core.config._positions import Positions

TEXT = '''\
# a comment with a [table] and x = 1 in it
title = "a # b" # c
"quoted \\"key\\"" = 1
'literal' = 2
a.b . "c.d" = 3
dates = [1979-05-27 07:32:00, 1979-05-27T07:32:00Z, 07:32:00]
multi = """
[not.a.table]
x = 1 \\"""
""""
raw = \'\'\'
[[neither]] \'\'\'
inline = { x = 1, y.z = [ { w = "}" } ], "q r" = \'\' }
list = [
    1, # ]
    [ "]", 2 ],
    { k = 1 },
]

[table]
key = true
[table.below]
key = -1.5e3
[[array]]
name = "first"
[array.sub]
key = 1
[[array]]
name = "second"
[[array.inner]]
x = 1
[[array.inner]]
x = 2
[ spaced . "out" ]
k = inf
'''


def paths(value, path=()):
    """Yield every path into *value*."""
    if path:
        yield path, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for part, inner in items:
        yield from paths(inner, (*path, part))


def check(text):
    """See that every name and value of *text* is where it is said to be."""
    positions = Positions(text)
    lines = text.split("\n")
    for path, value in paths(tomllib.loads(text)):
        assert path in positions._values, path
        line, column = positions.of_value(path)
        rest = "\n".join([lines[line - 1][column - 1 :], *lines[line:]])
        if isinstance(value, str):
            assert rest[0] in "\"'"
        elif isinstance(value, bool):
            assert rest.startswith(str(value).lower())
        elif isinstance(value, int):
            assert rest.startswith(str(value))
        elif isinstance(value, list):
            assert rest.startswith("[")
        line, column = positions.of_key(path)
        if isinstance(path[-1], str):
            bare = lines[line - 1][column - 1 :].lstrip("\"'[ ")
            assert bare.startswith(path[-1].split('"')[0])


def test_all_forms_of_toml_are_found():
    check(TEXT)
    positions = Positions(TEXT)
    assert positions.of_value(("array", 1, "inner", 1, "x")) == (33, 5)
    assert positions.of_key(("array", 1, "name")) == (29, 1)
    assert positions.of_value(("inline", "y", "z", 0, "w")) == (13, 33)
    assert positions.of_value(("list", 1, 0)) == (16, 7)


def test_what_is_not_there_is_where_the_nearest_above_it_is():
    positions = Positions(TEXT)
    assert positions.of_value(("array", 0, "nothing", 3)) == positions.of_value(("array", 0)) == (24, 1)
    assert positions.of_key(("nothing",)) == (1, 1)


KEYS = st.sampled_from(["a", "b-c", "d_e", "1", '"q r"', "'l.m'", '"\\u00e9"'])
BLANKS = st.sampled_from(["", " ", "\t", "  "])
SCALARS = st.sampled_from(
    ["1", "-2", "true", "1.5", '"x"', "'y'", '"]},#="', "2027-01-31", '"""\n[x]\n"""', "'''#'''", '"a\\"b"']
)


def _lists(values):
    return st.builds(
        lambda items, gap: f"[{gap}" + f",{gap}".join(items) + f"{gap}]",
        st.lists(values, max_size=3),
        st.sampled_from(["", " ", "\n", " # ],\n"]),
    )


def _tables(values):
    return st.builds(
        lambda pairs: "{ " + ", ".join(f"{k} = {v}" for k, v in pairs.items()) + " }",
        st.dictionaries(KEYS, values, max_size=3),
    )


VALUES = st.recursive(SCALARS, lambda inner: _lists(inner) | _tables(inner), max_leaves=5)
DOCUMENTS = st.lists(
    st.builds(lambda k, gap, v: f"{k}{gap}={gap}{v}", KEYS, BLANKS, VALUES)
    | st.builds(lambda k: f"[{k}]", KEYS)
    | st.builds(lambda k, j: f"[{k}.{j}]", KEYS, KEYS)
    | st.builds(lambda k: f"[[{k}]]", KEYS)
    | st.sampled_from(["", "# [x] y = 1"]),
    max_size=8,
).map("\n".join)


@given(DOCUMENTS)
def test_every_path_that_the_standard_library_reads_has_a_place(text):
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    positions = Positions(text)
    expected = {path for path, _ in paths(found)}
    assert expected <= positions._values.keys()
    assert expected <= positions._keys.keys()


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_line_endings_do_not_move_lines(tmp_path, ending):
    from postseal.core.config import PolicyFile
    from postseal.core.errors import PolicyFileError

    path = tmp_path / "p.toml"
    path.write_bytes(ending.join(["", "", 'sendr = "x"', "[[policy]]", 'name = "a"', ""]).encode())
    with pytest.raises(PolicyFileError) as error:
        PolicyFile.read(path)
    assert [mistake.line for mistake in error.value.mistakes] == [3, 4, 4]  # no destinations, no keys
