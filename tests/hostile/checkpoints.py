"""Hostile weights: damaged files of every format, lies in headers and configurations, archives and pickles."""

from __future__ import annotations

import io
import json
import pickle
import random
import tempfile
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from dekrpose.errors import DekrPoseError
from tests.hostile.kind import EXTREMES, SECRET, Kind, damaged, planted


@cache
def _checkpoints() -> list[bytes]:
    """Weights of a small network in every format."""
    from dekrpose.checkpoints import read_checkpoint, write_checkpoint
    from tests.checkpoint_fixtures import mmpose_0, mmpose_1, official, save_mmpose_0, save_mmpose_1, save_official
    from tests.small_model import write_small_model

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        own = write_small_model(folder / "own.safetensors")
        read = read_checkpoint(own)
        write_checkpoint(folder / "int8.safetensors", read.config, read.state_dict, int8=True)
        save_official(folder / "a.pth", official(width=4))
        save_official(folder / "b.pth", official(width=4), zipped=False)
        save_mmpose_1(folder / "c.pth", mmpose_1(width=4))
        save_mmpose_0(folder / "d.pth", mmpose_0(width=4))
        return [_in_order(path.read_bytes()) for path in sorted(folder.iterdir())]


def _in_order(data: bytes) -> bytes:
    """A safetensors file with its header in order, which is another one in each process; other files as they are."""
    if data[8:9] != b"{":
        return data
    length = int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8 : 8 + length]), sort_keys=True).encode()
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def make_checkpoint(dice: random.Random) -> bytes:
    """Damaged weights; sound ones with another configuration or header; archives and pickles that want too much."""
    what = dice.randrange(10)
    if what < 4:
        return damaged(dice.choice(_checkpoints()), dice)
    if what < 7:
        return _lying(dice.choice([data for data in _checkpoints() if data[8:9] == b"{"]), dice)
    if what == 7:
        return _archive(dice)
    if what == 8:
        return _pickle(dice)
    text = f"{SECRET} ".encode() * dice.randrange(1, 99)
    starts = (b"", b"PK\x03\x04", b"\x80\x02", b"{", b"\x00\x01", b"\x40\0\0\0\0\0\0\0{", b"\xff\xfe", b"c", b"\x89HDF")
    return dice.choice(starts) + text


def _lying(data: bytes, dice: random.Random) -> bytes:
    """A safetensors file whose configuration or header says something else."""
    length = int.from_bytes(data[:8], "little")
    header, tensors = json.loads(data[8 : 8 + length]), data[8 + length :]
    if dice.random() < 0.7:
        config = planted(json.loads(header["__metadata__"]["dekrpose"]), dice)
        text = json.dumps(config) if dice.random() < 0.95 else "[" * 100_000
        header["__metadata__"]["dekrpose"] = text
    else:
        header = planted(header, dice)
    text = json.dumps(header)
    length = len(text) if dice.random() < 0.9 else dice.choice(EXTREMES)
    return length.to_bytes(8, "little") + text.encode() + tensors


def _archive(dice: random.Random) -> bytes:
    """A PyTorch file of which some member is not what it was."""
    original = zipfile.ZipFile(io.BytesIO(dice.choice([data for data in _checkpoints() if data[:2] == b"PK"])))
    file = io.BytesIO()
    how = dice.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(file, "w", how) as archive:
        for name in original.namelist():
            content = original.read(name)
            if dice.random() < 0.005:
                content = bytes(dice.choice((0, 100, 10**6, 10**8)))
            elif name.endswith("data.pkl"):
                content = damaged(content, dice)
            archive.writestr(name, content)
        if dice.random() < 0.2:
            archive.writestr(dice.choice(("archive/constants.pkl", "../../x", SECRET)), bytes(10))
    return damaged(file.getvalue(), dice) if dice.random() < 0.3 else file.getvalue()


class _Call:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def _pickle(dice: random.Random) -> bytes:
    """A pickle of something else than weights, in PyTorch's archive or alone."""
    import os

    import torch

    large = torch.zeros(1).expand(dice.choice((10, 10**6, 10**9)), 64)
    values = (
        _Call(os.system, f"echo {SECRET}"), _Call(eval, "1"), {"state_dict": {"a.weight": large}}, {SECRET: SECRET},
        [SECRET], {"l1.weight": torch.zeros(256, 74)}, {"a": torch.zeros(3).to_sparse()}, {1: torch.zeros(3)},
        {"backbone.conv1.weight": torch.zeros(4, dtype=torch.complex64)}, {"a": {"a": {"a": {"a": {}}}}},
        _Call(torch.zeros, 10**9), _Call(torch.Tensor, 10**6, 10**6), _Call(torch.FloatStorage, 2**40),
    )  # fmt: skip
    value, file = dice.choice(values), io.BytesIO()
    if dice.random() < 0.3:
        return b"\x80\x02" + _hungry(dice) + b"."
    if dice.random() < 0.3:
        return pickle.dumps(value, protocol=dice.choice((0, 2, 4)))
    torch.save(value, file, _use_new_zipfile_serialization=dice.random() < 0.7)
    return file.getvalue()


def _hungry(dice: random.Random) -> bytes:
    """Opcodes whose work grows: by mentions, late filling, encodings, collisions, or their number."""
    width = dice.choice((10, 100, 1000))
    lists = b"".join(b"]q%c0" % index for index in range(9))
    filled = b"".join(b"h%c(" % index + b"h%c" % (index + 1) * width + b"e0" for index in range(dice.randrange(9)))
    text = b"X" + (100 * width).to_bytes(4, "little") + b"a" * 100 * width
    codec = dice.choice((b"latin1", b"utf_32", b"punycode"))
    encoded = b"q\1X%c\0\0\0%sq\2(" % (len(codec), codec) + b"h\0h\1h\2\x86R" * 10 * width
    numbers = [pickle.encode_long(factor * (2**61 - 1)) for factor in range(1, 10 * width)]
    pairs = b"(" + b"".join(b"\x8a%c%sN" % (len(number), number) for number in numbers)
    call = dice.choice(
        (b"ctorch\nFloatTensor\n", b"ccollections\nCounter\n", b"c__builtin__\nset\n", b"ctorch\nSize\n")
    )
    return dice.choice(
        (
            lists + filled + b"h\0",
            call + lists + filled + b"h\0\x85R",
            b"c_codecs\nencode\nq\0" + text + encoded + b"l",
            b"}" + pairs + b"u",
            call + pairs + b"l\x85R",
            b"(" + dice.choice((b"]", b"}", b"N", b"K\1", b")")) * 800 * width + b"l",
        )
    )


def use_checkpoints() -> Callable[[bytes], Any]:
    from dekrpose import PoseEstimator

    folder = tempfile.TemporaryDirectory()
    pixels = np.full((64, 64, 3), 128, np.uint8)
    PoseEstimator.from_pretrained(device="cpu").estimate(pixels, input_size=64)

    def use(data: bytes) -> None:
        path = Path(folder.name) / "weights.bin"
        path.write_bytes(data)
        PoseEstimator.from_pretrained(path, device="cpu").estimate(pixels, input_size=64)

    return use


def harmless_checkpoint() -> bytes:
    return _checkpoints()[0]


CHECKPOINTS = Kind(
    make_checkpoint, use_checkpoints, harmless_checkpoint, (DekrPoseError,), 3_000, seconds=10, mebibytes=512,
    secret=SECRET,
)  # fmt: skip
