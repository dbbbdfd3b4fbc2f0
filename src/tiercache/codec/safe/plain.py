"""Annotations whose values say by themselves what they are.

They are checked against the annotation and written without it, so that a reader who knows no
annotation (``cache.get(key)``) can read them too.
"""

from __future__ import annotations

import types
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final, Union, get_args, get_origin
from uuid import UUID

_SCALARS: Final = frozenset(
    {None, types.NoneType, Any, bool, int, float, str, bytes, Ellipsis}
    | {datetime, date, time, timedelta, Decimal, UUID}
)
_CONTAINERS: Final = frozenset({list, tuple, set, frozenset, dict, Union, types.UnionType})


def describes_itself(hint: Any) -> bool:
    """Tell whether values of the annotation come back the same without it."""
    origin = get_origin(hint)
    if origin is not None:
        return origin in _CONTAINERS and all(map(describes_itself, get_args(hint)))
    try:
        return hint in _SCALARS or hint in _CONTAINERS
    except TypeError:  # something without a hash
        return False
