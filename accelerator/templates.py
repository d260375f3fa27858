"""
Keys and tags that are made of the arguments of a call: by a template, or of all of them.

No two lists of arguments may give the same text.  So what a template takes from a call is written
such that it can be read back: None and booleans as words that begin with a percent sign, text that
would look like one of those or like another type with its first character escaped (or behind a word
of its own, where that character is escaped anyway), and, where
several fields meet, everything in it that could be taken for what stands between them.
"""

from __future__ import annotations

import datetime as dt
import enum
import hashlib
import re
import string
from decimal import Decimal
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

from accelerator import keys
from accelerator.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_NAME: Final = re.compile(r"[^.\[]+")
_LOOKS_TYPED: Final = re.compile(
    r"%.*|-?(0|[1-9][0-9]*)|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.DOTALL | re.ASCII
)
_TYPED_FIRST: Final = frozenset("%-0123456789abcdef")
_WORDS: Final = {None: "%none", True: "%true", False: "%false"}
_SCALARS: Final = "str, int, UUID, bytes, bool or None"
_DIGEST_BYTES: Final = 16


class Field(NamedTuple):
    """One replacement field of a template."""

    text: str
    """As it is written, for messages."""
    name: str
    """Of the argument that it begins with."""
    is_hashed: bool
    part: Callable[[Any], Any] | None
    """Takes the part of the argument that it is about; None: it is about all of it."""


_FORMATTER: Final = string.Formatter()


def _part(name: str, argument: str) -> Callable[[Any], Any] | None:
    rest = name[len(argument) :]
    if not rest:
        return None
    if "[" not in rest:
        return attrgetter(rest[1:])
    return lambda value: _FORMATTER.get_field(name, (), {argument: value})[0]


class Template:
    """
    Text with fields such as ``{user_id}``, ``{user.id}``, ``{row[id]}`` and ``{query:hash}``.

    Args:
        text: The template.
        what: What it is for, in messages: key or tag.

    Raises:
        ConfigError: It is no template, or cannot tell all arguments apart.
    """

    def __init__(self, text: str, *, what: str = "key") -> None:
        self.text = text
        self._what = what
        self.literals: list[str] = []
        """What stands before each field, and after the last one."""
        self.fields: list[Field] = []
        self._parse()
        escaped = self._ambiguous() if what == "key" else ""
        self._escapes = {ord(each): _percent(each) for each in escaped}
        self._steps = [*zip(self.fields, self.literals[1:], strict=True)]
        self._is_bare = self.literals == ["", ""] and not self.fields[0].is_hashed

    @property
    def names(self) -> frozenset[str]:
        """Names of the arguments that it needs."""
        return frozenset(field.name for field in self.fields)

    def _parse(self) -> None:
        try:
            parts = list(string.Formatter().parse(self.text))
        except ValueError as error:
            raise self._wrong(str(error)) from None
        after = ""
        for literal, name, spec, conversion in parts:
            if name is None:
                after += literal
                continue
            self.literals.append(after + literal)
            after = ""
            self.fields.append(self._field(name, spec or "", conversion))
        self.literals.append(after)

    def _field(self, name: str, spec: str, conversion: str | None) -> Field:
        match = _NAME.match(name)
        if match is None or not match[0].isidentifier():
            raise self._wrong("each field needs the name of an argument")
        if conversion is not None or spec not in {"", "hash"}:
            raise self._wrong(f"the field {name} may have no format but ':hash'")
        return Field(name, match[0], spec == "hash", _part(name, match[0]))

    def _ambiguous(self) -> str:
        """Characters that values must not contain, so that it is seen where one of them ends."""
        if len(self.fields) < 2:
            return ""
        between = self.literals[1:-1]
        if "" in between:
            raise self._wrong("two fields need some text between them")
        if any("%" in literal for literal in self.literals):
            raise self._wrong("with several fields '%' cannot stand between them")
        found: set[str] = {"%"}
        for literal in between:
            # One of its characters that is in no value tells where it is; punctuation is rarer.
            found |= {each for each in literal if not each.isalnum()} or set(literal)
        return "".join(sorted(found))

    def _wrong(self, problem: str) -> ConfigError:
        return ConfigError(
            f"the {self._what} template is wrong: {problem}", setting=self._what, operation="key"
        )

    # --- filling it in ---

    def key(self, arguments: Mapping[str, Any]) -> Any:
        """
        Make the key of a call: the argument itself if there is nothing but one field.

        Raises:
            TypeError, ValueError: An argument cannot be part of a key; names it, and no value.
        """
        if self._is_bare:
            return self._value(self.fields[0], arguments)
        text = self.literals[0]
        for field, literal in self._steps:
            value = self._value(field, arguments)
            text += digest(value, field.text) if field.is_hashed else self._written(field, value)
            text += literal
        return text

    def tag(self, arguments: Mapping[str, Any]) -> str:
        """Make a tag of a call: values as they read, since a tag may well be that of several."""
        text = [self.literals[0]]
        for field, literal in self._steps:
            value = self._value(field, arguments)
            text += digest(value, field.text) if field.is_hashed else _plain(field, value), literal
        return "".join(text)

    @staticmethod
    def _value(field: Field, arguments: Mapping[str, Any]) -> Any:
        value = arguments[field.name]
        return value if field.part is None else field.part(value)

    def _written(self, field: Field, value: Any) -> str:
        kind = type(value)
        if kind is str:
            return self._text(value)
        if kind is not int:
            value = _scalar(field, value)
            if value is None or isinstance(value, bool):
                return _WORDS[value]
            if isinstance(value, bytes):
                return "%bytes" + value.decode("latin-1").translate(self._escapes)
            if isinstance(value, str):
                return self._text(value)
        return str(value).translate(self._escapes) if self._escapes else str(value)

    def _text(self, text: str) -> str:
        first = ""
        if text[:1] in _TYPED_FIRST and _LOOKS_TYPED.fullmatch(text):
            if text[0] != "%" and ord(text[0]) in self._escapes:
                first = "%str"  # a number's first character is escaped here as well
            else:
                first, text = _percent(text[0]), text[1:]
        return first + (text.translate(self._escapes) if self._escapes else text)


def _percent(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))


def _scalar(field: Field, value: Any) -> Any:
    """Give the plain value of what can be written in a key."""
    try:
        plain = keys.coerce(value)
    except TypeError:
        plain = ()
    if isinstance(plain, tuple):
        kind = type(value).__name__
        raise TypeError(
            f"{{{field.text}}} in a key must be {_SCALARS}, not {kind}: take a part of it, or its "
            f"hash ({{{field.text}:hash}})"
        )
    return plain


def _plain(field: Field, value: Any) -> str:
    plain = _scalar(field, value)
    return plain.decode("latin-1") if isinstance(plain, bytes) else str(plain)


# --- any argument ------------------------------------------------------------------------------


def digest(value: Any, parameter: str) -> str:
    """Give a fingerprint of anything that canonical() takes, as text."""
    return hashlib.blake2b(flat(canonical(value, parameter)), digest_size=_DIGEST_BYTES).hexdigest()


def canonical(value: Any, parameter: str) -> Any:
    """
    Give an argument as a key, or as a tuple of keys that begins with the name of its type.

    Equal only for what is the same: 1, 1.0, "1" and True differ.

    Raises:
        TypeError: Its type has no form that is the same in every process; names the parameter.
    """
    exact = type(value)
    if exact is int or exact is str:
        return value
    if isinstance(value, enum.Enum):
        of = type(value)
        name = value.value if isinstance(value, enum.Flag) else value.name
        return ("enum", of.__module__, of.__qualname__, name)
    if value is None or isinstance(value, bool | bytes):
        return keys.coerce(value)
    for kind, form in _FORMS:
        if isinstance(value, kind):
            found = form(value)
            if found is not None:
                return found
            break
    if isinstance(value, tuple):
        return ("tuple", *(canonical(each, parameter) for each in tuple.__iter__(value)))
    kind_name = type(value).__name__
    raise TypeError(
        f"the argument {parameter} cannot be part of a key, as a {kind_name} has no form that is "
        "the same in every process: give a key= that takes a part of it, or ignore it"
    )


def _datetime(value: dt.datetime) -> Any:
    zone = _zone(value.tzinfo)
    base = dt.datetime.combine(
        dt.date(value.year, value.month, value.day), dt.datetime.timetz(value)
    )
    is_whole = value == base  # a subclass may know more than it shows
    if zone is None or not is_whole:
        return None
    return ("datetime", dt.datetime.isoformat(base), value.fold, zone)


def _time(value: dt.time) -> Any:
    zone = _zone(value.tzinfo)
    return None if zone is None else ("time", dt.time.isoformat(value), value.fold, zone)


def _zone(zone: dt.tzinfo | None) -> str | None:
    """Name of a time zone, "" for none; None: it has no name that says which."""
    if zone is None:
        return ""
    if type(zone) is dt.timezone:
        return f"={zone.utcoffset(None)}{zone.tzname(None)}"
    for name in ("key", "zone"):  # of zoneinfo, and of pytz
        found = getattr(zone, name, None)
        if isinstance(found, str):
            return found
    return None


_FORMS: Final[tuple[tuple[type, Callable[[Any], Any]], ...]] = (
    (str, str.__str__),
    (int, int.__int__),
    (float, lambda value: ("float", float.hex(value))),
    (UUID, keys.coerce),
    (Decimal, lambda value: ("decimal", Decimal.__str__(value))),
    (dt.datetime, _datetime),
    (dt.date, lambda value: ("date", dt.date.isoformat(value))),
    (dt.time, _time),
    (
        dt.timedelta,
        lambda value: ("timedelta", value.days, value.seconds, value.microseconds),
    ),
)


def flat(part: Any) -> bytes:
    """
    Give what canonical() gave as bytes, of any length.

    Raises:
        ValueError: Text that has no UTF-8 form.
    """
    if isinstance(part, tuple):
        parts = [flat(each) for each in part]
        return b"(%d:" % len(parts) + b"".join(b"%d:" % len(each) + each for each in parts)
    if isinstance(part, str):
        try:
            return b"s" + part.encode()
        except UnicodeEncodeError:
            return b"S" + part.encode("utf-8", "surrogatepass")
    if isinstance(part, int) and not isinstance(part, bool):
        return b"i" + hex(part).encode()  # a decimal form of any length is refused by Python
    if isinstance(part, bytes):
        return b"b" + part
    return keys.encode(part)
