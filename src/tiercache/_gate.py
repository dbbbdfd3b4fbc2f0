"""Whether the hot path may answer by itself, folded into one number to compare with the time."""

from __future__ import annotations

from tiercache.entry import FOREVER


class Gate:
    """Closes the hot path of every function of a cache at once.

    A hit is served without a second thought while ``now < gate.until``. That is minus infinity
    while somebody holds the gate closed (a bypass, a transaction that has invalidated something,
    a closed cache), else the time until which the bus vouches for what L1 holds. Beyond it a hit
    goes the slow way, which looks closer; so a hit pays one comparison for all of it.
    """

    __slots__ = ("_holders", "trusted_until", "until")

    def __init__(self) -> None:
        self._holders = 0
        self.trusted_until = FOREVER
        self.until = FOREVER

    def hold(self) -> None:
        """Close the gate until the matching `let_go`; called under the cache's lock."""
        self._holders += 1
        self.until = -FOREVER

    def let_go(self) -> None:
        """Undo one `hold`; called under the cache's lock."""
        self._holders -= 1
        if not self._holders:
            self.until = self.trusted_until

    def trust(self, until: float) -> None:
        """Set the time until which the bus vouches for L1; called under the cache's lock."""
        self.trusted_until = until
        if not self._holders:
            self.until = until
