"""One Redis server as a cache sees it: usable from every loop and thread, found by its URL."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from tiercache._deadline import Deadline
from tiercache._redis.address import Address
from tiercache.errors import PolicyError

if TYPE_CHECKING:
    from tiercache._redis.client import Answer, Client
    from tiercache._redis.link import Command, Link

OPTIONS: Final = frozenset(
    {
        "client_name",
        "credential_provider",
        "password",
        "ssl_ca_certs",
        "ssl_ca_data",
        "ssl_ca_path",
        "ssl_cert_reqs",
        "ssl_certfile",
        "ssl_check_hostname",
        "ssl_keyfile",
        "ssl_password",
        "username",
    }
)
"""Options that are handed to redis-py's connections as they are."""


class Server:
    """The clients of one server, one for each event loop that asks for something.

    Loops come and go: a client is closed with its loop, and forgotten. A child process after a fork
    begins without clients and leaves those of its parent alone.
    """

    def __init__(
        self,
        address: Address,
        *,
        timeout: float,
        max_connections: int,
        options: Mapping[str, object] | None = None,
    ) -> None:
        self.address = address
        self.timeout = timeout
        self._max_connections = max_connections
        self._options = dict(options or {})
        unknown = self._options.keys() - OPTIONS
        if unknown:
            raise PolicyError(
                f"unknown option {min(unknown)!r} for Redis at {address}; known are "
                f"timeout, max_connections, {', '.join(sorted(OPTIONS))}"
            )
        # From a URL it comes as text, and text is true.
        check = self._options.get("ssl_check_hostname")
        if isinstance(check, str):
            if check not in ("true", "false"):
                raise PolicyError(f"ssl_check_hostname is true or false, not {check!r}")
            self._options["ssl_check_hostname"] = check == "true"
        self._clients: dict[asyncio.AbstractEventLoop, Client] = {}
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._inherited: list[dict[asyncio.AbstractEventLoop, Client]] = []

    def __repr__(self) -> str:
        return f"<Redis at {self.address}>"

    async def call(
        self, commands: Sequence[Command], operation: str, *, run: bytes | None = None
    ) -> Answer:
        """Send the commands and return their replies, refusals among them.

        With ``run``, only to that life of the server: `RunChanged` otherwise. `TierError` when no
        answer comes.
        """
        client = self._clients.get(asyncio.get_running_loop())
        if client is None or client.closed:
            client = await self._open()
        return await client.call(commands, operation, run)

    async def run(self, operation: str) -> bytes:
        """Return the run of the server as last seen on this loop, connecting if need be."""
        client = self._clients.get(asyncio.get_running_loop())
        if client is not None and client.run is not None and not client.closed:
            return client.run
        return (await self.call([(b"PING",)], operation)).run

    async def connect(self) -> Link:
        """Open a connection of its own, for a reader that blocks; the caller closes it."""
        from tiercache._redis.failures import tier_error
        from tiercache._redis.link import Link

        try:
            async with Deadline(self.timeout):
                return await Link.open(self.address, self._options)
        except Exception as error:
            raise tier_error(error, self.address, "connect") from error

    async def aclose(self) -> None:
        """Close the clients of every loop that still runs; each on its own loop."""
        with self._lock:
            self._disown()
            clients, self._clients = self._clients, {}
        here = asyncio.get_running_loop()
        elsewhere = []
        for loop, client in clients.items():
            if loop is here:
                await client.aclose()
            elif loop.is_running():
                closing = asyncio.run_coroutine_threadsafe(client.aclose(), loop)
                elsewhere.append(asyncio.wrap_future(closing))
        if elsewhere:
            # A loop that stops at this very moment would never answer.
            await asyncio.wait(elsewhere, timeout=4 * self.timeout)

    async def _open(self) -> Client:
        from tiercache._redis.client import Client

        loop = asyncio.get_running_loop()
        client = Client(
            self.address, self._options, timeout=self.timeout, max_links=self._max_connections
        )
        with self._lock:
            self._disown()
            current = self._clients.get(loop)
            if current is not None and not current.closed:
                return current
            self._clients = {
                known: its for known, its in self._clients.items() if not known.is_closed()
            }
            self._clients[loop] = client
        await client.open()
        return client

    def _disown(self) -> None:
        """Put away, unclosed, what a fork copied: the sockets are still the parent's."""
        if self._process != os.getpid():
            self._process = os.getpid()
            self._inherited.append(self._clients)
            self._clients = {}


def refuse(replies: Sequence[object], server: Server, operation: str) -> None:
    """Raise the first refusal among the replies as `TierError`."""
    for reply in replies:
        if isinstance(reply, Exception):
            from tiercache._redis.failures import tier_error

            raise tier_error(reply, server.address, operation) from reply
