"""The other processes, as this one sees them: begun, asked, and ended with it."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from itertools import count
from typing import Any, Final

from tiercache.cli.demo.site import Site

_MODULE: Final = "tiercache.cli.demo.worker"
_START: Final = 15.0
_ANSWER: Final = 10.0
_END: Final = 5.0


class WorkerFailed(Exception):
    """Another process ended before its time, or does not answer."""


class RemoteWorker:
    """One other process."""

    def __init__(self, process: Process) -> None:
        self.figures: dict[str, Any] = {}
        """What it told last."""
        self._process = process
        self._asked: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._numbers = count()
        self._hearing = asyncio.create_task(self._hear())

    async def begin(self, site: Site, seed: int) -> None:
        """Tell it where the data is, and wait until it is there."""
        await self._ask({"site": asdict(site), "seed": seed}, _START)

    async def ask(self, question: str, **details: Any) -> dict[str, Any]:
        """Ask a question and return the answer."""
        return await self._ask({"ask": question, **details}, _ANSWER)

    async def end(self) -> None:
        """Close its input, which ends it, and wait for that; kill it if it does not."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(_END):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await asyncio.wait((self._hearing,))

    async def _ask(self, message: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        assert self._process.stdin is not None
        number = next(self._numbers)  # whoever asked may be gone when the answer comes
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        try:
            self._process.stdin.write(json.dumps({"number": number, **message}).encode() + b"\n")
            await self._process.stdin.drain()
            done, _ = await asyncio.wait(
                (answer, self._hearing), timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
        except OSError as error:
            raise WorkerFailed("a worker process has ended") from error
        finally:
            del self._asked[number]
        if answer in done:
            return answer.result()
        raise WorkerFailed("a worker process " + ("has ended" if done else "does not answer"))

    async def _hear(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            message = json.loads(line)
            if "figures" in message:
                self.figures = message["figures"]
            elif (asked := self._asked.get(message["number"])) is not None:
                asked.set_result(message["answer"])


class Workers:
    """All other processes of a run."""

    def __init__(self, workers: list[RemoteWorker]) -> None:
        self._workers = workers

    def __len__(self) -> int:
        return len(self._workers)

    async def ask(self, question: str, **details: Any) -> list[dict[str, Any]]:
        """Ask all of them at once."""
        return await asyncio.gather(*(each.ask(question, **details) for each in self._workers))

    async def stop(self) -> None:
        """End their load and take their last figures."""
        for worker, figures in zip(self._workers, await self.ask("stop"), strict=True):
            worker.figures = figures

    @property
    def figures(self) -> list[dict[str, Any]]:
        """What each told last."""
        return [each.figures for each in self._workers if each.figures]


@asynccontextmanager
async def started(site: Site, number: int, seed: int) -> AsyncIterator[Workers]:
    """Run that many other processes for as long as the block lasts."""
    workers: list[RemoteWorker] = []
    try:
        while len(workers) < number:
            workers.append(RemoteWorker(await _spawned()))
        await asyncio.gather(
            *(each.begin(site, seed + index) for index, each in enumerate(workers, start=1))
        )
        yield Workers(workers)
    finally:
        await asyncio.gather(*(each.end() for each in workers))


async def _spawned() -> Process:
    # A session of its own: the interrupt from the keyboard is for this process, which ends it.
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", _MODULE, stdin=PIPE, stdout=PIPE, start_new_session=True
    )
