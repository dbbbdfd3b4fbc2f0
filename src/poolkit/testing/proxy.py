"""A proxy before a real server, that counts and that breaks."""

from __future__ import annotations

import asyncio
import socket
import struct
from types import TracebackType
from typing import Self


class FaultProxy:
    """Forwards TCP connections to ``host:port``, until told otherwise.

    ``round_trips`` counts how often a client spoke after the server had (or at the start).
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.round_trips = 0
        self.connections = 0
        """Connections accepted since the start."""
        self.delay = 0.0
        """Seconds before each piece is forwarded."""
        self.piece = 65536
        """Bytes forwarded at once: 1 drips."""
        self.kill_after: bytes | None = None
        """When a client sent this, the server gets it, and the client never hears the answer."""
        self._flowing = asyncio.Event()
        self._flowing.set()

    async def __aenter__(self) -> Self:
        """Listen on a free port of the loopback."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Cut everything."""
        await self.refuse()
        self.cut()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def black_hole(self) -> None:
        """Accept and take everything, forward and answer nothing."""
        self._flowing.clear()

    def heal(self) -> None:
        """Forward again."""
        self.delay, self.piece, self.kill_after = 0.0, 65536, None
        self._flowing.set()

    def cut(self) -> None:
        """Reset every connection."""
        for link in list(self._links):
            link.reset()
        self._flowing.set()

    async def refuse(self) -> None:
        """Accept no more connections."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        link = _Link(self, reader, writer)
        self._links.add(link)
        try:
            await self._flowing.wait()
            await link.run(*self._target)
        except (OSError, asyncio.IncompleteReadError):
            pass  # one of the two went away
        finally:
            self._links.discard(link)
            link.reset()
            self._tasks.discard(task)

    async def flow(self) -> None:
        """Wait while there is a black hole."""
        await self._flowing.wait()


class _Link:
    """One client and its connection to the server."""

    def __init__(
        self, proxy: FaultProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._proxy = proxy
        self._client = (reader, writer)
        self._writers = [writer]
        self._server_spoke = True
        self._deaf = False

    async def run(self, host: str, port: int) -> None:
        """Forward both ways until one side ends."""
        server = await asyncio.open_connection(host, port)
        self._writers.append(server[1])
        ways = [
            asyncio.ensure_future(self._forward(self._client[0], server[1], True)),
            asyncio.ensure_future(self._forward(server[0], self._client[1], False)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _forward(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, from_client: bool
    ) -> None:
        proxy = self._proxy
        while data := await source.read(proxy.piece):
            if from_client:
                proxy.round_trips += self._server_spoke
            elif self._deaf:
                self.reset()
                return
            self._server_spoke = not from_client
            await proxy.flow()
            if proxy.delay:
                await asyncio.sleep(proxy.delay)
            if from_client and proxy.kill_after is not None and proxy.kill_after in data:
                self._deaf = True
            sink.write(data)
            await sink.drain()

    def reset(self) -> None:
        """End both connections without a goodbye."""
        for writer in self._writers:
            sock = writer.get_extra_info("socket")
            if sock is not None and sock.fileno() >= 0:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
