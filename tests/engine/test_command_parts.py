"""The parts of the `command` provider that are plain functions."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.command_provider import schema
from engine.command_provider.difference import changes
from engine.command_provider.globbing import find_assets
from engine.command_provider.redaction import MARK, Redactor, quoted, redactor_for
from engine.command_provider.values import (
    UNKNOWN,
    archive,
    asset,
    contains_secret,
    from_struct,
    reveal,
    secret,
    secret_texts,
    to_struct,
)

PLAIN = st.recursive(
    st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), PLAIN))
def test_values_survive_the_way_to_the_engine_and_back(properties: dict[str, object]) -> None:
    assert from_struct(to_struct(properties)) == properties


@given(st.dictionaries(st.text(), PLAIN))
def test_nothing_changed_between_equal_inputs(properties: dict[str, object]) -> None:
    assert changes(properties, properties) == {}


@pytest.mark.parametrize(
    ("old", "new", "paths"),
    [
        ({"a": "1"}, {"a": "2"}, {"a": "updated"}),
        ({}, {"a": "1"}, {"a": "added"}),
        ({"a": "1"}, {}, {"a": "deleted"}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, {"a.c": "updated"}),
        ({"a": [1, 2]}, {"a": [1, 3, 4]}, {"a[1]": "updated", "a[2]": "added"}),
        ({"a": [1, 2]}, {"a": [1]}, {"a[1]": "deleted"}),
        ({"a": {"b c": 1}}, {"a": {"b c": 2}}, {'a["b c"]': "updated"}),
        ({"a": "1"}, {"a": UNKNOWN}, {"a": "updated"}),
        ({"a": asset("/x", "1")}, {"a": asset("/y", "1")}, {}),
        ({"a": asset("/x", "1")}, {"a": asset("/x", "2")}, {"a": "updated"}),
        ({"a": {"b": 1}}, {"a": [1]}, {"a": "updated"}),
    ],
)
def test_changes_are_named_by_their_paths(
    old: dict[str, object], new: dict[str, object], paths: dict[str, str]
) -> None:
    assert changes(old, new) == paths


def test_secrets_are_found_and_revealed_at_any_depth() -> None:
    value = {"a": [secret("one"), {"b": secret({"c": "two", "d": ["three"]})}], "e": "plain"}
    assert contains_secret(value)
    assert sorted(secret_texts(value)) == ["one", "three", "two"]
    assert reveal(value) == {"a": ["one", {"b": {"c": "two", "d": ["three"]}}], "e": "plain"}
    assert not contains_secret(reveal(value))


def test_defaults_of_a_connection_and_its_proxy_are_filled_in_and_it_is_secret() -> None:
    given_inputs = {"connection": {"host": "h", "proxy": {"host": "p", "user": "me"}}}
    inputs, failures = schema.check("command:remote:Command", given_inputs)
    defaults = {"dialErrorLimit": 10, "perDialTimeout": 15, "port": 22}
    proxy = {"host": "p", "user": "me", **defaults}
    expected = {"host": "h", "user": "root", "proxy": proxy, **defaults}
    assert failures == []
    assert inputs == {"addPreviousOutputInEnv": True, "connection": secret(expected)}


@pytest.mark.parametrize(
    ("inputs", "path"),
    [
        ({}, "connection"),
        ({"connection": {}}, "connection.host"),
        ({"connection": secret({})}, "connection.host"),
        ({"connection": {"host": "h"}, "create": 3.0}, "create"),
        ({"connection": {"host": "h"}, "environment": {"A": 1.0}}, "environment['A']"),
        ({"connection": {"host": "h", "port": "ssh"}}, "connection.port"),
        ({"connection": {"host": "h", "proxy": {}}}, "connection.proxy.host"),
    ],
)
def test_inputs_that_cannot_be_used_are_named(inputs: dict[str, object], path: str) -> None:
    _, failures = schema.check("command:remote:Command", inputs)
    assert [failure.property for failure in failures] == [path]


@pytest.mark.parametrize(
    ("source", "is_accepted"),
    [
        (asset("/file", "1"), True),
        ({**asset("", "1"), "text": "content"}, True),
        ({**asset("", "1"), "uri": "https://host/file"}, False),
        ({**archive({}), "path": "/folder"}, True),
        (archive({"a": asset("/file", "1")}), False),
        (UNKNOWN, True),
        ("/file", False),
    ],
)
def test_only_sources_that_lie_here_can_be_copied(source: object, is_accepted: bool) -> None:
    inputs = {"connection": {"host": "h"}, "remotePath": "/there", "source": source}
    _, failures = schema.check("command:remote:CopyToRemote", inputs)
    assert (failures == []) == is_accepted


def test_unknown_inputs_are_no_failures() -> None:
    unknown = {"connection": UNKNOWN, "create": secret(UNKNOWN), "triggers": [UNKNOWN]}
    inputs, failures = schema.check("command:remote:Command", unknown)
    assert failures == []
    assert inputs["create"] == secret(UNKNOWN)


def test_of_a_connection_only_the_credentials_are_kept_out_of_texts() -> None:
    connection = {"host": "db1", "user": "operations", "password": "p4ssw0rd",
                  "proxy": {"host": "gate", "password": "other-word"}}  # fmt: skip
    redact = redactor_for({"connection": secret(connection), "stdin": "open"})
    text = redact("operations@db1 by gate with p4ssw0rd and other-word, open")
    assert text == f"operations@db1 by gate with {MARK} and {MARK}, open"


def test_lines_of_a_secret_script_are_kept_out_of_texts_but_not_its_small_words() -> None:
    redact = Redactor(["set -e\nexport TOKEN=abcdef\nfi\n"])
    assert redact("line 2: export TOKEN=abcdef: fine, fi") == f"line 2: {MARK}: fine, fi"
    assert Redactor(["ab"])("cab") == "cab"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("echo", '"echo"'),
        ('say "hi"\\\n\ttwo', r'"say \"hi\"\\\n\ttwo"'),
        ("\x01\u00fc\u200b\U000e0001", r'"\x01ü\u200b\U000e0001"'),
    ],
)
def test_commands_are_quoted_as_go_quotes_them(text: str, expected: str) -> None:
    assert quoted(text) == expected


@pytest.mark.parametrize(
    ("patterns", "found"),
    [
        (["*"], ["a.txt", "b.js"]),
        (["**"], ["a.txt", "b.js", "d/c.js", "d/e/f[1].js"]),
        (["**.js"], ["b.js", "d/c.js", "d/e/f[1].js"]),
        (["d/*.js"], ["d/c.js"]),
        (["**", "!d/**"], ["a.txt", "b.js"]),
        (["!b.js", "*"], ["a.txt", "b.js"]),
        (["?.js"], ["b.js"]),
        (["[a-b].*"], ["a.txt", "b.js"]),
        (["[!a].*"], ["b.js"]),
        (["{a,b}.{txt,js}"], ["a.txt", "b.js"]),
        ([r"**/f\[1\].js"], ["d/e/f[1].js"]),
        (["x"], []),
    ],
)
def test_files_are_chosen_by_patterns(
    patterns: list[str], found: list[str], tmp_path: Path
) -> None:
    for name in ("a.txt", "b.js", "d/c.js", "d/e/f[1].js"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert sorted(find_assets(tmp_path, patterns)) == found


@pytest.mark.parametrize("pattern", ["[a", "{a"])
def test_a_malformed_pattern_is_an_error(pattern: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="pattern"):
        find_assets(tmp_path, [pattern])
