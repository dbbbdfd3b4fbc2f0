"""The bytes of a slot: they come back as they went in, and nothing else is taken for them."""

import os

from hypothesis import given
from hypothesis import strategies as st

from tiercache._redis import frames

tokens = st.binary(min_size=16, max_size=16)
tag_sets = st.dictionaries(st.text(st.characters(), max_size=20), tokens, max_size=4)


@given(tokens, tokens, tokens, tag_sets, st.binary(max_size=100))
def test_a_value_comes_back(token, run, generation, tags, payload) -> None:
    """Whether its tags are named or not, a value is read as it was written."""
    raw = frames.value(token, run, generation, tags, payload)
    assert frames.read(raw, run, generation, tags) == (token, tuple(tags.items()), payload)
    parsed = frames.parse(raw, run, generation)
    assert parsed is not None
    assert (parsed.token, dict(parsed.tags), parsed.payload) == (token, tags, payload)
    assert raw[1:33] == frames.identity(token, run)


@given(tag_sets, tag_sets, st.binary(max_size=40))
def test_other_tags_do_not_read_it(stored, asked, payload) -> None:
    """Only exactly the stored tags with exactly their tokens make a value readable."""
    token, run, generation = (os.urandom(16) for _ in range(3))
    raw = frames.value(token, run, generation, stored, payload)
    assert (frames.read(raw, run, generation, asked) is not None) == (stored == asked)


@given(tag_sets, st.binary(max_size=40))
def test_another_life_does_not_read_it(tags, payload) -> None:
    """Another run or generation reads as nothing."""
    token, run, generation, other = (os.urandom(16) for _ in range(4))
    raw = frames.value(token, run, generation, tags, payload)
    assert frames.read(raw, other, generation, tags) is None
    assert frames.read(raw, run, other, tags) is None
    assert frames.parse(raw, other, generation) is None
    assert frames.parse(raw, run, other) is None


def test_a_lease_is_no_value() -> None:
    """A lease has the identity of a value and is never read as one."""
    token, run = os.urandom(16), os.urandom(16)
    raw = frames.lease(token, run)
    assert raw[1:33] == frames.identity(token, run)
    assert frames.read(raw, run, b"", {}) is None
    assert frames.parse(raw, run, b"") is None


@given(st.text(), st.text(), st.text(), st.text())
def test_names_never_collide(one_namespace, one, other_namespace, other) -> None:
    """Two names are equal only if namespace, kind and text are."""
    a, b = frames.Names(one_namespace), frames.Names(other_namespace)
    assert (a.slot(one) == b.slot(other)) == ((one_namespace, one) == (other_namespace, other))
    assert a.slot(one) != b.tag(other)
    assert a.slot(one) not in (b.generation, b.stream)
    assert a.tag(one) not in (b.generation, b.stream)


def test_the_stream_has_a_hash_tag() -> None:
    """Whatever a namespace is called, its stream names its slot in a cluster itself."""
    stream = frames.Names("}a{b:c").stream
    assert stream == b"{tc1:%7Da%7Bb%3Ac}:e"
    assert stream.count(b"{") == stream.count(b"}") == 1


def test_any_run_id_becomes_sixteen_bytes() -> None:
    """Run ids of any spelling are told apart."""
    assert len(frames.life("")) == len(frames.life("a" * 40)) == 16
    assert frames.life("a" * 40) != frames.life("b" * 40)
