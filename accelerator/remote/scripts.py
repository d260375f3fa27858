"""
The scripts that run inside Redis (6.2 and later) and Valkey.

Most operations are a piece of Lua that changes data keys.  On one server it runs together with
what announces the change, as one script: nobody sees the one without the other.  On a cluster data
keys and control keys lie in different slots, so there the piece runs alone, key by key, and the
announcement after it.  The arguments are the same both ways::

    KEYS     [seq, log, gen,] value, lease[, scratch], value, lease, ...
    ARGV[1]  channel; "" announces nothing
    ARGV[2]  beginning of the message, up to the number
    ARGV[3]  rest of the message
    ARGV[4]  how many messages the log keeps
    ARGV[5]  the generation; together with the control keys: the one to begin with if there is none
    ARGV[6]  the fingerprint that a value must have to count as known, 4 bytes; "" for any
    ARGV[7]  and so on: what the operation wants

Somebody else may have put anything under our names.  What is no string where one should be counts
as absent, and the next write replaces it: one such key must not stop what is sent for all others.

Values are read by the offsets of envelope.py, counted from 1 as Lua does.
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

from accelerator.codec import CODE_INT
from accelerator.remote.envelope import EXPIRED, FORMAT, MAGIC

LOG_LENGTH: Final = 100_000
"""Messages that an area's log keeps; 2 MB."""
BEAT_LIFE: Final = 60_000
"""Milliseconds after which a heartbeat that nobody repeats is forgotten."""
LEASE_AFTER_FILL: Final = 1_000
"""Milliseconds for which other hosts may still store what they loaded under the same lease."""


class Script:
    """A script and the digest under which Redis knows it once it has seen it."""

    __slots__ = ("sha", "source")

    def __init__(self, source: str) -> None:
        self.source = source
        self.sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


class Joined(NamedTuple):
    """An operation: with its announcement, and alone."""

    whole: Script
    alone: Script


_WITH_CONTROL: Final = """
local first = 3
local gen = redis.pcall('GET', KEYS[3])
if type(gen) ~= 'string' or #gen ~= 8 then
  gen = ARGV[5]
  redis.call('SET', KEYS[3], gen)
end
"""

_WITHOUT_CONTROL: Final = """
local first = 0
local gen = ARGV[5]
"""

# A counter that was lost (FLUSHALL, eviction) must not give a number again: a host that was away
# meanwhile would take the new messages for those that it knows.  So it starts at the tenths of
# milliseconds of the server's clock: above what it had reached, unless the area was written more
# than 10,000 times a second ever since, and below 2^48.  The gap tells every host that something is
# missing.
_START: Final = """
local function start(key)
  local now = redis.call('TIME')
  local text = string.format('%.0f', now[1] * 10000 + math.floor(now[2] / 100))
  redis.call('SET', key, text)
  return text
end
"""

# A stream refuses an id below its last one: the number began anew, the log has not.  What is in
# the log is then of another time, and must not be replayed.
_ANNOUNCE: Final = (
    _START
    + """
local function announce()
  if ARGV[1] == '' then return 0 end
  local seq = redis.pcall('INCR', KEYS[1])
  if type(seq) ~= 'number' then seq = 1 end
  local text = string.format('%.0f', seq)
  if seq == 1 then text = start(KEYS[1]) end
  local message = ARGV[2] .. text .. ' ' .. ARGV[3]
  local id = text .. '-0'
  local added = redis.pcall('XADD', KEYS[2], 'MAXLEN', '~', ARGV[4], id, 'm', message)
  if type(added) == 'table' and added.err then
    redis.call('DEL', KEYS[2])
    redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[4], id, 'm', message)
  end
  redis.call('PUBLISH', ARGV[1], message)
  return text
end
"""
)

_VALUES: Final = f"""
local function header(key)
  local head = redis.pcall('GETRANGE', key, 0, 27)
  if type(head) ~= 'string' or #head < 28
      or string.byte(head, 1) ~= {MAGIC} or string.byte(head, 2) ~= {FORMAT}
      or string.sub(head, 21, 28) ~= gen then
    return nil
  end
  return head
end

local function fresh(key, head)
  if ARGV[6] ~= '' and string.sub(head, 5, 8) ~= ARGV[6] then return false end
  if bit.band(string.byte(head, 4), {EXPIRED}) ~= 0 then return false end
  local left = redis.call('PTTL', key)
  return left == -1 or left > struct.unpack('>I4', string.sub(head, 9, 12))
end

local function store(key, head, payload, life)
  if life == '0' then
    redis.call('SET', key, head .. gen .. payload)
  else
    redis.call('SET', key, head .. gen .. payload, 'PX', life)
  end
end
"""

# Per key: head ("" deletes), payload, life in milliseconds.
_WRITE: Final = """
local found = 0
for i = 1, (#KEYS - first) / 2 do
  local value, lease = KEYS[first + 2 * i - 1], KEYS[first + 2 * i]
  local at = 7 + 3 * (i - 1)
  if header(value) then found = found + 1 end
  if ARGV[at] == '' then
    redis.call('DEL', value, lease)
  else
    store(value, ARGV[at], ARGV[at + 1], ARGV[at + 2])
    redis.call('DEL', lease)
  end
end
local changed = true
local answer = found
"""

# The key keeps the end of its life, which is that of the stale copy.
_EXPIRE: Final = f"""
local answer = 0
for i = 1, (#KEYS - first) / 2 do
  local value, lease = KEYS[first + 2 * i - 1], KEYS[first + 2 * i]
  local head = header(value)
  if head and fresh(value, head) then answer = answer + 1 end
  if head and redis.call('PTTL', value) > 0
      and struct.unpack('>I4', string.sub(head, 9, 12)) > 0 then
    local flags = bit.bor(string.byte(head, 4), {EXPIRED})
    redis.call('SETRANGE', value, 3, string.char(flags))
    redis.call('DEL', lease)
  else
    redis.call('DEL', value, lease)
  end
end
local changed = true
"""

_ADD: Final = """
local value, lease = KEYS[first + 1], KEYS[first + 2]
local head = header(value)
local changed = not (head and fresh(value, head))
if changed then
  store(value, ARGV[7], ARGV[8], ARGV[9])
  redis.call('DEL', lease)
end
local answer = changed and 1 or 0
"""

# ARGV: stale life as the header has it, life of the key in milliseconds.
_TOUCH: Final = """
local value, lease = KEYS[first + 1], KEYS[first + 2]
local head = header(value)
local changed = head and fresh(value, head)
if changed then
  redis.call('SETRANGE', value, 8, ARGV[7])
  if ARGV[8] == '0' then
    redis.call('PERSIST', value)
  else
    redis.call('PEXPIRE', value, ARGV[8])
  end
  redis.call('DEL', lease)
end
local answer = changed and 1 or 0
"""

# ARGV: delta; head, initial number and life if the key is to be made, else "".
# Numbers in Lua are exact up to 2^53 only, so Redis adds, in a key of its own.
_INCR: Final = f"""
local value, lease, scratch = KEYS[first + 1], KEYS[first + 2], KEYS[first + 3]
local head = header(value)
local changed, answer = false, false
local known = head and fresh(value, head)
local text = ARGV[9]
if known then
  if string.byte(head, 3) ~= {CODE_INT} then
    answer = 'type'
  else
    text = redis.call('GETRANGE', value, 28, -1)
  end
elseif ARGV[8] == '' then
  answer = 'absent'
end
if not answer then
  redis.call('SET', scratch, text)
  local added = redis.pcall('INCRBY', scratch, ARGV[7])
  if type(added) == 'table' and added.err then
    answer = string.find(added.err, 'overflow') and 'overflow' or 'type'
  else
    changed = true
    answer = redis.call('GET', scratch)
    if known then
      redis.call('SET', value, head .. answer, 'KEEPTTL')
    else
      store(value, ARGV[8], answer, ARGV[10])
    end
    redis.call('DEL', lease)
  end
  redis.call('DEL', scratch)
end
"""


def _joined(operation: str) -> Joined:
    return Joined(
        Script(
            _WITH_CONTROL
            + _VALUES
            + _ANNOUNCE
            + operation
            + "return {answer, changed and announce() or 0}\n"
        ),
        Script(_WITHOUT_CONTROL + _VALUES + operation + "return {answer, changed and 1 or 0}\n"),
    )


WRITE: Final = _joined(_WRITE)
"""Answers how many keys were there, and the number of the message."""
EXPIRE: Final = _joined(_EXPIRE)
"""Answers how many keys were fresh."""
ADD: Final = _joined(_ADD)
"""Answers 1 if the key was absent."""
TOUCH: Final = _joined(_TOUCH)
"""Answers 1 if the key was fresh."""
INCR: Final = _joined(_INCR)
"""Answers the number as text, or "absent", "type" or "overflow"."""

ANNOUNCE: Final = Script(_ANNOUNCE + "return announce()\n")
"""What on a cluster follows the operation alone; KEYS seq, log."""

CLEAR: Final = Script(_ANNOUNCE + "redis.call('SET', KEYS[3], ARGV[5])\nreturn announce()\n")
"""Renews the generation."""

# A server that begins anew from its disk has forgotten what happened since it wrote that: what was
# deleted is back.  It shows by its run id, which is not the one noted among the data, and by
# having started since that was noted.  (After a failover the id differs, too; but that server ran
# already, and lacks the last moments at most.)  Its uptime is in whole seconds, rounded down.
RECHECK: Final = Script(
    _ANNOUNCE
    + """
local info = redis.pcall('INFO', 'server')
if type(info) ~= 'string' then return 0 end
local id = string.match(info, 'run_id:(%x+)')
local up = tonumber(string.match(info, 'uptime_in_seconds:(%d+)') or '')
if not id or not up then return 0 end
local now = tonumber(redis.call('TIME')[1])
local seen = redis.pcall('GET', KEYS[4])
if type(seen) == 'table' then seen = '' end
redis.call('SET', KEYS[4], id .. ' ' .. string.format('%.0f', now))
if not seen then return 0 end
local noted, at = string.match(seen, '^(%x+) (%d+)$')
if noted == id or (noted and now - up < tonumber(at)) then return 0 end
redis.call('SET', KEYS[3], ARGV[5])
announce()
return 1
"""
)
"""KEYS seq, log, gen, run; renews the generation if the server began anew from its disk: 1."""

GENERATION: Final = Script("""
local gen = redis.pcall('GET', KEYS[1])
if type(gen) ~= 'string' or #gen ~= 8 then
  gen = ARGV[1]
  redis.call('SET', KEYS[1], gen)
end
return gen
""")
"""Gets the generation of an area, or makes it what ARGV[1] says."""

# A lease that is shared lives as long as the last of those who share it may load.
LEASE: Final = Script("""
local tokens = {}
for i, key in ipairs(KEYS) do
  local token = redis.pcall('GET', key)
  if type(token) ~= 'string' then
    token = ARGV[i + 1]
    redis.call('SET', key, token, 'PX', ARGV[1])
  elseif redis.call('PTTL', key) < tonumber(ARGV[1]) then
    redis.call('PEXPIRE', key, ARGV[1])
  end
  tokens[i] = token
end
return tokens
""")
"""Gets or makes the leases KEYS, for ARGV[1] milliseconds; the others are tokens to make them."""

FILL: Final = Script(f"""
local stored = {{}}
for i = 1, #KEYS / 2 do
  local value, lease = KEYS[2 * i - 1], KEYS[2 * i]
  local at = 3 * (i - 1)
  stored[i] = 0
  if redis.pcall('GET', lease) == ARGV[at + 1] then
    if ARGV[at + 3] == '0' then
      redis.call('SET', value, ARGV[at + 2])
    else
      redis.call('SET', value, ARGV[at + 2], 'PX', ARGV[at + 3])
    end
    if redis.call('PTTL', lease) > {LEASE_AFTER_FILL} then
      redis.call('PEXPIRE', lease, {LEASE_AFTER_FILL})
    end
    stored[i] = 1
  end
end
return stored
""")
"""KEYS value, lease, ...; ARGV token, envelope, life, ...; answers 1 for each that was stored."""

# It starts the counters that are not there, so that the first message of all is no gap.
BEAT: Final = Script(f"""{_START}
redis.call('SET', KEYS[1], ARGV[2], 'PX', {BEAT_LIFE})
local info = redis.pcall('INFO', 'replication')
local id = type(info) == 'string' and string.match(info, 'master_replid:(%x+)') or '?'
local seqs = {{}}
for i = 2, #KEYS do
  local seq = redis.pcall('GET', KEYS[i])
  if type(seq) ~= 'string' or not string.match(seq, '^%d+$') then seq = start(KEYS[i]) end
  seqs[i - 1] = seq
end
if ARGV[1] ~= '' then
  local message = '1 H ' .. ARGV[2] .. ' ' .. id
  for _, seq in ipairs(seqs) do message = message .. ' ' .. seq end
  redis.call('PUBLISH', ARGV[1], message)
end
return {{id, seqs}}
""")
"""KEYS beat, seq, ...; ARGV channel ("": none), number.  A user without INFO gets "?" as id."""
