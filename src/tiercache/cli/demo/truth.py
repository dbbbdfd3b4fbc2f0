"""What is known to be committed, and whether reads agree with it.

A writer notes a version once its transaction block has returned. Whoever reads notes the version
before the call: what the call returns must not be older, and must never have been rolled back.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from tiercache.cli.demo.service import Order, User

_RECENT: Final = 50
DECLINED: Final = "never committed"
"""The name and the product that only transactions write which roll back."""


@dataclass(slots=True)
class Truth:
    """The latest that was committed: versions by user, numbers of orders by user.

    ``recent`` are the users who were renamed last.
    """

    versions: dict[int, int] = field(default_factory=dict)
    orders: dict[int, int] = field(default_factory=dict)
    recent: deque[int] = field(default_factory=lambda: deque(maxlen=_RECENT))

    def renamed(self, user_id: int, version: int) -> None:
        """Take a version; writers may return in another order than they committed in."""
        self.versions[user_id] = max(self.versions.get(user_id, 0), version)
        self.recent.append(user_id)

    def ordered(self, user_id: int, number: int) -> None:
        """Take the number of an order."""
        self.orders[user_id] = max(self.orders.get(user_id, 0), number)


@dataclass(slots=True)
class Tally:
    """Reads that one task, thread or process compared with the truth. Not shared by threads."""

    reads: int = 0
    stale: int = 0
    uncommitted: int = 0

    def user(self, user: User, least: int) -> None:
        """Compare a user with the least version it must have."""
        self.reads += 1
        self.stale += user.version < least
        self.uncommitted += user.name == DECLINED

    def orders(self, orders: list[Order], least: int) -> None:
        """Compare orders with the least number that the newest must have."""
        self.reads += 1
        self.stale += (orders[0].id if orders else 0) < least
        self.uncommitted += any(order.product == DECLINED for order in orders)

    def add(self, other: Tally) -> None:
        """Add the other's figures to these."""
        self.reads += other.reads
        self.stale += other.stale
        self.uncommitted += other.uncommitted
