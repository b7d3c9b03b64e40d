"""TensorBoard's event files: the scalars in them, without TensorBoard.

A file is a row of records: length (8 bytes), checksum of the length (4), content, checksum of the content (4), all
little-endian. A checksum is CRC-32C, rotated and offset. The content is the protocol-buffer message ``Event`` (field 2:
step, 5: summary), its summary a row of values (1), each with tag (1) and number (2: float, 8: tensor).
"""

import struct
from collections import defaultdict
from collections.abc import Iterator

from clr.errors import InvalidArgument

Scalars = dict[str, dict[int, float]]
"""tag -> step -> value."""

_MASK = 0xA282EAD8
_FLOAT, _DOUBLE = 1, 2  # TensorProto's numbers for its types


def is_event_file(data: bytes) -> bool:
    """Whether it begins as one: with a record of its version, or at least with a length and its checksum."""
    return b"brain.Event:" in data[:64] or (
        len(data) >= 12 and struct.unpack_from("<I", data, 8)[0] == _checksum(data[:8])
    )


def scalars(data: bytes) -> Scalars:
    """All scalars of an event file; of one that was cut off, those before the cut.

    Raises:
        InvalidArgument: it is no event file, or a record's checksum is wrong.
    """
    found: Scalars = defaultdict(dict)
    for record in _records(data):
        event = dict(_fields(record))
        for _, value in _fields(_bytes(event.get(5, b""))):
            fields = dict(_fields(_bytes(value)))
            number = _number(fields)
            if number is not None:
                found[_bytes(fields[1]).decode()][_signed(event.get(2, 0))] = number
    return dict(found)


def _records(data: bytes) -> Iterator[bytes]:
    at = 0
    while at + 12 <= len(data):
        length, check = struct.unpack_from("<QI", data, at)
        if check != _checksum(data[at : at + 8]):
            raise InvalidArgument("curve", f"must be a TensorBoard event file, with a whole record at byte {at}")
        content = data[at + 12 : at + 12 + length]
        if len(content) < length or at + 16 + length > len(data):
            return  # being written, or cut off
        if struct.unpack_from("<I", data, at + 12 + length)[0] != _checksum(content):
            raise InvalidArgument("curve", f"must be a TensorBoard event file, with a whole record at byte {at}")
        yield content
        at += 16 + length


def _table() -> Iterator[int]:
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        yield value


_TABLE = tuple(_table())


def _checksum(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field of a protocol-buffer message."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        size = {1: 8, 5: 4}.get(kind)
        if size is None:
            size, at = _varint(message, at)
        yield key >> 3, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value, shift, at = value | (byte & 0x7F) << shift, shift + 7, at + 1
        if byte < 0x80:
            return value, at


def _number(value: dict[int, int | bytes]) -> float | None:
    """The number of a summary's value, None where it is a picture, a text or the like."""
    if 2 in value:
        return float(struct.unpack("<f", _bytes(value[2]))[0])
    tensor = dict(_fields(_bytes(value.get(8, b""))))
    # As raw bytes (field 4), or as a row of floats (5) or doubles (6).
    kind = tensor.get(1)
    if kind not in (_FLOAT, _DOUBLE):
        return None
    raw = _bytes(tensor.get(4) or tensor.get(5 if kind == _FLOAT else 6, b""))
    code, size = ("<f", 4) if kind == _FLOAT else ("<d", 8)
    return float(struct.unpack(code, raw)[0]) if len(raw) == size else None


def _bytes(value: int | bytes) -> bytes:
    return value if isinstance(value, bytes) else b""


def _signed(value: int | bytes) -> int:
    return value if isinstance(value, int) else 0
