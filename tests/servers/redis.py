"""A private Redis."""

from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.servers.process import ServerProcess, find_program


class RedisServer(ServerProcess):
    """A Redis that keeps nothing on disk: a restart forgets everything.

    Keyword arguments are settings of `redis.conf`, with `_` for `-`: `RedisServer(maxmemory="2mb",
    maxmemory_policy="allkeys-lru")`.
    """

    def __init__(self, **settings: str | int) -> None:
        super().__init__()
        self._program = find_program("redis-server", "redis-server")
        self._settings = settings

    @property
    def url(self) -> str:
        """The URL of database 0."""
        return f"redis://127.0.0.1:{self.port}/0"

    def cli(self, *command: str | bytes | int | float) -> Any:
        """Send one command over a connection of its own; return the answer, text decoded."""
        with self._client(timeout=5) as client:
            return client.execute_command(*command)

    def command(self) -> list[str]:
        """Return the command line; Redis reads settings from it as from its file."""
        settings: dict[str, str | int] = {
            "port": self.port,
            "bind": "127.0.0.1",
            "dir": str(self.folder),
            "save": "",
            "appendonly": "no",
            "loglevel": "warning",
        }
        settings.update((name.replace("_", "-"), value) for name, value in self._settings.items())
        return [
            self._program,
            *(part for name, value in settings.items() for part in (f"--{name}", str(value))),
        ]

    def is_ready(self) -> bool:
        """Ask who answers: on a port taken by another server, that one would."""
        with self._client(timeout=0.5) as client:
            try:
                return bool(client.info("server")["process_id"] == self.pid)
            except (redis.ConnectionError, redis.TimeoutError):
                return False

    def _client(self, timeout: float) -> redis.Redis:
        return redis.Redis(
            port=self.port,
            password=str(self._settings.get("requirepass", "")) or None,
            decode_responses=True,
            socket_timeout=timeout,
            retry=Retry(NoBackoff(), 0),
        )
