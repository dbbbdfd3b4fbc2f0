"""Invalidations that ride in a database transaction: they take effect if and when it commits.

`collecting` gathers what a transaction invalidates and writes it down in the same transaction
(`table`, `letters`); `relay` carries it out once it has committed, here or, if this process dies in
between, in whatever process is alive.
"""

from tiercache.outbox.collecting import Deed, Outbox, Scope
from tiercache.outbox.relay import Relay
from tiercache.outbox.table import OutboxTable, Receipt

__all__ = ["Deed", "Outbox", "OutboxTable", "Receipt", "Relay", "Scope"]
