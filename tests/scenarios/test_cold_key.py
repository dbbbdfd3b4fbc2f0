"""One cold key and several processes: who loads it, and what becomes of those who wait."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.scenarios.companion import Companion
from tests.scenarios.crowd import crowd
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer

CALLERS = 250
SHORT = 1.0
"""Seconds that leases live where a test waits for their end."""


@pytest.fixture(scope="module", params=["redis", "postgres", "sqlite"])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of the tier that the processes share, and that carries their bus."""
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        return server.url
    if request.param == "postgres":
        database: PostgresServer = request.getfixturevalue("postgres_server")
        return database.create_database()
    path: Path = tmp_path_factory.mktemp("cold") / "cache.db"
    return f"sqlite:///{path}"


@pytest.fixture(scope="module")
def crowds(shared: str) -> Iterator[list[Companion]]:
    """Four processes that listen."""
    with ExitStack() as stack:
        found = [stack.enter_context(crowd(shared)) for _ in range(4)]
        assert all(each.listens() for each in found)
        yield found


@pytest.fixture(scope="module")
def pair(redis_server: RedisServer) -> Iterator[tuple[Companion, Companion]]:
    """Two processes on Redis."""
    with crowd(redis_server.url) as one, crowd(redis_server.url) as other:
        assert one.listens()
        assert other.listens()
        yield one, other


@pytest.fixture
def brief(redis_url: str) -> Iterator[tuple[Companion, Companion]]:
    """Two processes of the test's own on Redis, with short leases."""
    with crowd(redis_url, ttl=SHORT) as one, crowd(redis_url, ttl=SHORT) as other:
        assert one.listens()
        assert other.listens()
        yield one, other


def gather(crowds: list[Companion], key: str, how: str, *, fails: bool = False) -> list[Companion]:
    """Have everybody call; come back when all load or wait, first those who load."""
    for each in crowds:
        each.call(key, how, CALLERS, fails)
    assert all(each.settles(CALLERS) for each in crowds)
    leaders = [each for each in crowds if each.stats()[0]]
    others = [each for each in crowds if each not in leaders]
    return [*leaders, *others]


@pytest.mark.parametrize("how", ["tasks", "threads"])
def test_a_thousand_callers_of_four_processes(crowds: list[Companion], how: str) -> None:
    """The loader runs once, and everybody gets what it returned."""
    leader, *others = gather(crowds, f"cold for {how}", how)
    assert leader.stats() == [1, CALLERS - 1]
    assert all(each.stats() == [0, CALLERS] for each in others)
    for each in crowds:
        each.go()
    for each in crowds:
        assert each.results() == [leader.pid] * CALLERS
    assert [each.stats()[0] for each in (leader, *others)] == [1, 0, 0, 0]


@pytest.mark.parametrize("how", ["tasks", "threads"])
def test_a_failing_loader(crowds: list[Companion], how: str) -> None:
    """It runs at most once in each process, and everybody hears of the failure."""
    gather(crowds, f"failing for {how}", how, fails=True)
    for each in crowds:
        each.go()
    for each in crowds:
        assert each.results() == ["down"] * CALLERS
        assert each.stats()[0] <= 1


def lead(one: Companion, other: Companion, key: str = "k") -> None:
    """Let one load the key, and the other wait for it."""
    one.call(key, "tasks", 1)
    assert one.loads(1)
    other.call(key, "tasks", 1)
    assert other.coalesces(1)


@pytest.mark.parametrize("how", ["key", "tag", "clear"])
def test_an_invalidation_while_others_wait(pair: tuple[Companion, Companion], how: str) -> None:
    """They begin a load of their own at once, and what was loaded before is stored nowhere."""
    one, other = pair
    key = f"invalidated by {how}"
    lead(one, other, key)
    assert one.invalidate(key, how)
    assert other.loads(1)
    one.go()
    assert one.results() == [one.pid]
    other.go()
    assert other.results() == [other.pid]
    assert one.get(key) == other.pid
    assert other.get(key) == other.pid


def test_a_holder_that_dies(brief: tuple[Companion, Companion]) -> None:
    """It is replaced when its lease has ended."""
    one, other = brief
    lead(one, other)
    one.kill()
    assert other.loads(1)
    other.go()
    assert other.results() == [other.pid]


def test_a_holder_that_stands_still(
    pair: tuple[Companion, Companion], brief: tuple[Companion, Companion]
) -> None:
    """It is replaced as if it had died, and what it brings when it goes on is refused."""
    one, other = brief
    lead(one, other)
    one.stand_still()
    assert other.loads(1)
    other.go()
    assert other.results() == [other.pid]
    one.go_on()
    one.go()
    assert one.results() == [one.pid]
    third, _ = pair
    assert third.get("k") == other.pid


def test_a_loader_slower_than_the_lease(brief: tuple[Companion, Companion]) -> None:
    """It keeps its lease alive, so nobody else loads, and its value is stored."""
    one, other = brief
    lead(one, other)
    assert other.looks(4)  # three leases long
    one.go()
    assert other.results() == [one.pid]
    assert one.stats()[0] == 1
    assert other.stats()[0] == 0
