"""The one slow path: what happens after L1 has missed, for a miss, a refresh and a batch alike.

::

    look    L2, then L3: a readable value ends the search; a miss leaves a lease behind
    load    the user's function, for what no tier had
    fill    L3, then L2, then L1: bottom first, and only where the lease is still there
    land    everybody who waits is told
    wait    for what another process loads (`lease`); then look again

A value that is found but past its time is remembered: it is served when the loader fails or is
slow (`stale_for`), and its own token is the basis that the new value replaces. Others go on reading
it, so its slot cannot hold the lease that tells them of the load: a *claim* beside it does.
"""

from tiercache.loading.direct import Direct
from tiercache.loading.item import Call, Glimpse, Item, KeyCall, Loader
from tiercache.loading.path import Loading, copier, late
from tiercache.loading.wanted import Wanted

__all__ = [
    "Call",
    "Direct",
    "Glimpse",
    "Item",
    "KeyCall",
    "Loader",
    "Loading",
    "Wanted",
    "copier",
    "late",
]
