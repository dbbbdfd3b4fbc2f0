"""Ports for private servers."""

import random
import socket
from pathlib import Path

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST = 15_000
_ATTEMPTS = 200


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on, below the kernel's ephemeral range.

    A port the kernel hands out for `bind(0)` is one it may also give to any outgoing connection:
    while the server on it is down, a client that keeps reconnecting can be connected to itself and
    hold the port. Below that range neither can happen, so a stopped server finds its port free.
    """
    for _ in range(_ATTEMPTS):
        port = random.randrange(_LOWEST, _ephemeral_start())
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"no free port between {_LOWEST} and {_ephemeral_start()}")


def _ephemeral_start() -> int:
    try:
        start = int(_RANGE.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 32_768
    return start if start > _LOWEST + 1_000 else 65_536
