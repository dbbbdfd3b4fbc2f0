"""Equality that also compares types, all the way down."""

from __future__ import annotations

import dataclasses
import math
from datetime import datetime, time
from typing import Any


def same(left: Any, right: Any) -> bool:
    """Tell whether two values are equal and of the same types everywhere inside."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return left.hex() == right.hex() or (math.isnan(left) and math.isnan(right))
    if isinstance(left, dict):
        return len(left) == len(right) and all(
            same(key, other) and same(left[key], right[other])
            for key, other in zip(left, right, strict=True)
        )
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, set | frozenset):
        return len(left) == len(right) and all(
            any(same(item, other) for other in right) for item in left
        )
    if isinstance(left, datetime | time):
        zones = same_zone(left.tzinfo, right.tzinfo)
        return left.replace(tzinfo=None) == right.replace(tzinfo=None) and (
            left.fold == right.fold and zones
        )
    if dataclasses.is_dataclass(left):
        names = [field.name for field in dataclasses.fields(left) if hasattr(left, field.name)]
        return all(same(getattr(left, name), getattr(right, name)) for name in names)
    return bool(left == right) or repr(left) == repr(right)  # a NaN of Decimal


def same_zone(left: Any, right: Any) -> bool:
    """Tell whether two zones are of one type and name."""
    return type(left) is type(right) and repr(left) == repr(right)
