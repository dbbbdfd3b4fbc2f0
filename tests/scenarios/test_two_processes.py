"""Two processes that share a tier: what one does, the other hears, with or without a server."""

import itertools
from collections.abc import Iterator

import pytest

from tests.scenarios.companion import Companion
from tests.scenarios.peer import peer


@pytest.fixture(params=["redis", "postgresql", "sqlite"])
def url(request: pytest.FixtureRequest) -> str:
    """What they share."""
    if request.param == "sqlite":
        return f"sqlite:///{request.getfixturevalue('sqlite_path')}"
    return str(request.getfixturevalue("redis_url" if request.param == "redis" else "postgres_dsn"))


@pytest.fixture
def peers(url: str) -> Iterator[tuple[Companion, Companion]]:
    """Two processes that listen, with other hash seeds."""
    with peer(url, hash_seed=1) as one, peer(url, hash_seed=2) as other:
        assert one.listens()
        assert other.listens()
        yield one, other


_numbers = itertools.count(1)


def settle(one: Companion, other: Companion) -> None:
    """Wait until the other has carried out what this one has told: it empties memories, too."""
    number = next(_numbers)
    assert one.settle(number)
    assert other.has_settled(number)


def test_set_is_seen(peers: tuple[Companion, Companion]) -> None:
    """A value that one sets the other reads, and one that is set anew replaces the other's copy."""
    one, other = peers
    one.set("k", 1, "t")
    settle(one, other)
    assert other.get("k") == 1
    assert other.holds("k")
    one.set("k", 2)
    assert other.loses("k")
    assert other.get("k") == 2


@pytest.mark.parametrize("way", ["key", "tag", "clear", "event"])
def test_memory_is_emptied(peers: tuple[Companion, Companion], way: str) -> None:
    """An invalidation by key, tag, clear or event in one empties the memory of the other."""
    one, other = peers
    one.rule("changed", [], ["t:{n}"])
    one.set("k", 1, "t:1")
    one.set("kept", 1)
    settle(one, other)
    assert other.get("k") == other.get("kept") == 1
    assert other.holds("k")
    if way == "key":
        assert one.invalidate(["k"], [])
    elif way == "tag":
        assert one.invalidate([], ["t:1"])
    elif way == "clear":
        assert one.clear()
    else:
        assert one.emit("changed", {"n": 1})
    assert one.get("k") is None
    assert other.loses("k")
    assert other.get("k") is None
    assert other.holds("kept") == (way != "clear")


def test_rules_of_the_other_process_alone(peers: tuple[Companion, Companion]) -> None:
    """An event is carried out by the rules of whoever hears it, for both, and is delivered."""
    one, other = peers
    other.rule("changed", ["k:{n}"], [])
    other.subscribe("changed")
    one.set("k:1", 1)
    one.set("k:2", 2)
    settle(one, other)
    assert other.get("k:1") == 1
    assert one.emit("changed", {"n": 1, "text": "ü\ud800", "nothing": None, "yes": True})
    assert other.hears(1) == [{"n": 1, "text": "ü\ud800", "nothing": None, "yes": True}]
    assert other.get("k:1") is None
    assert one.loses("k:1")
    assert one.get("k:1") is None
    assert one.get("k:2") == 2


def test_a_function_of_two_processes(peers: tuple[Companion, Companion]) -> None:
    """One function has one key in every process, whatever the hash seed: loaded once for both."""
    one, other = peers
    assert one.key(1) == other.key(1)
    assert one.load(1) == 1
    assert other.load(1) == 1
    assert other.load(2) == 1
    assert one.load(2) == 1
    assert one.invalidate([], ["user:2"])
    assert other.loses(other.key(2))
    assert other.load(2) == 2
    assert one.load(2) == 2
    assert one.load(1) == 1


def test_a_forked_child(peers: tuple[Companion, Companion]) -> None:
    """A child of a fork has a working cache and bus, and its parent's go on undisturbed."""
    one, other = peers
    one.set("k", 1)
    settle(one, other)
    assert other.get("k") == 1
    assert one.forks()
    assert other.get("from the child") is not None
    one.set("k", 2)
    assert other.loses("k")
    settle(one, other)
    other.set("k", 3)
    assert one.loses("k")
    assert one.get("k") == 3
