"""The errors of poolkit, one root for all of them.

::

    PoolError                           (an acquire that could never succeed raises the root itself)
    ├── PoolClosed(RuntimeError)        use after close, or from the wrong loop or process
    ├── AcquireTimeout(TimeoutError)    no connection came free in time
    ├── TooManyWaiters                  the queue is as long as it may get
    ├── ConnectFailed(ConnectionError)  the database could not be reached, or refused
    ├── ConnectionLost(ConnectionError) it was reached, and went away
    ├── ConnectionVoid(RuntimeError)    a connection was used after it was given back
    └── TransactionError                a transaction was used in a way it cannot be
        ├── CommitRolledBack            COMMIT was answered with ROLLBACK
        └── CommitUnknown               the connection died while COMMIT was under way

Each is also the builtin that a stranger would catch. Every other error of a database passes
unchanged, as its driver raised it.
"""

from __future__ import annotations


class PoolError(Exception):
    """Root of everything this package raises by itself; ``pool`` is the pool's name."""

    def __init__(self, message: str, *, pool: str = "") -> None:
        super().__init__(message)
        self.pool = pool


class PoolClosed(PoolError, RuntimeError):
    """Refuse the use of a pool that is closed, or that belongs to another loop or process."""


class AcquireTimeout(PoolError, TimeoutError):
    """Report a wait for a connection that took too long.

    ``timeout`` is what was waited (seconds); ``size``, ``used``, ``idle``, ``waiting`` and
    ``max_size`` are the pool's figures at that moment; ``holder`` describes the task that has
    held a connection longest, and ``last_error`` is the last failure to connect, if any.
    """

    def __init__(
        self,
        message: str,
        *,
        timeout: float,
        pool: str = "",
        size: int = 0,
        used: int = 0,
        idle: int = 0,
        waiting: int = 0,
        max_size: int = 0,
        holder: str | None = None,
        last_error: BaseException | None = None,
    ) -> None:
        super().__init__(message, pool=pool)
        self.timeout = timeout
        self.size = size
        self.used = used
        self.idle = idle
        self.waiting = waiting
        self.max_size = max_size
        self.holder = holder
        self.last_error = last_error


class TooManyWaiters(PoolError):
    """Refuse to queue: ``waiting`` requests wait already and ``max_waiting`` is the limit."""

    def __init__(self, message: str, *, pool: str, waiting: int, max_waiting: int) -> None:
        super().__init__(message, pool=pool)
        self.waiting = waiting
        self.max_waiting = max_waiting


class ConnectFailed(PoolError, ConnectionError):
    """Report a connection that could not be made; the driver's error is its cause.

    ``server`` says where to, without credentials.
    """

    def __init__(self, message: str, *, server: str, pool: str = "") -> None:
        super().__init__(message, pool=pool)
        self.server = server


class ConnectionLost(PoolError, ConnectionError):
    """Report a connection that went away; ``sqlstate`` is what the server said last, if anything.

    ``sent`` is False when the connection was gone before the statement could be sent.
    """

    def __init__(
        self, message: str, *, pool: str = "", sqlstate: str | None = None, sent: bool = True
    ) -> None:
        super().__init__(message, pool=pool)
        self.sqlstate = sqlstate
        self.sent = sent


class ConnectionVoid(PoolError, RuntimeError):
    """Refuse the use of a connection, or of a transaction on it, that was given back."""


class TransactionError(PoolError):
    """Refuse a step that a transaction cannot take in its state or from this task."""


class CommitRolledBack(TransactionError):
    """Report a COMMIT that the server answered with ROLLBACK: nothing was written.

    It happens when an error inside the transaction was caught and not raised again.
    """


class CommitUnknown(TransactionError):
    """Report a connection lost during COMMIT: the changes may be there or not, nobody can say.

    Look for them before doing it again.
    """
