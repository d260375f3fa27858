"""
Values as bytes: a code that says what they are, and a payload.

bytes, str, int (64 bit), float, bool and None are stored as they are.  Everything else is msgpack,
with ext types so that tuple, set, frozenset, date and time types, UUID, Decimal, large ints and
registered types come back as what they were.  bytearray and memoryview come back as bytes.
"""

from accelerator.codec.codecs import (
    Codec,
    MsgpackCodec,
    PickleCodec,
    RawCodec,
    decode,
    encode,
    make,
)
from accelerator.codec.extensions import is_immutable, register, register_dataclass
from accelerator.codec.fingerprint import fingerprint_of
from accelerator.codec.raw import (
    CODE_BYTES,
    CODE_FALSE,
    CODE_FLOAT,
    CODE_INT,
    CODE_MSGPACK,
    CODE_NULL,
    CODE_PICKLE,
    CODE_RAW,
    CODE_STR,
    CODE_TRUE,
    RAW_CODES,
    decode_raw,
    encode_raw,
)

__all__ = [
    "CODE_BYTES",
    "CODE_FALSE",
    "CODE_FLOAT",
    "CODE_INT",
    "CODE_MSGPACK",
    "CODE_NULL",
    "CODE_PICKLE",
    "CODE_RAW",
    "CODE_STR",
    "CODE_TRUE",
    "RAW_CODES",
    "Codec",
    "MsgpackCodec",
    "PickleCodec",
    "RawCodec",
    "decode",
    "decode_raw",
    "encode",
    "encode_raw",
    "fingerprint_of",
    "is_immutable",
    "make",
    "register",
    "register_dataclass",
]
