"""Every metric and span of poolkit: what the code makes, and what the reference page says."""

from __future__ import annotations

from typing import Literal, NamedTuple

POOL_NAME = "db.client.connection.pool.name"
STATE = "db.client.connection.state"
SYSTEM = "db.system.name"
ERROR = "error.type"
REASON = "poolkit.connection.close.reason"
OUTCOME = "poolkit.transaction.outcome"
ISOLATION = "poolkit.transaction.isolation_level"
READ_ONLY = "poolkit.transaction.read_only"
ATTEMPT = "poolkit.transaction.attempt"


class Metric(NamedTuple):
    """One metric; all of them also carry the pool's name."""

    name: str
    kind: Literal["observable_counter", "observable_up_down_counter", "histogram"]
    unit: str
    description: str
    attributes: tuple[str, ...] = ()


class SpanKind(NamedTuple):
    """One kind of span; ``{pool}`` stands for the pool's name."""

    name: str
    when: str
    attributes: tuple[str, ...]


COUNT = Metric(
    "db.client.connection.count",
    "observable_up_down_counter",
    "{connection}",
    "Connections by state.",
    (STATE,),
)
MAX = Metric(
    "db.client.connection.max",
    "observable_up_down_counter",
    "{connection}",
    "Connections allowed.",
)
IDLE_MAX = Metric(
    "db.client.connection.idle.max",
    "observable_up_down_counter",
    "{connection}",
    "Idle connections allowed.",
)
IDLE_MIN = Metric(
    "db.client.connection.idle.min",
    "observable_up_down_counter",
    "{connection}",
    "Connections kept at all times.",
)
PENDING = Metric(
    "db.client.connection.pending_requests",
    "observable_up_down_counter",
    "{request}",
    "Borrowers that wait for a connection.",
)
TIMEOUTS = Metric(
    "db.client.connection.timeouts",
    "observable_counter",
    "{timeout}",
    "Waits for a connection that ended in vain.",
)
CREATE_TIME = Metric(
    "db.client.connection.create_time",
    "histogram",
    "s",
    "Time to make a connection.",
    (ERROR,),
)
WAIT_TIME = Metric("db.client.connection.wait_time", "histogram", "s", "Time a borrower waited.")
USE_TIME = Metric("db.client.connection.use_time", "histogram", "s", "Time a connection was out.")
CLOSED = Metric(
    "poolkit.connection.closed",
    "observable_counter",
    "{connection}",
    "Connections closed, by reason.",
    (REASON,),
)
LEAKS = Metric(
    "poolkit.connection.leaks",
    "observable_counter",
    "{connection}",
    "Connections that were out for longer than leak_threshold.",
)
TRANSACTION = Metric(
    "poolkit.transaction.duration",
    "histogram",
    "s",
    "Time from BEGIN to the end of a transaction.",
    (OUTCOME, ERROR),
)
RETRIES = Metric(
    "poolkit.transaction.retries",
    "observable_counter",
    "{retry}",
    "Transactions that were run again, by SQLSTATE.",
    (ERROR,),
)

METRICS = (
    COUNT, MAX, IDLE_MAX, IDLE_MIN, PENDING, TIMEOUTS, CREATE_TIME, WAIT_TIME, USE_TIME, CLOSED,
    LEAKS, TRANSACTION, RETRIES,
)  # fmt: skip

SPANS = (
    SpanKind(
        "acquire {pool}",
        "A borrower waited for more than 1 ms, or in vain; made after the fact.",
        (POOL_NAME, SYSTEM, ERROR),
    ),
    SpanKind(
        "transaction {pool}",
        "Every transaction, from BEGIN to its end; current meanwhile.",
        (POOL_NAME, SYSTEM, OUTCOME, ISOLATION, READ_ONLY, ATTEMPT, ERROR),
    ),
)
