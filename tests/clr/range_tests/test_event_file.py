"""TensorBoard's event files. The one here was written by ``torch.utils.tensorboard`` with TensorBoard 2.21.

It holds 120 steps of ``train/lr`` and ``train/loss``, every fourth ``val/accuracy`` as a tensor, a text, a histogram.
"""

import struct
from pathlib import Path

import numpy as np
import pytest

from clr.errors import InvalidArgument
from clr.range_tests.event_file import _checksum, is_event_file, scalars

FILE = Path(__file__).parent / "data" / "range_test.tfevents"


def test_the_scalars_of_a_real_file_are_read() -> None:
    found = scalars(FILE.read_bytes())
    assert set(found) == {"train/lr", "train/loss", "val/accuracy"}
    assert list(found["train/lr"].values()) == pytest.approx(np.geomspace(1e-5, 1, 120), rel=1e-6)
    assert list(found["val/accuracy"]) == list(range(3, 120, 4))


def test_a_file_that_was_cut_off_gives_what_is_whole() -> None:
    data = FILE.read_bytes()
    for cut in (1, 12, 40):
        assert len(scalars(data[: len(data) // 2 - cut])["train/lr"]) in range(80, 90)


@pytest.mark.parametrize("at", [3, 9, 5000, 9000])
def test_a_damaged_byte_is_found(at: int) -> None:
    data = bytearray(FILE.read_bytes())
    data[at] ^= 1
    with pytest.raises(InvalidArgument, match="must be a TensorBoard event file"):
        scalars(bytes(data))


def test_a_file_is_known_by_its_beginning() -> None:
    data = FILE.read_bytes()
    assert is_event_file(data)
    assert is_event_file(data[:4] + b"x" + data[5:])
    assert not is_event_file(b"lr,loss\n0.1,1\n0.2,1\n")
    assert not is_event_file(b"")


def test_the_checksum_is_that_of_the_format() -> None:
    """CRC-32C of 32 zero bytes (RFC 3720, B.4), masked."""
    crc = struct.unpack(">I", bytes.fromhex("8a9136aa"))[0]
    assert _checksum(bytes(32)) == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
