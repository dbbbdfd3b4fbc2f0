"""The marks of transactions that are about to commit, for those who read strictly.

One hash per namespace, so that marks and epoch are lost together and never apart::

    {tc1:<namespace>}:h
        run          the life of the server in which it was made
        epoch        16 random bytes, which every strict value carries as the token of a tag
        ready        there once no transaction is left whose mark may have been lost
        m*           who marked everything
        mk<key>      who marked this key
        mg<tag>      who marked this tag                     owners: 32 hexadecimal digits each
        o<owner>     when, in ms of the server's clock, and what is to be known of the transaction
    {tc1:<namespace>}:r
        somebody who found no hash relies on it for a moment

A value is readable to a strict reader if it carries the epoch, the epoch is ready, and neither its
key nor one of its tags is marked. The hash has no ttl: whoever marked takes the mark away, or
somebody who has asked the database what became of the transaction.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from tiercache._redis.frames import Names
from tiercache._redis.scripts import BY_DIGEST, Script

EPOCH_TAG: Final = "\0epoch"
"""The tag whose token is the epoch; no tag of an application has this name."""

EVERYTHING: Final = b"m*"
_STATE: Final = (b"run", b"epoch", b"ready")


class Header(NamedTuple):
    """What the hash said at one moment; an epoch of None: there is none in this life."""

    epoch: bytes | None
    ready: bool
    marked: frozenset[bytes]


class Founded(NamedTuple):
    """The epoch as it stands; ``relied`` are the seconds for which somebody relies on none."""

    epoch: bytes
    ready: bool
    relied: float


class Marked(NamedTuple):
    """What a transaction marks."""

    keys: tuple[str, ...]
    tags: tuple[str, ...]
    everything: bool = False

    @property
    def fields(self) -> list[bytes]:
        """Where it is marked."""
        return [*fields_of(self.keys, self.tags), *[EVERYTHING] * self.everything]


class Mark(NamedTuple):
    """One transaction's mark: a name for it, what it marks, and how to ask what became of it.

    ``database`` and ``number`` name the transaction; None is what has no number.
    """

    owner: str
    names: Marked
    database: str
    number: str | None

    def about(self) -> bytes:
        """Return what is written beside the owner."""
        keys, tags, everything = self.names
        about = {"d": self.database, "x": self.number, "k": keys, "g": tags, "a": everything}
        return json.dumps(about, separators=(",", ":")).encode("ascii")

    @classmethod
    def read(cls, owner: bytes, about: bytes) -> Mark:
        """Read it back."""
        fields = json.loads(about)
        names = Marked(tuple(fields["k"]), tuple(fields["g"]), bool(fields["a"]))
        return cls(owner.decode("ascii"), names, fields["d"], fields["x"])


def fields_of(keys: Iterable[str], tags: Iterable[str]) -> list[bytes]:
    """Return the fields in which keys and tags are marked."""
    return [
        *(b"mk" + key.encode("utf-8", "surrogatepass") for key in keys),
        *(b"mg" + tag.encode("utf-8", "surrogatepass") for tag in tags),
    ]


def ask(names: Names, fields: Sequence[bytes]) -> tuple[bytes, ...]:
    """Return the command that reads the state and these fields; it goes before the slots'.

    A slot that is read after its mark was looked for cannot hold what an acknowledged commit has
    replaced; read before, it could: the mark may have been taken away in between.
    """
    return (b"HMGET", names.marks, *_STATE, *fields)


def header(reply: Sequence[bytes | None], fields: Sequence[bytes], run: bytes) -> Header:
    """Read the answer to `ask`."""
    made_in, epoch, ready, *owners = reply
    if made_in != run or epoch is None:
        return Header(None, False, frozenset())
    marked = frozenset(f for f, owner in zip(fields, owners, strict=True) if owner is not None)
    return Header(epoch, ready is not None, marked)


FOUND: Final = Script("""\
-- marks, reliance | run, fresh epoch, epoch that may be called ready or ''
-- return the epoch of this life (the fresh one if there is none), whether it is ready, and for how
-- many ms somebody may still rely on there being none
local h = KEYS[1]
if redis.call('HGET', h, 'run') ~= ARGV[1] then
  redis.call('DEL', h)
  redis.call('HSET', h, 'run', ARGV[1], 'epoch', ARGV[2])
end
local epoch = redis.call('HGET', h, 'epoch')
local relied = redis.call('PTTL', KEYS[2])
if epoch == ARGV[3] then redis.call('HSET', h, 'ready', '1') end
return {epoch, redis.call('HEXISTS', h, 'ready'), relied}
""")

RELY: Final = Script("""\
-- marks, reliance | run, ms: return whether there are marks in this life; if not, make whoever
-- begins them wait so long
if redis.call('HGET', KEYS[1], 'run') == ARGV[1] then return 1 end
redis.call('SET', KEYS[2], '', 'PX', ARGV[2])
return 0
""")

MARK: Final = Script("""\
-- marks | run, fresh epoch, owner, what is to be known of it, fields...
-- add the owner to the fields; without marks in this life, begin them
local h, owner = KEYS[1], ARGV[3]
if redis.call('HGET', h, 'run') ~= ARGV[1] then
  redis.call('DEL', h)
  redis.call('HSET', h, 'run', ARGV[1], 'epoch', ARGV[2])
end
for i = 5, #ARGV do
  local owners = redis.call('HGET', h, ARGV[i]) or ''
  if not string.find(owners, owner, 1, true) then
    redis.call('HSET', h, ARGV[i], owners .. owner)
  end
end
local time = redis.call('TIME')
local ms = time[1] .. string.sub('00' .. math.floor(time[2] / 1000), -3)
redis.call('HSET', h, 'o' .. owner, ms .. ' ' .. ARGV[4])
return 1
""")

UNMARK: Final = Script("""\
-- marks, keys to delete... | owner, fields...
-- delete first, then take the owner out of the fields; one step for whoever looks
local h, owner = KEYS[1], ARGV[1]
for first = 2, #KEYS, 1000 do
  redis.call('UNLINK', unpack(KEYS, first, math.min(first + 999, #KEYS)))
end
redis.call('HDEL', h, 'o' .. owner)
for i = 2, #ARGV do
  local owners = redis.call('HGET', h, ARGV[i])
  if owners then
    local at = string.find(owners, owner, 1, true)
    if at then owners = string.sub(owners, 1, at - 1) .. string.sub(owners, at + #owner) end
    if owners == '' then redis.call('HDEL', h, ARGV[i])
    else redis.call('HSET', h, ARGV[i], owners) end
  end
end
return 1
""")

OLD: Final = Script("""\
-- marks | run, age in ms: return whether the epoch is ready (-1: there is none in this life), and
-- owner and description of each mark that is older
local h = KEYS[1]
if redis.call('HGET', h, 'run') ~= ARGV[1] then return {-1} end
local found = {redis.call('HEXISTS', h, 'ready')}
local time = redis.call('TIME')
local limit = time[1] * 1000 + math.floor(time[2] / 1000) - ARGV[2]
local all = redis.call('HGETALL', h)
for i = 1, #all, 2 do
  if string.sub(all[i], 1, 1) == 'o' then
    local at = string.find(all[i + 1], ' ', 1, true)
    if tonumber(string.sub(all[i + 1], 1, at - 1)) <= limit then
      found[#found + 1] = string.sub(all[i], 2)
      found[#found + 1] = string.sub(all[i + 1], at + 1)
    end
  end
end
return found
""")

STRICT_LEASE: Final = Script("""\
-- slot, marks | lease, ttl in ms, identity of a value that may go or '' (nil: take the slot in any
-- case), run, fields...
-- as LEASE, but only while the epoch is ready and none of the fields is marked (else return 0);
-- return the epoch when it was taken
local state = redis.call('HMGET', KEYS[2], 'run', 'epoch', 'ready')
if state[1] ~= ARGV[4] or not state[3] then return 0 end
for i = 5, #ARGV do
  if redis.call('HEXISTS', KEYS[2], ARGV[i]) == 1 then return 0 end
end
if ARGV[3] ~= 'nil' then
  local held = redis.call('GETRANGE', KEYS[1], 0, 32)
  local theirs = string.sub(held, 2)
  if string.sub(held, 18) == ARGV[4] and theirs ~= string.sub(ARGV[1], 2) and theirs ~= ARGV[3] then
    if string.sub(held, 1, 1) == 'L' then redis.call('SETRANGE', KEYS[1], 0, 'W') end
    return {held, redis.call('PTTL', KEYS[1])}
  end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return state[2]
""")

STRICT_FILL: Final = Script("""\
-- slot, marks | identity, value, ttl in ms or -1, run, epoch, fields...
-- as FILL, but only while the epoch is the same and ready and none of the fields is marked
local held = redis.call('GETRANGE', KEYS[1], 0, 32)
if string.sub(held, 2) ~= ARGV[1] then return 0 end
local state = redis.call('HMGET', KEYS[2], 'run', 'epoch', 'ready')
if state[1] ~= ARGV[4] or state[2] ~= ARGV[5] or not state[3] then return 0 end
for i = 6, #ARGV do
  if redis.call('HEXISTS', KEYS[2], ARGV[i]) == 1 then return 0 end
end
if ARGV[3] == '-1' then redis.call('SET', KEYS[1], ARGV[2])
else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
return string.sub(held, 1, 1) == 'W' and 2 or 1
""")

SCRIPTS: Final = (FOUND, RELY, MARK, UNMARK, OLD, STRICT_LEASE, STRICT_FILL)
BY_DIGEST.update({script.digest: script for script in SCRIPTS})
