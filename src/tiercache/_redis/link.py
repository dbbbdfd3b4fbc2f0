"""One connection to a Redis server: a pipeline goes out, as many replies come back.

The connection is redis-py's own class, without its client and pool around it. A link from which
not every reply was read is closed, whatever the reason, so a reply never reaches a later caller.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, NoScriptError, ResponseError

from tiercache._redis import frames
from tiercache._redis.address import Address
from tiercache._redis.scripts import BY_DIGEST

Command: TypeAlias = tuple[bytes, ...]
Reply: TypeAlias = Any
"""What the protocol has: bytes, int, list, None; or the `ResponseError` of a refusal."""

EPOCH: Final = b"tc1:epoch"

_log = logging.getLogger("tiercache.redis")


class Link:
    """One open connection; ``run`` is the life of the server it leads to.

    Not reentrant: the owner sends one pipeline at a time.
    """

    __slots__ = ("_connection", "run")

    def __init__(self, connection: Any, run: bytes) -> None:
        self._connection = connection
        self.run = run

    @classmethod
    async def open(cls, address: Address, options: Mapping[str, object]) -> Link:
        """Connect, authenticate and learn the server's run id; the caller sets the time limit."""
        link = cls(_connection(address, options), b"")
        try:
            await link._connection.connect()
            link.run = await link._learn_run()
        except BaseException:
            await link.close()
            raise
        return link

    async def exchange(self, commands: Sequence[Command]) -> list[Reply]:
        """Send the commands together and return their replies, refusals among them.

        Scripts that the server does not know yet are loaded and called again. Any failure closes
        the link and is raised as redis-py has it.
        """
        replies = await self._round_trip(commands)
        unknown = [n for n, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:
            again = [commands[n] for n in unknown]
            scripts = [BY_DIGEST[digest] for digest in {command[1] for command in again}]
            loads: list[Command] = [(b"SCRIPT", b"LOAD", script.source) for script in scripts]
            answers = await self._round_trip([*loads, *again])
            for n, reply in zip(unknown, answers[len(loads) :], strict=True):
                replies[n] = reply
        return replies

    def hand_over(self, protocol: asyncio.Protocol) -> asyncio.Transport:
        """Let somebody else read and write from now on; `close` stays to be called.

        redis-py has no public way to its transport, and none to read without a task that waits.
        """
        transport: asyncio.Transport = self._connection._writer.transport
        transport.set_protocol(protocol)
        return transport

    async def close(self) -> None:
        """Close the socket without waiting for the server."""
        await self._connection.disconnect(nowait=True)

    async def _round_trip(self, commands: Sequence[Command]) -> list[Reply]:
        connection = self._connection
        replies: list[Reply] = []
        try:
            await connection.send_packed_command(_pack(commands), check_health=False)
            for _ in commands:
                try:
                    replies.append(await connection.read_response())
                except ResponseError as refusal:
                    replies.append(refusal.with_traceback(None))
        except BaseException:
            await self.close()
            raise
        return replies

    async def _learn_run(self) -> bytes:
        [info] = await self._round_trip([(b"INFO", b"server")])
        if not isinstance(info, ResponseError):
            rows = info.decode("utf-8", "replace").splitlines()
            facts = dict(row.partition(":")[::2] for row in rows)
            if (mode := facts.get("redis_mode", "standalone")) != "standalone":
                raise ConnectionError(f"it is a {mode} node, and this version needs one server")
            if run_id := facts.get("run_id"):
                return frames.life(run_id)
        _log.warning(
            "Redis does not tell its run id (%s); a key %r stands for it, so values that come "
            "back after a failover or from a snapshot are taken for current ones. Allow INFO.",
            info if isinstance(info, ResponseError) else "INFO has no run_id",
            EPOCH.decode(),
        )
        fresh = os.urandom(frames.TOKEN).hex().encode()
        [made, epoch] = await self._round_trip([(b"SET", EPOCH, fresh, b"NX"), (b"GET", EPOCH)])
        for reply in (made, epoch):
            if isinstance(reply, ResponseError):
                raise reply
        return frames.life((epoch or fresh).decode("ascii"))


def _connection(address: Address, options: Mapping[str, object]) -> Any:
    # Time limits are set around whole round trips, once; the connection itself has none. RESP2
    # measured against RESP3: one round trip less per connection, no difference per command.
    settings: dict[str, Any] = {
        "db": address.database,
        "username": address.username,
        "password": address.password,
        "client_name": "tiercache",
        "protocol": 2,
        "socket_timeout": None,
        "socket_connect_timeout": None,
        "socket_read_size": 65536,
        "health_check_interval": 0,
        "retry": Retry(NoBackoff(), 0),
        "decode_responses": False,
        **options,
    }
    if address.path is not None:
        return UnixDomainSocketConnection(path=address.path, **settings)
    kind = SSLConnection if address.tls else Connection
    return kind(host=address.host, port=address.port, socket_keepalive=True, **settings)


def _pack(commands: Iterable[Command]) -> bytes:
    parts: list[bytes] = []
    for command in commands:
        parts.append(b"*%d\r\n" % len(command))
        for argument in command:
            parts += (b"$%d\r\n" % len(argument), argument, b"\r\n")
    return b"".join(parts)
