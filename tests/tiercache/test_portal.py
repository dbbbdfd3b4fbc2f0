"""The cache's own loop thread: started at need, restarted, owned, and safe to call from itself."""

import asyncio
import contextvars
import logging
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from tests.tiercache.test_cache import in_a_child
from tiercache._portal import Portal


@pytest.fixture
def portal() -> Iterator[Portal]:
    """A portal, closed after the test."""
    portal = Portal("test")
    yield portal
    portal.close()


async def name() -> str:
    """Return the thread's name."""
    return threading.current_thread().name


def test_started_at_first_need(portal: Portal) -> None:
    """There is no thread before somebody asks for something, and one for all who do."""
    assert not portal.running
    assert portal.run(name) == portal.run(name) == "tiercache-test"
    assert portal.running
    assert portal.loop is portal.loop


def test_errors_and_results_come_back(portal: Portal) -> None:
    """What the coroutine raises is raised to the caller."""

    async def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        portal.run(fail)


def test_restart_after_close(portal: Portal) -> None:
    """After closing the next call starts a new thread; closing twice does nothing."""
    first = portal.loop
    portal.close()
    portal.close()
    assert first.is_closed()
    assert not portal.running
    assert portal.run(name) == "tiercache-test"
    assert portal.loop is not first


def test_from_its_own_thread(portal: Portal) -> None:
    """A blocking call on the portal's own thread does not hang, however often it is nested."""

    async def nested(depth: int) -> str:
        return portal.run(lambda: nested(depth - 1)) if depth else "done"

    assert portal.run(lambda: nested(3)) == "done"


def test_spawned_work_is_cancelled_and_awaited(portal: Portal) -> None:
    """Closing cancels what runs in the background and waits for its end."""
    started, ended = threading.Event(), []

    async def work() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(1)

    portal.spawn(work)
    assert started.wait(10)
    portal.stop()
    assert ended == [1]
    assert portal.running
    portal.spawn(work)
    portal.run(lambda: asyncio.sleep(0))
    portal.close()
    assert ended == [1, 1]


def test_a_failure_in_the_background_is_logged(
    portal: Portal, caplog: pytest.LogCaptureFixture
) -> None:
    """Background work that fails is logged, on the loop and in a thread, and harms nothing."""
    ended = threading.Event()

    async def fail() -> None:
        raise ValueError("in a task")

    def fail_blocking() -> None:
        try:
            raise ValueError("in a thread")
        finally:
            ended.set()

    portal.spawn(fail)
    portal.thread(fail_blocking)
    assert ended.wait(10)
    portal.run(lambda: asyncio.sleep(0))
    portal.close()
    assert "in a task" in caplog.text
    assert "in a thread" in caplog.text
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2


def test_contexts(portal: Portal) -> None:
    """A worker sees its caller's context; what is spawned belongs to nobody's."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    seen: list[str] = []
    done = threading.Event()
    variable.set("caller's")

    async def spawned() -> None:
        seen.append(variable.get())
        done.set()

    portal.thread(lambda: seen.append(variable.get()))
    portal.close()
    assert seen == ["caller's"]
    portal.spawn(spawned)
    assert done.wait(10)
    assert seen == ["caller's", "none"]


def test_closing_from_its_own_thread(portal: Portal) -> None:
    """Closing on the portal's own thread ends that thread afterwards."""
    threads: list[threading.Thread] = []

    async def this() -> None:
        threads.append(threading.current_thread())

    portal.run(this)

    async def close() -> None:
        portal.close()

    portal.spawn(close)
    threads[0].join(10)
    assert not threads[0].is_alive()


def test_a_caller_that_is_interrupted(portal: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is interrupted while it waits cancels what it waited for."""
    started, cancelled = threading.Event(), threading.Event()

    async def work() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    def interrupted(future: Future[None]) -> None:
        assert started.wait(10)
        raise KeyboardInterrupt

    monkeypatch.setattr(Future, "result", interrupted)
    with pytest.raises(KeyboardInterrupt):
        portal.run(work)
    monkeypatch.undo()
    assert cancelled.wait(10)


def test_a_forked_child(portal: Portal) -> None:
    """A child of a fork has a portal of its own, and closing it leaves the parent's running."""
    portal.run(name)

    def child() -> None:
        assert not portal.running
        assert portal.run(name) == "tiercache-test"
        portal.close()

    assert in_a_child(child)
    assert portal.run(name) == "tiercache-test"


def test_a_forked_child_that_closes_first(portal: Portal) -> None:
    """To close in the child what the parent has started is nothing, and does not wait."""
    pid = os.getpid()
    portal.run(name)
    assert in_a_child(portal.close)
    assert os.getpid() == pid
    assert portal.run(name) == "tiercache-test"
