"""One thing per loop: made once, closed on its own loop."""

from __future__ import annotations

import asyncio
import os
import threading

from tiercache._sql.per_loop import PerLoop


class Thing:
    """Remembers the loop that made it and the one that closed it."""

    def __init__(self) -> None:
        self.made_on = asyncio.get_running_loop()
        self.closed_on: list[asyncio.AbstractEventLoop] = []

    async def close(self) -> None:
        """Take note of it."""
        await asyncio.sleep(0)
        self.closed_on.append(asyncio.get_running_loop())


async def test_a_loop_has_one() -> None:
    """Tasks that ask at the same moment get the same one."""
    things = PerLoop(Thing)
    got = await asyncio.gather(*(things.get() for _ in range(10)))
    assert len(set(map(id, got))) == 1
    await things.aclose()


async def test_after_closing_the_next_is_new() -> None:
    """Closing closes once; asking again makes another."""
    things = PerLoop(Thing)
    first = await things.get()
    await things.aclose()
    await things.aclose()
    second = await things.get()
    await things.aclose()
    assert len(first.closed_on) == len(second.closed_on) == 1
    assert first is not second


def test_it_is_closed_when_its_loop_ends() -> None:
    """`asyncio.run` closes what was made in it, on that loop, while it still runs."""
    things = PerLoop(Thing)
    first, second = asyncio.run(things.get()), asyncio.run(things.get())
    assert first is not second
    assert first.closed_on == [first.made_on]
    assert second.closed_on == [second.made_on]


async def test_closing_reaches_the_loops_of_other_threads() -> None:
    """What a loop in another thread has is closed over there, once."""
    things = PerLoop(Thing)
    made: list[Thing] = []
    ready, stop = threading.Event(), threading.Event()

    async def stay() -> None:
        made.append(await things.get())
        ready.set()
        await asyncio.to_thread(stop.wait, 10)

    thread = threading.Thread(target=lambda: asyncio.run(stay()))
    thread.start()
    try:
        assert await asyncio.to_thread(ready.wait, 10)
        await things.aclose()
    finally:
        stop.set()
        await asyncio.to_thread(thread.join, 10)
    assert made[0].closed_on == [made[0].made_on]


def test_a_child_process_begins_with_none() -> None:
    """After a fork the child makes its own and leaves what its parent has alone."""
    things = PerLoop(Thing)

    async def main() -> None:
        mine = await things.get()
        child = os.fork()
        if child == 0:
            os._exit(0 if own_in_a_child(things, mine) else 1)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert await things.get() is mine

    asyncio.run(main())


def own_in_a_child(things: PerLoop[Thing], parents: Thing) -> bool:
    """Say whether a new loop gets a new one, the parent's is not closed, and not there any more."""
    asyncio.events._set_running_loop(parents.made_on)
    left_alone = things.held() is None
    asyncio.events._set_running_loop(None)
    made: list[Thing] = []

    async def ask() -> None:
        made.append(await things.get())
        await things.aclose()

    thread = threading.Thread(target=lambda: asyncio.run(ask()))
    thread.start()
    thread.join(10)
    return left_alone and made[0] is not parents and parents.closed_on == []
