"""Doubles and proofs, for the tests of poolkit and for those of its users.

- `run_virtual` runs a coroutine in a loop whose time jumps: an hour of waiting takes no time.
- `StubDriver` is a database without a database: scripted latency, failure and answers.
- `FaultProxy` stands before a real server: it counts round trips and breaks in many ways.
- `cancel_everywhere` cancels a scenario at every single await of it, one run for each.
- `DriverContract` is what every driver is held to.
"""

from poolkit.testing.cancelling import cancel_everywhere
from poolkit.testing.clock import VirtualClock, VirtualLoop, run_virtual
from poolkit.testing.contract import DriverContract
from poolkit.testing.proxy import FaultProxy
from poolkit.testing.stub import StubDriver, StubSession

__all__ = [
    "DriverContract",
    "FaultProxy",
    "StubDriver",
    "StubSession",
    "VirtualClock",
    "VirtualLoop",
    "cancel_everywhere",
    "run_virtual",
]
