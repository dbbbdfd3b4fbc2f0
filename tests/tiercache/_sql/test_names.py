"""Names that fit into every database."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiercache._sql.names import Tables, fold
from tiercache.errors import PolicyError

ANY_TEXT = st.text(st.characters(codec=None), max_size=40)


def test_a_short_printable_name_stays_readable() -> None:
    """What people would type is stored as it is."""
    assert fold("user:42") == "user:42"


@pytest.mark.parametrize("name", ["", "x" * 10_000, "a\x00b", "ключ", "a\nb", "~a", "\ud800"])
def test_what_a_database_cannot_hold_is_folded(name: str) -> None:
    """Empty, long, unprintable, non-ASCII and already folded-looking names get a digest."""
    folded = fold(name)
    assert folded.startswith("~")
    assert folded.isascii()
    assert folded.isprintable()
    assert len(folded) <= 512


def test_a_folded_name_is_not_mistaken_for_a_plain_one() -> None:
    """The fold of a name is itself folded again, to something else."""
    folded = fold("ключ")
    assert fold(folded) != folded


@given(ANY_TEXT, ANY_TEXT)
def test_different_names_stay_different(one: str, other: str) -> None:
    """Folding keeps apart what is apart, lone surrogates included."""
    assert (fold(one) == fold(other)) == (one == other)


def test_long_names_that_differ_at_the_end_stay_different() -> None:
    """The digest covers the whole name, not what is shown of it."""
    assert fold("x" * 10_000 + "a") != fold("x" * 10_000 + "b")


def test_tables_of_a_prefix_and_of_a_schema() -> None:
    """A schema is quoted, a prefix names its tables."""
    assert Tables.of("tiercache").entry == "tiercache_entry"
    assert Tables.of("app.cache") == (
        "cache",
        '"app".cache_entry',
        '"app".cache_tag',
        '"app".cache_meta',
        '"app".cache_event',
        '"app".cache_outbox',
    )


@pytest.mark.parametrize("prefix", ["", "a.b.c", "a-b", "A", "a;drop", "1a", "x" * 41, "a.", 'a"b'])
def test_a_prefix_that_needs_quotes_is_refused(prefix: str) -> None:
    """Nothing but plain identifiers reaches the text of a statement."""
    with pytest.raises(PolicyError, match="prefix="):
        Tables.of(prefix)
