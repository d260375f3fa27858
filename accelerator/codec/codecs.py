"""What an area encodes its values with: msgpack, raw, pickle, or the user's own."""

from __future__ import annotations

import hashlib
import hmac
import pickle
from typing import Any, Final, Protocol, runtime_checkable

from accelerator.codec.extensions import MAX_DEPTH, find_problem, is_immutable, is_too_deep
from accelerator.codec.raw import (
    CODE_BYTES,
    CODE_MSGPACK,
    CODE_NULL,
    CODE_PICKLE,
    CODE_RAW,
    RAW_CODES,
    decode_raw,
    encode_raw,
)
from accelerator.codec.wire import FAST, PLAIN, Wire
from accelerator.errors import ConfigError, SerializationError

CODES: Final = range(1, 32)
"""Codes that a codec may give."""
_MAC_SIZE: Final = 32
_PURPOSE: Final = b"accelerator pickle 1\0"  # so that no other use of the secret signs these bytes
_PROTOCOL: Final = 5


@runtime_checkable
class Codec(Protocol):
    """
    Values to codes and payloads, and back.

    Both methods are called from any thread, and raise SerializationError for what they cannot do.
    """

    def encode(self, value: Any) -> tuple[int, bytes]:
        """Give code (1 to 31; own codecs: from 16 on) and payload of a value."""

    def decode(self, code: int, payload: bytes) -> tuple[Any, bool]:
        """Give the value, and whether it is deeply immutable, so that readers may share it."""


class MsgpackCodec:
    """
    The default: what comes out equals what went in, types included.

    Args:
        fast: Use ormsgpack (True), msgpack (False), or the former where it is installed (None).
            The bytes are the same.
    """

    def __init__(self, *, fast: bool | None = None) -> None:
        if fast and FAST is None:
            raise ConfigError("there is no ormsgpack of a version that can be used: install it")
        self._fast: Wire | None = None if fast is False else FAST

    def encode(self, value: Any) -> tuple[int, bytes]:
        """Encode exact types only; a SerializationError names type and place of what is not."""
        raw = encode_raw(value)
        if raw is not None:
            return raw
        payload = self._pack(value)
        # A level takes at least one byte.
        if len(payload) > MAX_DEPTH and is_too_deep(value):
            raise _not_encodable(value)
        return CODE_MSGPACK, payload

    def decode(self, code: int, payload: bytes) -> tuple[Any, bool]:
        """Decode; SerializationError for whatever encode() does not make."""
        if code in RAW_CODES:
            return decode_raw(code, payload), True
        if code != CODE_MSGPACK:
            raise _unknown(code)
        value = self._unpack(payload)
        kind = type(value)
        return value, kind is not dict and kind is not list and is_immutable(value)

    def _pack(self, value: Any) -> bytes:
        if self._fast is not None:
            try:
                return self._fast.pack(value)
            except Exception:  # noqa: S110  the plain one decides, and says why
                pass
        try:
            return PLAIN.pack(value)
        except SerializationError:  # of a registered encoder
            raise
        except Exception:  # its message may show the value
            raise _not_encodable(value) from None

    def _unpack(self, payload: bytes) -> Any:
        if self._fast is not None:
            try:
                return self._fast.unpack(payload)
            except Exception:  # noqa: S110  the plain one decides, and says why
                pass
        try:
            return PLAIN.unpack(payload)
        except SerializationError:
            raise
        except Exception:  # anything can come of damaged bytes
            raise _damaged(CODE_MSGPACK) from None


class RawCodec:
    """Bytes only, as they are."""

    def encode(self, value: Any) -> tuple[int, bytes]:
        """Encode exact bytes, and None."""
        if type(value) is bytes:
            return CODE_BYTES, value
        if value is None:
            return CODE_NULL, b""
        raise SerializationError(
            f"codec='raw' stores bytes, not {type(value).__qualname__}: encode the value before, "
            "or use codec='msgpack'"
        )

    def decode(self, code: int, payload: bytes) -> tuple[Any, bool]:
        """Decode bytes and None."""
        if code == CODE_NULL:
            return None, True
        if code in {CODE_BYTES, CODE_RAW}:
            return payload, True
        raise _unknown(code)


class PickleCodec:
    """
    Everything that can be pickled, signed: unpickling what somebody else wrote runs their code.

    Args:
        secrets: The first signs, all verify.
    """

    def __init__(self, secrets: tuple[bytes, ...]) -> None:
        if not secrets:
            raise ConfigError("codec='pickle' needs the setting secret", setting="codec")
        self._secrets = secrets

    def __repr__(self) -> str:
        return f"{type(self).__name__}(<{len(self._secrets)} secrets>)"

    def encode(self, value: Any) -> tuple[int, bytes]:
        """Pickle and sign."""
        raw = encode_raw(value)
        if raw is not None:
            return raw
        try:
            data = pickle.dumps(value, _PROTOCOL)
        except Exception as error:  # its message may show the value
            kind, reason = type(value).__qualname__, type(error).__name__
            message = f"a value of type {kind} cannot be pickled ({reason})"
            raise SerializationError(message) from None
        return CODE_PICKLE, _sign(self._secrets[0], data) + data

    def decode(self, code: int, payload: bytes) -> tuple[Any, bool]:
        """Check the signature, and only then unpickle."""
        if code in RAW_CODES:
            return decode_raw(code, payload), True
        if code != CODE_PICKLE:
            raise _unknown(code)
        mac, data = payload[:_MAC_SIZE], payload[_MAC_SIZE:]
        # Not any(): how long it takes must not tell which of the secrets it was.
        if not sum(hmac.compare_digest(mac, _sign(secret, data)) for secret in self._secrets):
            raise SerializationError("a stored value was signed with none of the secrets")
        try:
            value = pickle.loads(data)  # noqa: S301  it was signed by us
        except Exception:  # of classes that are gone or have changed
            raise _damaged(CODE_PICKLE) from None
        return value, is_immutable(value)


class _Foreign:
    """The user's own codec, kept to what a codec may answer and raise."""

    def __init__(self, codec: Any) -> None:
        self._codec = codec

    def encode(self, value: Any) -> tuple[int, bytes]:
        try:
            code, payload = self._codec.encode(value)
        except SerializationError:
            raise
        except Exception as error:
            kind = type(value).__qualname__
            raise SerializationError(f"the codec failed on a value of type {kind}") from error
        if type(code) is not int or code not in CODES or type(payload) is not bytes:
            raise SerializationError("the codec must answer a code from 1 to 31, and bytes")
        return code, payload

    def decode(self, code: int, payload: bytes) -> tuple[Any, bool]:
        try:
            value, immutable = self._codec.decode(code, payload)
        except SerializationError:
            raise
        except Exception as error:
            raise SerializationError(f"the codec failed on bytes of code {code}") from error
        return value, immutable is True


def make(codec: Any, secrets: tuple[bytes, ...] = ()) -> Codec:
    """
    Give the codec that an area's option *codec* asks for.

    Raises:
        ConfigError: It is none, or "pickle" without a secret.
    """
    if codec == "msgpack":
        return _DEFAULT
    if codec == "raw":
        return RawCodec()
    if codec == "pickle":
        return PickleCodec(secrets)
    if isinstance(codec, Codec):
        return _Foreign(codec)
    raise ConfigError("codec must be 'msgpack', 'raw', 'pickle' or an object", setting="codec")


_DEFAULT: Final = MsgpackCodec()
encode: Final = _DEFAULT.encode
decode: Final = _DEFAULT.decode


def _sign(secret: bytes, data: bytes) -> bytes:
    return hmac.new(secret, _PURPOSE + data, hashlib.sha256).digest()


def _not_encodable(value: Any) -> SerializationError:
    problem = find_problem(value) or "the value cannot be encoded"
    return SerializationError(f"not stored: {problem}")


def _damaged(code: int) -> SerializationError:
    return SerializationError(
        f"a stored value of code {code} cannot be decoded: it is damaged, or of a type that is "
        "not known in this process"
    )


def _unknown(code: int) -> SerializationError:
    return SerializationError(f"a stored value has code {code}, which this codec does not read")
