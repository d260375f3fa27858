"""
The scripts that run inside Redis (6.2 and later) and Valkey.

Most operations are a piece of Lua that changes data keys.  On one server it runs together with
what announces the change, as one script: nobody sees the one without the other.  On a cluster data
keys and control keys lie in different slots, so there the piece runs alone, key by key, and the
announcement after it.  The arguments are the same both ways::

    KEYS     [seq, log, gen, tags, versions,] then for each key of the application
             value, lease, what each other version has of it[, scratch]
    ARGV[1]  channel; "" announces nothing
    ARGV[2]  beginning of the message, up to the number
    ARGV[3]  rest of the message
    ARGV[4]  how many messages the log keeps
    ARGV[5]  the generation; together with the control keys: the one to begin with if there is none
    ARGV[6]  the fingerprint that a value must have to count as known, 4 bytes; "" for any
    ARGV[7]  without the control keys: the stamp of a value with tags
    ARGV[8]  the version of this host, its digits; "" for none
    ARGV[9]  the versions that there are, all their digits in a row
    ARGV[10] without the control keys: what has become of the value that was found, see below
    ARGV[11] and so on: what the operation wants

Somebody else may have put anything under our names.  What is no string where one should be counts
as absent, and the next write replaces it: one such key must not stop what is sent for all others.

Values are read by the offsets of envelope.py, counted from 1 as Lua does.

**Versions.**  Together with the control keys a script compares ARGV[9] with the registry, and if
there are others, answers ``{"versions", digits}`` and has done nothing.  Alone it is given what
was read just before.

**Tags.**  Together with the control keys a script judges values with tags itself.  Alone it cannot
see the table: what decides by such a value answers ``{"tagged", 0, bytes}`` and has done nothing;
the caller looks into the table and comes again, with the verdict and these bytes, from the stamp to
the places, as ARGV[10].  If the value has others by then, it is told so again.
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

from accelerator.codec import CODE_INT
from accelerator.remote import tagging, versions
from accelerator.remote.envelope import EXPIRED, FORMAT, MAGIC, TAGGED

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


# Gives the digits of all versions that are registered, and the id of this host's, which is entered.
_VERSIONS: Final = f"""
local function versions(key, own, id)
  local found = redis.pcall('GET', key)
  if own == '' and not found then return '', '' end
  local records, place = {{}}, nil
  if type(found) ~= 'string' or #found % {versions.RECORD} ~= 0
      or #found > {versions.VERSIONS_MOST * versions.RECORD} then
    found = ''
  end
  for at = 1, #found, {versions.RECORD} do
    local each = string.sub(found, at, at + {versions.RECORD - 1})
    if not string.match(string.sub(each, 1, 8), '^[0-9a-f]+$')
        or not string.match(string.sub(each, 17), '^[0-9]+$') then
      records, place = {{}}, nil
      break
    end
    records[#records + 1] = each
    if string.sub(each, 1, 8) == own then place = #records end
  end
  if own ~= '' then
    local now = tonumber(redis.call('TIME')[1])
    local age = place and now - tonumber(string.sub(records[place], 17))
    if place then id = string.sub(records[place], 9, 16) end
    if not place or age < 0 or age > {versions.RENEWED} then
      place = place or #records + 1
      records[place] = own .. id .. string.format('%010.0f', now)
      local kept, oldest, least = {{}}, nil, nil
      for at, each in ipairs(records) do
        local seen = tonumber(string.sub(each, 17))
        if at == place or now - seen < {versions.VERSION_LIFE} then
          kept[#kept + 1] = each
          if at ~= place and (not least or seen < least) then oldest, least = #kept, seen end
        end
      end
      if #kept > {versions.VERSIONS_MOST} then table.remove(kept, oldest) end
      records = kept
      redis.call('SET', key, table.concat(records))
    end
  end
  for at, each in ipairs(records) do records[at] = string.sub(each, 1, 8) end
  return table.concat(records), id
end
"""

_GENERATION: Final = """
local function generation(key, fresh)
  local found = redis.pcall('GET', key)
  if type(found) ~= 'string' or #found ~= 8 then
    found = fresh
    redis.call('SET', key, found)
  end
  return found
end
"""

_WITH_CONTROL: Final = (
    _VERSIONS
    + _GENERATION
    + """
local first = 5
local known, gen = versions(KEYS[5], ARGV[8], ARGV[5])
if known ~= ARGV[9] then return {'versions', known} end
if ARGV[8] == '' then gen = generation(KEYS[3], ARGV[5]) end
"""
)

_WITHOUT_CONTROL: Final = """
local first = 0
local gen = ARGV[5]
"""

# A counter that was lost (FLUSHALL, eviction) must not give a number again: a host that was away
# meanwhile would take the new messages for those that it knows.  So it starts at the tenths of
# milliseconds of the server's clock: above what it had reached, unless the area was written more
# than 10,000 times a second ever since, and below 2^48.  The gap tells every host that something is
# missing.  What no message can carry (somebody wrote it there) counts as lost: it would otherwise
# stop the heartbeats of all areas, for ever.
_START: Final = f"""
local function clock()
  local now = redis.call('TIME')
  return now[1] * 10000 + math.floor(now[2] / 100)
end

local function start(key)
  local text = string.format('%.0f', clock())
  redis.call('SET', key, text)
  return text
end

local function is_number(text)
  return type(text) == 'string' and #text <= 15 and string.match(text, '^%d+$')
      and tonumber(text) <= {tagging.NUMBER_MOST}
end

local function number(key)
  local text = redis.pcall('GET', key)
  if not is_number(text) then text = start(key) end
  return tonumber(text)
end
"""

# A stream refuses an id below its last one: the number began anew, the log has not.  What is in
# the log is then of another time, and must not be replayed.
_ANNOUNCE: Final = """
local function announce()
  if ARGV[1] == '' then return 0 end
  local seq = redis.pcall('INCR', KEYS[1])
  local text = type(seq) == 'number' and string.format('%.0f', seq)
  if not is_number(text) or seq == 1 then text = start(KEYS[1]) end
  local message = ARGV[2] .. text .. ' ' .. ARGV[3]
  local id = text .. '-0'
  local added = redis.pcall('XADD', KEYS[2], 'MAXLEN', '~', ARGV[4], id, 'm', message)
  if type(added) == 'table' and added.err then
    redis.call('DEL', KEYS[2])
    redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[4], id, 'm', message)
  end
  return text, redis.call('PUBLISH', ARGV[1], message)
end
"""

# A table that is made is the beginning: its floor.  A floor above the number is of a number that
# was given up: below it all would be dead, for ever.
_TABLE: Final = f"""
local function table_top(key)
  local top = redis.pcall('GETRANGE', key, 0, {tagging.PAIR - 1})
  if type(top) ~= 'string' or #top < {tagging.PAIR} then return nil end
  for at, byte in ipairs({{{", ".join(map(str, tagging.TABLE))}}}) do
    if string.byte(top, at) ~= byte then return nil end
  end
  return top
end

local function have_table(key, seq)
  local top, now = table_top(key), number(seq)
  if top and struct.unpack('>I6', string.sub(top, 7)) <= now then return end
  top = struct.pack('BBBBBB', {", ".join(map(str, tagging.TABLE))})
  redis.call('SET', key, top .. struct.pack('>I6', now))
end

local function pair(key, place)
  local at = {tagging.PAIR} * (place + 1)
  local found = redis.pcall('GETRANGE', key, at, at + {tagging.PAIR - 1})
  if type(found) ~= 'string' then found = '' end
  return found .. string.rep(string.char(0), {tagging.PAIR} - #found)
end
"""

_JUDGE_WITH_CONTROL: Final = f"""
local function judge(part)
  local top = table_top(KEYS[4])
  local stamp = struct.unpack('>I6', part)
  if not top or stamp < struct.unpack('>I6', string.sub(top, 7)) or stamp > number(KEYS[1]) then
    return '{tagging.DEAD}'
  end
  local verdict = '{tagging.VALID}'
  for at = 10, #part, 4 do
    local one, other = struct.unpack('>I2I2', string.sub(part, at, at + 3))
    local deleted, expired = struct.unpack('>I6I6', pair(KEYS[4], one))
    local too, as_well = struct.unpack('>I6I6', pair(KEYS[4], other))
    if deleted > stamp and too > stamp then return '{tagging.DEAD}' end
    if expired > stamp and as_well > stamp then verdict = '{tagging.ENDED}' end
  end
  return verdict
end

local function stamped()
  have_table(KEYS[4], KEYS[1])
  return struct.pack('>I6', number(KEYS[1]))
end
"""

# What it has no verdict of counts as valid: who asks says in the answer that there was such a one.
_JUDGE_WITHOUT_CONTROL: Final = f"""
local seen = ''
local function judge(part)
  if string.sub(ARGV[10], 2) == part then return string.sub(ARGV[10], 1, 1) end
  seen = part
  return '{tagging.VALID}'
end

local function stamped()
  return ARGV[7]
end
"""

# header(): what stands before tags and payload if it counts as known, whether one of its tags has
# ended its fresh life, and how many bytes there are about tags.
_VALUES: Final = f"""
local others = #ARGV[9] / {versions.DIGITS}
local width = 2 + others

local function ours(key)
  local found = redis.pcall('GETRANGE', key, 0, {27 + 9 + 4 * tagging.TAGS_MOST})
  if type(found) ~= 'string' or #found < 28
      or string.byte(found, 1) ~= {MAGIC} or string.byte(found, 2) ~= {FORMAT} then
    return nil
  end
  return string.sub(found, 1, 28), string.sub(found, 29)
end

local function header(key)
  local head, rest = ours(key)
  if not head or string.sub(head, 21, 28) ~= gen then return nil end
  if bit.band(string.byte(head, 4), {TAGGED}) == 0 then return head, false, 0 end
  local count = string.byte(rest, 9)
  if not count or count < 1 or count > {tagging.TAGS_MOST} or #rest < 9 + 4 * count then
    return nil
  end
  local verdict = judge(string.sub(rest, 1, 9 + 4 * count))
  if verdict == '{tagging.DEAD}' then return nil end
  return head, verdict == '{tagging.ENDED}', 8 + struct.unpack('>I2', string.sub(rest, 7, 8))
end

local function fresh(key, head, ended)
  if ARGV[6] ~= '' and string.sub(head, 5, 8) ~= ARGV[6] then return false end
  if ended or bit.band(string.byte(head, 4), {EXPIRED}) ~= 0 then return false end
  local left = redis.call('PTTL', key)
  return left == -1 or left > struct.unpack('>I4', string.sub(head, 9, 12))
end

local function store(key, head, payload, life)
  local stamp = ''
  if bit.band(string.byte(head, 4), {TAGGED}) ~= 0 then stamp = stamped() end
  if life == '0' then
    redis.call('SET', key, head .. gen .. stamp .. payload)
  else
    redis.call('SET', key, head .. gen .. stamp .. payload, 'PX', life)
  end
end

local function forget_others(value)
  for at = value + 2, value + 1 + others do redis.call('DEL', KEYS[at]) end
end
"""

# Per key: head ("" deletes), payload, life in milliseconds.
_WRITE: Final = """
local found = 0
for i = 1, (#KEYS - first) / width do
  local place = first + width * (i - 1) + 1
  local value, lease = KEYS[place], KEYS[place + 1]
  local at = 11 + 3 * (i - 1)
  if header(value) then found = found + 1 end
  if ARGV[at] == '' then
    redis.call('DEL', value, lease)
  else
    store(value, ARGV[at], ARGV[at + 1], ARGV[at + 2])
    redis.call('DEL', lease)
  end
  forget_others(place)
end
local changed = true
local answer = found
"""

# The key keeps the end of its life, which is that of the stale copy.  Copies of other versions are
# not looked at closely: to end one that is dead does no harm.
_EXPIRE: Final = f"""
local function end_life(key, head)
  if head and redis.call('PTTL', key) > 0
      and struct.unpack('>I4', string.sub(head, 9, 12)) > 0 then
    local flags = bit.bor(string.byte(head, 4), {EXPIRED})
    redis.call('SETRANGE', key, 3, string.char(flags))
  else
    redis.call('DEL', key)
  end
end

local answer = 0
for i = 1, (#KEYS - first) / width do
  local place = first + width * (i - 1) + 1
  local value = KEYS[place]
  local head, ended = header(value)
  if head and fresh(value, head, ended) then answer = answer + 1 end
  end_life(value, head)
  redis.call('DEL', KEYS[place + 1])
  for at = place + 2, place + 1 + others do end_life(KEYS[at], (ours(KEYS[at]))) end
end
local changed = true
"""

_ADD: Final = """
local value, lease = KEYS[first + 1], KEYS[first + 2]
local head, ended = header(value)
local changed = not (head and fresh(value, head, ended))
if changed then
  store(value, ARGV[11], ARGV[12], ARGV[13])
  redis.call('DEL', lease)
  forget_others(first + 1)
end
local answer = changed and 1 or 0
"""

# ARGV: stale life as the header has it, life of the key in milliseconds.
_TOUCH: Final = """
local value, lease = KEYS[first + 1], KEYS[first + 2]
local head, ended = header(value)
local changed = head and fresh(value, head, ended)
if changed then
  redis.call('SETRANGE', value, 8, ARGV[11])
  if ARGV[12] == '0' then
    redis.call('PERSIST', value)
  else
    redis.call('PEXPIRE', value, ARGV[12])
  end
  redis.call('DEL', lease)
  forget_others(first + 1)
end
local answer = changed and 1 or 0
"""

# ARGV: delta; head, initial number, life, what is said of tags if the key is to be made, else "".
# Numbers in Lua are exact up to 2^53 only, so Redis adds, in a key of its own, the last one.
_INCR: Final = f"""
local value, lease, scratch = KEYS[first + 1], KEYS[first + 2], KEYS[#KEYS]
local head, ended, size = header(value)
local changed, answer = false, false
local known = head and fresh(value, head, ended)
local text = ARGV[13]
if known then
  if string.byte(head, 3) ~= {CODE_INT} then
    answer = 'type'
  else
    text = redis.call('GETRANGE', value, 28 + size, -1)
  end
elseif ARGV[12] == '' then
  answer = 'absent'
end
if not answer then
  redis.call('SET', scratch, text)
  local added = redis.pcall('INCRBY', scratch, ARGV[11])
  if type(added) == 'table' and added.err then
    answer = string.find(added.err, 'overflow') and 'overflow' or 'type'
  else
    changed = true
    answer = redis.call('GET', scratch)
    if known then
      local before = redis.call('GETRANGE', value, 0, 27 + size)
      redis.call('SET', value, before .. answer, 'KEEPTTL')
    else
      store(value, ARGV[12], ARGV[15] .. answer, ARGV[14])
    end
    redis.call('DEL', lease)
    forget_others(first + 1)
  end
  redis.call('DEL', scratch)
end
"""

_ASK_FIRST: Final = """
header(KEYS[1])
if seen ~= '' then return {'tagged', 0, seen} end
"""


def _joined(operation: str, *, decides: bool = True) -> Joined:
    return Joined(
        Script(
            _WITH_CONTROL
            + _START
            + _TABLE
            + _JUDGE_WITH_CONTROL
            + _VALUES
            + _ANNOUNCE
            + operation
            + "return {answer, changed and announce() or 0}\n"
        ),
        Script(
            _WITHOUT_CONTROL
            + _JUDGE_WITHOUT_CONTROL
            + _VALUES
            + (_ASK_FIRST if decides else "")
            + operation
            + "return {answer, changed and 1 or 0, seen}\n"
        ),
    )


WRITE: Final = _joined(_WRITE, decides=False)
"""Answers how many keys were there, and the number of the message."""
EXPIRE: Final = _joined(_EXPIRE, decides=False)
"""Answers how many keys were fresh."""
ADD: Final = _joined(_ADD)
"""Answers 1 if the key was absent."""
TOUCH: Final = _joined(_TOUCH)
"""Answers 1 if the key was fresh."""
INCR: Final = _joined(_INCR)
"""Answers the number as text, or "absent", "type" or "overflow"."""

ANNOUNCE: Final = Script(
    _START + _ANNOUNCE + _VERSIONS + "return {announce(), (versions(KEYS[3], '', ''))}\n"
)
"""
What on a cluster follows the operation alone, and what tells of nothing else; KEYS seq, log,
versions.  Answers the number, and the digits of the versions that there are.
"""

PROBE: Final = Script(_START + _ANNOUNCE + "local text, told = announce()\nreturn {text, told}\n")
"""KEYS seq, log; tells of nothing.  Answers the number, and how many connections were told."""

CLEAR: Final = Script(
    _START
    + _ANNOUNCE
    + """
redis.call('SET', KEYS[3], ARGV[5])
redis.call('DEL', KEYS[4])
return announce()
"""
)
"""KEYS seq, log, gen, versions; renews the generation."""

# First the table: its floor must be below the number that is about to be given.
TAGS: Final = Script(
    _START
    + _TABLE
    + _ANNOUNCE
    + """
have_table(KEYS[3], KEYS[1])
local text = announce()
local word = struct.pack('>I6', tonumber(text))
if ARGV[5] == '' then word = word .. word end
for at = 6, #ARGV do
  redis.call('SETRANGE', KEYS[3], ARGV[at], word)
end
return text
"""
)
"""
KEYS seq, log, tags; ARGV[5] "" deletes, else expires; then offsets in the table: of the pairs, or
of the second words.  Answers the number.

A delete writes both words: what was expired before it is dead in any case, and foreign bytes go.
"""

MAKE_TABLE: Final = Script(_START + _TABLE + "have_table(KEYS[2], KEYS[1])\nreturn 1\n")
"""KEYS seq, tags; before a value with tags is stored by other means than the scripts above."""

WORDS: Final = Script(
    _START
    + _TABLE
    + """
local top = table_top(KEYS[2])
local seq = redis.pcall('GET', KEYS[1])
if not top or not is_number(seq) then return '' end
local found = { string.sub(top, 7), struct.pack('>I6', tonumber(seq)) }
for at, place in ipairs(ARGV) do found[at + 2] = pair(KEYS[2], tonumber(place)) end
return table.concat(found)
"""
)
"""
KEYS seq, tags; ARGV places.  Answers floor, number, and the two words of each place; nothing if
there is no table.  Reads only.
"""

# A server that begins anew from its disk has forgotten what happened since it wrote that: what was
# deleted is back.  It shows by its run id, which is not the one noted among the data, and by
# having started since that was noted.  (After a failover the id differs, too; but that server ran
# already, and lacks the last moments at most.)  Its uptime is in whole seconds, rounded down.
RECHECK: Final = Script(
    _START
    + _ANNOUNCE
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
if noted == id then return 0 end
if number(KEYS[1]) < clock() then start(KEYS[1]) end
if noted and now - up < tonumber(at) then return 0 end
redis.call('SET', KEYS[3], ARGV[5])
redis.call('DEL', KEYS[5])
announce()
return 1
"""
)
"""
KEYS seq, log, gen, run, versions; renews the generation if the server began anew from its disk: 1.

Whichever other run it is, the number goes on above all that the last one can have given, so that
none is given twice: see ``tagging``.
"""

GENERATION: Final = Script(
    _START
    + _VERSIONS
    + _GENERATION
    + """
local known, gen = versions(KEYS[3], ARGV[2], ARGV[1])
if ARGV[2] == '' then gen = generation(KEYS[1], ARGV[1]) end
return {gen, string.format('%.0f', number(KEYS[2])), known}
"""
)
"""
KEYS gen, seq, versions; ARGV 8 random bytes, this host's version.  Answers the generation that its
values have to carry (made of these bytes if there is none), the area's last number, and the digits
of all versions.
"""

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
  if not is_number(seq) then seq = start(KEYS[i]) end
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
