"""Types that the codec tests keep, with their annotations as text."""

from __future__ import annotations

import enum
from collections import namedtuple
from dataclasses import InitVar, dataclass, field
from datetime import date, datetime
from decimal import Decimal
from functools import cached_property
from typing import (
    TYPE_CHECKING,
    Annotated,
    ClassVar,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    TypedDict,
    TypeVar,
)

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, RootModel, field_validator

if TYPE_CHECKING:
    from elsewhere import Unknown

T = TypeVar("T")
UserId = NewType("UserId", int)


class Color(enum.Enum):
    RED = "r"
    GREEN = "g"
    ROT = "r"  # noqa: PIE796  # an alias, which is kept as what it is an alias of


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Mode(enum.StrEnum):
    ON = "on"
    OFF = "off"


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Leave(enum.Flag, boundary=enum.CONFORM):
    SICK = 1
    PAID = 2


class Rank(enum.IntFlag, boundary=enum.EJECT):
    LOW = 1
    HIGH = 2


@dataclass
class User:
    id: int
    name: str
    joined: datetime
    score: float | None = None


@dataclass
class Admin(User):
    rights: Access = Access.READ


@dataclass(frozen=True, slots=True)
class Point:
    x: int
    y: int


@dataclass(frozen=True, slots=True)
class Point3(Point):
    z: int


@dataclass
class Node:
    name: str
    children: list[Node] = field(default_factory=list)
    parent: Node | None = None


@dataclass
class Empty:
    pass


@dataclass
class Box(Generic[T]):
    content: T
    more: list[T] = field(default_factory=list)


@dataclass
class IntBox(Box[int], Generic[T]):
    label: T | None = None


@dataclass
class Endless(Generic[T]):
    inner: Endless[list[T]] | None


@dataclass
class Derived:
    """Has fields that its constructor computes, and counts how often it was called."""

    made: ClassVar[int] = 0
    words: list[str]
    size: InitVar[int]
    length: int = field(init=False)
    unset: int = field(init=False, repr=False, compare=False)

    def __post_init__(self, size: int) -> None:
        type(self).made += 1
        self.length = len(self.words) + size

    @cached_property
    def joined(self) -> str:
        return " ".join(self.words)


@dataclass
class Everything:
    color: Color
    level: Level
    mode: Mode
    access: Access
    user: User | Point | None
    id: UserId
    price: Annotated[Decimal, "euro"]
    size: Literal["s", "m", 1, True, Color.RED]
    days: dict[date, tuple[int, ...]]
    pair: tuple[int, str | bytes]
    seen: frozenset[Point]
    any: object
    later: Unknown


class Pair(NamedTuple):
    left: int
    right: Point | None = None


class Triple(NamedTuple, Generic[T]):
    items: list[T]


Loose = namedtuple("Loose", ["a", "b"])


class Row(TypedDict):
    id: int
    when: NotRequired[datetime]


class WideRow(Row, total=False):
    note: str | None


class Item(BaseModel):
    name: str
    at: datetime
    tags: set[str] = set()
    children: list[Item] = Field(default_factory=list, alias="kids")


class Strange(BaseModel):
    """Neither its validator nor its aliases survive a dump and a validation."""

    model_config = ConfigDict(extra="allow")

    value: int = Field(alias="Value")
    other: int | str = 0
    _secret: list[int] = PrivateAttr(default_factory=list)

    @field_validator("value")
    @classmethod
    def _double(cls, value: int) -> int:
        return value * 2


class Numbers(RootModel[list[int]]):
    pass


class BareModel(BaseModel):
    pass
