"""
Names in Redis: which keys and channels an area uses.

No two areas and no two keys share a name: what comes from the user is escaped, so that ``:`` and
the braces of a hash tag are only ever ours.  On a cluster everything of one key lies in one slot,
and so do the control keys of one area.
"""

from __future__ import annotations

from typing import Final

_PLAIN: Final = frozenset(range(0x21, 0x7F)) - frozenset(b"%:{}")
_ESCAPES: Final = [chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in range(256)]
_NEVER_ESCAPED: Final = str.maketrans("", "", "".join(map(chr, sorted(_PLAIN))))


def escape(part: bytes) -> str:
    """Write bytes as printable ASCII without ``:``, ``{`` and ``}``; different ones differently."""
    text = part.decode("latin-1")
    if not text.translate(_NEVER_ESCAPED):
        return text
    return "".join([_ESCAPES[byte] for byte in part])


class Names:
    """
    The names of one area.

    Args:
        namespace: Equal on all hosts of an application, different for others.
        area: The area's name.
        db: Number of the database: channels are shared by all databases of a server, so that the
            channel carries it when it is not 0.
    """

    __slots__ = ("_prefix", "beat", "channel", "gen", "log", "run", "seq", "tags", "versions")

    def __init__(self, namespace: str, area: str, db: int = 0) -> None:
        space, escaped = escape(namespace.encode()), escape(area.encode())
        self._prefix = f"{space}:{{{escaped}:"
        control = f"{space}:{{{escaped}}}"
        self.seq = f"{control}:seq"
        """Number of the area's last invalidation."""
        self.log = f"{control}:log"
        """Stream of its last invalidations."""
        self.gen = f"{control}:gen"
        """Generation that its values carry: 8 random bytes."""
        self.tags = f"{control}:tags"
        """Table of the last deletes and expiries by tag."""
        self.versions = f"{control}:versions"
        """Which versions of its values are in use."""
        self.run = f"{control}:run"
        """Which run of the server the values are of, and when that was looked at last."""
        self.beat = f"{control}:beat"
        """What heartbeats write, to see that writes are taken."""
        self.channel = f"accelerator:invalidation:{space}:{escaped}{_at(db)}"

    def value(self, key: bytes) -> str:
        """Name the value of an encoded key: its type tag and its escaped payload."""
        return f"{self._prefix}{escape(key)}}}"


def version(value: str, fingerprint: str) -> str:
    """Name what a version, by the 8 hex digits of its fingerprint, has of *value*; "": itself."""
    return f"{value}:v{fingerprint}" if fingerprint else value


def fingerprint_digits(fingerprint: int) -> str:
    """Give the 8 hex digits by which a version goes in names; "": there is no version."""
    return f"{fingerprint:08x}" if fingerprint else ""


def lease(value: str) -> str:
    """Name the lease of the value called *value*; it lies in the same slot."""
    return f"{value}:l"


def scratch(value: str) -> str:
    """Name the key in which a script adds to the value called *value*."""
    return f"{value}:n"


def host_channel(namespace: str, origin: bytes, db: int = 0) -> str:
    """Name the channel on which one host hears its own heartbeats."""
    return f"accelerator:heartbeat:{escape(namespace.encode())}:{origin.hex()}{_at(db)}"


def answers_channel(namespace: str, nonce: bytes, db: int = 0) -> str:
    """Name the channel on which a probe is answered: beside the heartbeats, as rights go by it."""
    return f"accelerator:heartbeat:{escape(namespace.encode())}:probe:{nonce.hex()}{_at(db)}"


def host_channels(namespace: str, db: int = 0) -> str:
    """Give a pattern, as PUBSUB CHANNELS takes it, of the channels of all hosts."""
    prefix = f"accelerator:heartbeat:{escape(namespace.encode())}:"
    literal = "".join(f"\\{letter}" if letter in "*?[]^\\" else letter for letter in prefix)
    return f"{literal}{'[0-9a-f]' * 32}{_at(db)}"


def origin_of(channel: str) -> str:
    """Read the origin, in hexadecimal digits, from what host_channel() gave."""
    return channel.rpartition(":")[2].partition("@")[0]


def host_beat(namespace: str) -> str:
    """Name what heartbeats write while no area is asked for."""
    return f"{escape(namespace.encode())}:beat"


def _at(db: int) -> str:
    return f"@{db}" if db else ""
