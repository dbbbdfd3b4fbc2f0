"""Fixtures for all tests: private servers, and an audit of what a test leaves behind."""

import asyncio
import inspect
import io
import threading
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer

pytest.register_assert_rewrite("tests.contracts")

# How long examples take says how busy the machine is, and nothing of what is tested.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

_failed = pytest.StashKey[bool]()


# --- servers: one of each is shared and stays as it is; whoever breaks one takes a private one


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """The shared Redis."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The URL of the shared Redis, emptied."""
    redis_server.cli("FLUSHALL")
    return redis_server.url


@pytest.fixture
def private_redis() -> Iterator[RedisServer]:
    """A Redis of the test's own, to be stopped, paused, killed or restarted at will."""
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The shared PostgreSQL."""
    with PostgresServer() as server:
        yield server


@pytest.fixture
def postgres_dsn(postgres_server: PostgresServer) -> Iterator[str]:
    """The DSN of a new database in the shared PostgreSQL, dropped afterwards."""
    dsn = postgres_server.create_database()
    yield dsn
    postgres_server.drop_database(dsn)


@pytest.fixture
def private_postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL of the test's own, to be stopped, paused, killed or restarted at will."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def pgbouncer(postgres_server: PostgresServer) -> Iterator[PgBouncer]:
    """The shared PgBouncer, in transaction mode, in front of the shared PostgreSQL."""
    with PgBouncer(postgres_server) as server:
        yield server


@pytest.fixture
def pgbouncer_dsn(pgbouncer: PgBouncer, postgres_dsn: str) -> str:
    """The DSN of `postgres_dsn` by way of the shared PgBouncer."""
    return pgbouncer.through(postgres_dsn)


@pytest.fixture
def sqlite_path(tmp_path: Path) -> Path:
    """The path of a database file that does not exist yet."""
    return tmp_path / "test.db"


# --- the audit: what a test starts, it ends


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note which tests failed: the audit has nothing to add to those."""
    report = yield
    if report.failed:
        item.stash[_failed] = True
    return report


@pytest.fixture(autouse=True)
def audit(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves an asyncio task or a thread behind.

    Being set up first it is torn down last, after the fixtures that close what the test used.
    Only an async test pays for an event loop.
    """
    if inspect.iscoroutinefunction(getattr(request.node, "obj", None)):
        request.getfixturevalue("task_audit")
    before = set(threading.enumerate())
    yield
    left = [thread for thread in threading.enumerate() if thread not in before]
    left = [thread for thread in left if not thread.daemon and not _belongs_to_loop(thread)]
    for thread in left:
        thread.join(1)  # one on its way out may take its last step
    names = [thread.name for thread in left if thread.is_alive()]
    if names and _failed not in request.node.stash:
        pytest.fail(f"threads left running: {', '.join(names)}", pytrace=False)


@pytest.fixture
async def task_audit(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """Fail an async test that leaves a task pending on its loop."""
    yield
    for _ in range(3):
        await asyncio.sleep(0)  # let what was cancelled or set just now come to its end
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left and _failed not in request.node.stash:
        stories = "\n".join(map(_story, left))
        pytest.fail(f"tasks left pending; who starts one ends it:\n{stories}", pytrace=False)


def _belongs_to_loop(thread: threading.Thread) -> bool:
    """Say whether a thread is of the loop's default executor, which ends with the loop."""
    return thread.name.startswith("asyncio_")


def _story(task: asyncio.Task[object]) -> str:
    """Return a task's name, what it runs and where it waits."""
    text = io.StringIO()
    task.print_stack(file=text)
    return f"- {task.get_name()}: {task.get_coro()!r}\n{text.getvalue()}"
