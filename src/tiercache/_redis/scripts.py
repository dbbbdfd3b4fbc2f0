"""The Lua that runs inside Redis. Every script is short, touches one key and may be repeated.

The exception is `PUBLISH`, which deletes what an event is about before it adds the event: on one
server that is one step, so nobody hears of an invalidation that has not happened yet.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Final


class Script:
    """A script, and the digest it is called by."""

    def __init__(self, source: str) -> None:
        self.source = source.encode("ascii")

    @cached_property
    def digest(self) -> bytes:
        """The SHA-1 that Redis knows it by."""
        return hashlib.sha1(self.source, usedforsecurity=False).hexdigest().encode("ascii")

    def on(self, keys: tuple[bytes, ...], *arguments: bytes) -> tuple[bytes, ...]:
        """Return the command that runs it."""
        return (b"EVALSHA", self.digest, b"%d" % len(keys), *keys, *arguments)


LEASE: Final = Script("""\
-- slot | lease, ttl in ms, identity of a value that may go or '': take the slot, unless it holds
-- somebody else's lease or a value of the same run. Return false when it was taken, else what it
-- holds, 33 bytes, and the ms until that ends; a lease is marked as waited for.
local held = redis.pcall('GETRANGE', KEYS[1], 0, 32)
if type(held) ~= 'string' then held = '' end -- no value of ours, and no string at all
local mine = string.sub(ARGV[1], 2)
local theirs = string.sub(held, 2)
if theirs == mine then return false end
if theirs == ARGV[3] or string.sub(held, 18) ~= string.sub(ARGV[1], 18) then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return false
end
if string.sub(held, 1, 1) == 'L' then redis.call('SETRANGE', KEYS[1], 0, 'W') end
return {held, redis.call('PTTL', KEYS[1])}
""")

RENEW: Final = Script("""\
-- slot | identity, ttl in ms: let exactly that lease live on
local held = redis.call('GETRANGE', KEYS[1], 0, 32)
if string.sub(held, 2) ~= ARGV[1] or string.sub(held, 1, 1) == 'V' then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
""")

FILL: Final = Script("""\
-- slot | identity, value, ttl in ms or -1: replace exactly the lease or value of that identity;
-- return 2 if it was a lease that somebody waited for
local held = redis.call('GETRANGE', KEYS[1], 0, 32)
if string.sub(held, 2) ~= ARGV[1] then return 0 end
if ARGV[3] == '-1' then redis.call('SET', KEYS[1], ARGV[2])
else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
return string.sub(held, 1, 1) == 'W' and 2 or 1
""")

RELEASE: Final = Script("""\
-- slot | identity: delete exactly that lease; return 2 if somebody waited for it
local held = redis.call('GETRANGE', KEYS[1], 0, 32)
local kind = string.sub(held, 1, 1)
if string.sub(held, 2) ~= ARGV[1] or kind == 'V' then return 0 end
redis.call('DEL', KEYS[1])
return kind == 'W' and 2 or 1
""")

TOKEN: Final = Script("""\
-- tag or generation | fresh token or '', ttl in ms or -1: return its token, made of the fresh one
-- if there is none, and let it live at least that long
local token = redis.call('GET', KEYS[1])
if not token then
  if ARGV[1] == '' then return false end
  if ARGV[2] == '-1' then redis.call('SET', KEYS[1], ARGV[1])
  else redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end
  return ARGV[1]
end
local left = redis.call('PTTL', KEYS[1])
if left >= 0 then
  if ARGV[2] == '-1' then redis.call('PERSIST', KEYS[1])
  elseif left < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
end
return token
""")

PUBLISH: Final = Script("""\
-- stream, keys to delete... | fresh stream id, length to keep, field name, contents...
-- The first write is one that a full server allows (XTRIM); after it a script may go on writing
-- where plain commands are refused. The stream's id and last number stand in its last entry: they
-- are lost together with it, never apart.
local stream, keep, name = KEYS[1], ARGV[2], ARGV[3]
redis.call('XTRIM', stream, 'MAXLEN', '~', keep)
for first = 2, #KEYS, 1000 do
  redis.call('UNLINK', unpack(KEYS, first, math.min(first + 999, #KEYS)))
end
local id, number = ARGV[1], 0
local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
if last then id, number = last[2][2], tonumber(last[2][4]) end
for i = 4, #ARGV do
  number = number + 1
  redis.call('XADD', stream, 'MAXLEN', '~', keep, '*',
    'id', id, 'n', string.format('%.0f', number), name, ARGV[i])
end
return {id, string.format('%.0f', number)}
""")

SCRIPTS: Final = (LEASE, RENEW, FILL, RELEASE, TOKEN, PUBLISH)
BY_DIGEST: Final = {script.digest: script for script in SCRIPTS}
