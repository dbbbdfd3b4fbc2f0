"""The cache's own loop thread: where background work runs, and the way to a loop for sync callers.

The thread is a daemon, started at first need and again after a fork. It owns every task that is
spawned on it; closing cancels them and waits. Worker threads for sync loaders that run behind their
callers (refresh-ahead, timeouts) are owned here too.
"""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import logging
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

logger = logging.getLogger("tiercache")

_JOIN = 5.0
"""Seconds that closing waits for the thread, and for each worker."""


class Portal:
    """A loop in a daemon thread of its own."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._workers: set[threading.Thread] = set()
        self._relief: Portal | None = None
        _portals.add(self)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The running loop; started by the first who asks."""
        with self._lock:
            if self._loop is None or self._pid != os.getpid():
                self._start()
            assert self._loop is not None
            return self._loop

    def _start(self) -> None:
        self._pid = os.getpid()
        self._tasks = set()
        self._workers = set()
        self._relief = None
        loop = self._loop = asyncio.new_event_loop()
        ready = threading.Event()

        def main() -> None:
            asyncio.set_event_loop(loop)
            loop.call_soon(ready.set)
            try:
                loop.run_forever()
            finally:
                loop.run_until_complete(loop.shutdown_asyncgens())
                loop.close()

        self._thread = threading.Thread(target=main, name=f"tiercache-{self._name}", daemon=True)
        self._thread.start()
        ready.wait()

    def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine on the loop and block until it is done.

        Called on the loop's own thread (by an event handler that calls a sync function), a second
        portal takes over for that call: blocking the loop that has to do the work would hang it.
        So does a third for a call on the second one's thread.
        """
        loop = self.loop
        if self._is_blocked_by(threading.current_thread()):
            if self._relief is None:
                self._relief = Portal(f"{self._name}-relief")
            return self._relief.run(work)
        future = asyncio.run_coroutine_threadsafe(_call(work), loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _is_blocked_by(self, thread: threading.Thread) -> bool:
        """Whether the loop cannot turn while this thread waits: it waits for the thread itself."""
        if thread is self._thread:
            return True
        return self._relief is not None and self._relief._is_blocked_by(thread)

    def spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a coroutine in the background, owned by this portal; its failure is logged."""
        context = contextvars.Context()  # background work belongs to nobody's trace or transaction

        def begin() -> None:
            task = asyncio.get_running_loop().create_task(_logged(work), context=context)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        self.loop.call_soon_threadsafe(begin)

    def thread(self, work: Callable[[], None]) -> None:
        """Run blocking work in a daemon thread, in a copy of the caller's context."""
        context = contextvars.copy_context()

        def main() -> None:
            try:
                context.run(work)
            except Exception:
                logger.exception("background work of cache %r failed", self._name)
            finally:
                self._workers.discard(threading.current_thread())

        worker = threading.Thread(target=main, name=f"tiercache-{self._name}-load", daemon=True)
        self._workers.add(worker)
        worker.start()

    @property
    def running(self) -> bool:
        """Whether the thread has been started in this process."""
        return self._loop is not None and self._pid == os.getpid()

    def stop(self) -> None:
        """Cancel what was spawned and wait for it; the loop goes on."""
        if self.running and threading.current_thread() is not self._thread:
            self.run(lambda: _cancel(self._tasks))

    def close(self) -> None:
        """Cancel what runs, wait for it, and end the thread; it starts again when needed."""
        with self._lock:
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
            mine = self._pid == os.getpid()
        if loop is None or thread is None or not mine:
            return
        if self._relief is not None:
            self._relief.close()
        if thread is threading.current_thread():
            loop.call_soon(loop.stop)
            return
        try:
            asyncio.run_coroutine_threadsafe(_cancel(self._tasks), loop).result(_JOIN)
        except TimeoutError:
            logger.warning("background work of cache %r did not end in %s s", self._name, _JOIN)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_JOIN)
        for worker in tuple(self._workers):
            worker.join(_JOIN)


async def _call(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    return await work()


async def _logged(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    try:
        await work()
    except Exception:
        logger.exception("background work of a cache failed")


async def _cancel(tasks: set[asyncio.Task[Any]]) -> None:
    waiting = list(tasks)
    for task in waiting:
        task.cancel()
    if waiting:
        await asyncio.wait(waiting, timeout=_JOIN)


_portals: weakref.WeakSet[Portal] = weakref.WeakSet()


def _after_fork() -> None:
    for portal in list(_portals):  # the threads that may have held these stayed behind
        portal._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@atexit.register
def _close_all() -> None:
    # A daemon thread that is still inside the interpreter when it is torn down can crash it.
    for portal in list(_portals):
        portal.close()
