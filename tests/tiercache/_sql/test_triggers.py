"""What the triggers of both dialects share: names of tables, and marks of versions."""

import pytest

from tiercache._sql.names import Tables
from tiercache._sql.triggers import trigger_dialect
from tiercache._sql.triggers.postgres import PostgresTriggers
from tiercache._sql.triggers.sqlite import SqliteTriggers
from tiercache._sql.triggers.watched import Part, is_newer, mark, parse, quoted, short
from tiercache.errors import PolicyError


def test_each_database_has_its_dialect() -> None:
    """The dialect is chosen by the name in telemetry."""
    tables = Tables.of("tiercache")
    assert isinstance(trigger_dialect("postgresql", tables), PostgresTriggers)
    assert isinstance(trigger_dialect("sqlite", tables), SqliteTriggers)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("users", (None, Part("users", False))),
        ("app.Users", (Part("app", False), Part("Users", False))),
        ('"a.b"', (None, Part("a.b", True))),
        ('"a""b"."c d"', (Part('a"b', True), Part("c d", True))),
        ("größe_2$", (None, Part("größe_2$", False))),
    ],
)
def test_names_of_tables(text: str, parts: tuple[Part | None, Part]) -> None:
    """A name is read as SQL reads it."""
    assert parse("here", text) == parts


@pytest.mark.parametrize(
    "text", ["", ".", "a.", "a.b.c", '"', '""', 'a"b', "a b", "1a", "a\0", "a;"]
)
def test_what_is_no_name_of_a_table(text: str) -> None:
    """Anything else is refused, and with it whatever else could follow a name."""
    with pytest.raises(PolicyError, match="here: .* is not the name of a table"):
        parse("here", text)


def test_quotes_in_names() -> None:
    """A quote in a name is doubled."""
    assert quoted('a"b') == '"a""b"'


def test_digests_tell_parts_apart() -> None:
    """Names with the same letters in other places have other digests, of a fixed length."""
    assert short(5, "ab", "c") != short(5, "a", "bc")
    assert [len(short(size, "x")) for size in (4, 5, 10)] == [7, 8, 16]
    assert short(10, "x").isalnum()


def test_a_later_version_of_the_same_is_newer() -> None:
    """Only the same parts in a later version count as newer."""
    ours = mark("a", 1)
    later = ours.replace(".watch 1", ".watch 12")
    assert is_newer(f"/* {later} */", ours)
    assert not is_newer(ours, later)
    assert not is_newer(ours, ours)
    assert not is_newer(mark("b", 1).replace(".watch 1", ".watch 2"), ours)
    assert not is_newer("something else", ours)
