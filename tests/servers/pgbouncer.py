"""A private PgBouncer in front of a private PostgreSQL."""

import re
import signal

from tests.servers.postgres import PostgresServer
from tests.servers.process import ServerProcess, find_program


class PgBouncer(ServerProcess):
    """A PgBouncer that leads to every database of `server`, whoever asks.

    Keyword arguments are settings of its ini file: `PgBouncer(server, max_client_conn=10)`. The
    small `default_pool_size` makes clients share connections, which is what tests are about.
    """

    account = PostgresServer.account  # it refuses to run as root, too
    gentle = signal.SIGINT  # "safe": transactions come to their end first

    def __init__(
        self,
        server: PostgresServer,
        pool_mode: str = "transaction",
        default_pool_size: int = 2,
        **settings: str | int,
    ) -> None:
        super().__init__()
        # Debian puts it beside the system's own programs, which a plain user's PATH leaves out.
        self._program = find_program("pgbouncer", "pgbouncer", ("/usr/sbin",))
        self._server = server
        self._settings = {
            "pool_mode": pool_mode,
            "default_pool_size": default_pool_size,
            **settings,
        }

    @property
    def version(self) -> tuple[int, ...]:
        """Major, minor and patch number."""
        found = re.search(r"PgBouncer (\d+)\.(\d+)\.(\d+)", self.run(self._program, "--version"))
        assert found is not None
        return tuple(map(int, found.groups()))

    def through(self, dsn: str) -> str:
        """Return the DSN that reaches a database of the server by way of this PgBouncer."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{dsn.rpartition('/')[2]}"

    def admin(self, command: str) -> str:
        """Run a command of its console; return the rows as `PostgresServer.psql` does."""
        return self._server.psql(command, self.through("/pgbouncer"))

    def command(self) -> list[str]:
        """Write the settings, which it reads from a file alone; return the command line."""
        settings: dict[str, str | int] = {
            "listen_addr": "127.0.0.1",
            "listen_port": self.port,
            "unix_socket_dir": "",
            "auth_type": "any",
            **self._settings,
        }
        lines = [
            "[databases]",
            f"* = host=127.0.0.1 port={self._server.port} user=postgres",
            "[pgbouncer]",
            *(f"{name} = {value}" for name, value in settings.items()),
        ]
        file = self.folder / "pgbouncer.ini"
        file.write_text("\n".join(lines) + "\n")
        return [self._program, str(file)]

    def is_ready(self) -> bool:
        """Look for what it logs once it listens; somebody else's answer cannot be taken for it."""
        return f"[{self.pid}] LOG process up" in self.log
