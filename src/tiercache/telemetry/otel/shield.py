"""Telemetry cannot hurt: what it raises is logged once and swallowed."""

from __future__ import annotations

import logging
from types import TracebackType

logger = logging.getLogger("tiercache")


class Shield:
    """A ``with`` block around every call of an SDK; reusable, re-entrant, for any thread."""

    __slots__ = ("_logged",)

    def __init__(self) -> None:
        self._logged = False

    def __enter__(self) -> None:
        """Keep nothing: the block may be entered many times at once."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if not isinstance(error, Exception):
            return False
        if not self._logged:
            self._logged = True
            logger.warning("telemetry failed; further failures are not logged", exc_info=error)
        return True
