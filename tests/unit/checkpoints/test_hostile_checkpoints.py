"""Weights files that lie, grow, or are something else: a ``CheckpointError`` in no time, which quotes nothing."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dekrpose import CheckpointError, PoseEstimator
from dekrpose.checkpoints import read_checkpoint, read_rescoring_net
from dekrpose.checkpoints.pickles import read_tensors
from dekrpose.cli import main
from dekrpose.hub.models import resolve, save_folder
from tests.checkpoint_fixtures import official, save_official
from tests.small_model import write_small_model

SECRET = "hunter2 is the password"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_model(tmp_path_factory.mktemp("model") / "own.safetensors")


def with_config(own: Path, path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """The weights with another configuration in their header."""
    data = own.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    config = json.loads(header["__metadata__"]["dekrpose"])
    text = change(config)
    header["__metadata__"]["dekrpose"] = text if isinstance(text, str) else json.dumps(config)
    new = json.dumps(header).encode()
    path.write_bytes(len(new).to_bytes(8, "little") + new + data[8 + length :])
    return path


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config.update(input_size="192"),
        lambda config: config.update(input_size=-192),
        lambda config: config.update(input_size=10**9),
        lambda config: config["decode"].update(scales=[1, 1]),
        lambda config: config["backbone"].update(width=-8),
        lambda config: config["backbone"].update(width="8"),
        lambda config: config["backbone"].update(width=10**9),
        lambda config: config["backbone"].update(blocks=10**5),
        lambda config: config["head"].update(keypoint_channels=None),
        lambda config: config["skeleton"].update(sigmas=[None] * 17),
        lambda config: config.update(architecture="other"),
        lambda config: "[" * 100_000,
        lambda config: '{"a":' * 100_000,
        lambda config: "no JSON",
    ],
)
def test_a_configuration_is_checked_before_anything_is_built(own: Path, tmp_path: Path, change: Any) -> None:
    with pytest.raises(CheckpointError, match=r"configuration|fit"):
        PoseEstimator.from_pretrained(with_config(own, tmp_path / "x.safetensors", change))


@pytest.mark.parametrize("length", [0, 7, 2**20, 2**40, 2**63])
def test_a_header_whose_length_lies_is_refused(own: Path, tmp_path: Path, length: int) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + own.read_bytes()[8:])
    with pytest.raises(CheckpointError):
        read_checkpoint(path)


def rezipped(source: Path, target: Path, how: int, changes: dict[str, Callable[[bytes], bytes]]) -> Path:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", how) as new:
        for name in old.namelist():
            change = changes.get(name.rpartition("/")[2], lambda content: content)
            new.writestr(name, change(old.read(name)))
    return target


def test_an_archive_that_expands_is_refused(tmp_path: Path) -> None:
    sound = save_official(tmp_path / "sound.pth", official())
    bomb = rezipped(sound, tmp_path / "bomb.pth", zipfile.ZIP_DEFLATED, {"0": lambda content: bytes(10**8)})
    assert bomb.stat().st_size < sound.stat().st_size + 10**6
    with pytest.raises(CheckpointError, match="compressed"):
        read_checkpoint(bomb)


def test_an_archive_of_a_version_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    data = bytearray(save_official(tmp_path / "x.pth", official()).read_bytes())
    entry = data.index(b"PK\x01\x02")
    data[entry + 6] = 128
    (tmp_path / "y.pth").write_bytes(data)
    with pytest.raises(CheckpointError, match="damaged"):
        read_checkpoint(tmp_path / "y.pth")


def test_a_tensor_does_not_reach_beyond_its_file(tmp_path: Path) -> None:
    torch.save({"backbone.weight": torch.arange(5.0)}, tmp_path / "x.pth")

    def enlarged(content: bytes) -> bytes:
        return content.replace(b"K\x05", b"J" + (10**8).to_bytes(4, "little"))

    path = rezipped(tmp_path / "x.pth", tmp_path / "y.pth", zipfile.ZIP_STORED, {"data.pkl": enlarged})
    with pytest.raises(CheckpointError):
        read_checkpoint(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_tensor_that_repeats_one_number_is_refused(tmp_path: Path, zipped: bool) -> None:
    state = official()
    name = max(state, key=lambda key: state[key].numel())
    state[name] = torch.zeros(1).expand(10**9)
    with pytest.raises(CheckpointError, match=r"stand for 4,0\d\d"):
        read_checkpoint(save_official(tmp_path / "x.pth", state, zipped))


def test_a_set_says_what_it_is_and_what_to_do(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a.weight": torch.zeros(3)}, "classes": {"a", "b"}}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"holds a Python set, .*model.state_dict\(\) alone, or a list"):
        read_checkpoint(tmp_path / "x.pth")


def nested(count: int) -> bytes:
    return b")" + b"\x85" * count


def doubled(count: int) -> bytes:
    return b")q\0" + b"".join(b"h%c\x86q%c" % (index, index + 1) for index in range(count))


def late(depth: int, width: int) -> bytes:
    """Lists that hold the next one many times, and get it when it is empty."""
    empty = b"".join(b"]q%c0" % index for index in range(depth + 1))
    filled = (b"h%c(" % index + b"h%c" % (index + 1) * width + b"e0" for index in range(depth))
    return empty + b"".join(filled) + b"h\0"


def encoded(codec: bytes) -> bytes:
    """A long text made into bytes again and again."""
    text = b"X" + (10**5).to_bytes(4, "little") + b"a" * 10**5
    return (
        b"c_codecs\nencode\nq\0" + text + b"q\1X%c\0\0\0%sq\2(" % (len(codec), codec) + b"h\0h\1h\2\x86R" * 2000 + b"l"
    )


def colliding(count: int, more: bytes = b"") -> bytes:
    """Numbers of the same hash, and what comes after each."""
    return b"(" + b"".join(b"\x8a" + bytes([len(n)]) + n + more + b"N" for k in range(1, count) if (n := long(k)))


def long(number: int) -> bytes:
    return pickle.encode_long(number * (2**61 - 1))


HUNGRY = {
    "lists that are filled late": late(50, 100),
    "a tensor of lists that are filled late": b"ctorch\nFloatTensor\n" + late(4, 100) + b"\x85R",
    "texts in many bytes": encoded(b"utf_32"),
    "texts in latin1": encoded(b"latin1"),
    "texts as names of domains": encoded(b"punycode"),
    "keys that collide": b"}" + colliding(1000) + b"u",
    "tuples that collide": b"}" + colliding(1000, b"K\0\x86") + b"u",
    "numbers that collide": b"ccollections\nCounter\n" + colliding(1000) + b"l\x85R",
    "very many things": b"(" + b"]" * 300_000 + b"l",
    "tuples in tuples": b"}" + nested(200_000) + b"K\1s",
    "tuples that double": b"}" + doubled(19) + b"h\x13" * 30 + b"\x86K\1s",
    "a list of tuples that double": b"}" + doubled(40) + b"K\1s",
    "bytearray": b"}X\1\0\0\0acbuiltins\nbytearray\n\x8a\5" + (10**9).to_bytes(5, "little") + b"\x85Rs",
    "set": b"c__builtin__\nset\n]\x85R",
    "a long name": b"c" + b"x" * 100_000 + b"\nS\n",
    "a long name without end": b"c" + b"x" * 100_000,
    "a long name of other letters": b"c" + b"\xc3\xa9" * 50_000 + b"\nS\n",
}


def test_a_log_with_numbers_for_keys_does_no_harm(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.zeros(3)}, "log": {i / 7: i for i in range(200)}}, tmp_path / "x.pth")
    assert list(read_tensors(tmp_path / "x.pth")[0]) == ["a"]


@pytest.mark.parametrize("place", ["zip", "legacy", "alone", "keys", "before a zip"])
@pytest.mark.parametrize("kind", HUNGRY)
def test_a_pickle_that_would_take_any_time_or_memory_is_refused(tmp_path: Path, kind: str, place: str) -> None:
    path = tmp_path / "x.pth"
    pickled = b"\x80\x02" + HUNGRY[kind] + b"."
    if place == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in {
                "a/version": b"3\n",
                "a/data.pkl": pickle.dumps({}, 2),
                "a/DATA.PKL": pickled,
            }.items():
                archive.writestr(name, content)
    else:
        system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
        start = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, system, {})]
        path.write_bytes(b"".join(start[: {"keys": 4, "alone": 0}.get(place, 3)]) + pickled)
        if place == "before a zip":
            with zipfile.ZipFile(path, "a") as archive:
                archive.writestr("a/data.pkl", pickle.dumps({}, 2))
    with pytest.raises(CheckpointError, match=r"refused|damaged") as caught:
        read_checkpoint(path)
    assert len(str(caught.value)) < 500 + len(str(path))


class _Attached:
    """Pickles as something of a kind, with attributes that are called as its methods are."""

    def __init__(self, kind: type, *values: object) -> None:
        self.kind, self.values = kind, values

    def __reduce__(self) -> tuple[object, ...]:
        return self.kind, self.values, dict.fromkeys(("items", "values", "get", "keys"), 1)


@pytest.mark.parametrize("holds", [_Attached(OrderedDict), _Attached(Counter, {"a": 1})])
def test_what_a_file_attaches_to_its_things_takes_no_methods_place(tmp_path: Path, holds: _Attached) -> None:
    weights = official(width=4)
    for name in ("numel", "element_size", "clone"):
        vars(next(iter(weights.values())))[name] = 1
    torch.save({"state_dict": weights, "model": holds}, tmp_path / "x.pth")
    assert read_checkpoint(tmp_path / "x.pth").format == "official"
    torch.save(holds, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="holds no weights"):
        read_checkpoint(tmp_path / "x.pth")


def test_an_archive_of_several_pickles_is_refused(tmp_path: Path) -> None:
    save_official(tmp_path / "x.pth", official(width=4))
    with zipfile.ZipFile(tmp_path / "x.pth", "a") as archive:
        archive.writestr("b/Data.pkl", b"\x80\2N.")
    with pytest.raises(CheckpointError, match="several pickles"):
        read_checkpoint(tmp_path / "x.pth")


def test_the_pickles_of_a_legacy_file_count_together(tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes((b"\x80\2(" + b"N" * 90_000 + b"l.") * 3)
    with pytest.raises(CheckpointError, match="holds more than weights do"):
        read_checkpoint(tmp_path / "x.pth")


@pytest.mark.parametrize("legacy", [True, False])
def test_what_weights_do_not_need_is_named_or_what_to_do_is_said(tmp_path: Path, legacy: bool) -> None:
    for other, message in (
        (defaultdict(list, {"a": [1]}), "asks for collections.defaultdict"),
        ({place << 70: place for place in range(99)}, r"torch.save\(model.state_dict\(\)"),
    ):
        content = {"state_dict": official(width=4), "other": other}
        torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=not legacy)
        with pytest.raises(CheckpointError, match=message):
            read_checkpoint(tmp_path / "x.pth")


def test_an_archive_whose_places_lie_is_damaged(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}, 2))
    data = bytearray((tmp_path / "x.pth").read_bytes())
    end = data.rindex(b"PK\x05\x06")
    place = int.from_bytes(data[end + 16 : end + 20], "little")
    data[end + 16 : end + 20] = (place + 5000).to_bytes(4, "little")
    (tmp_path / "y.pth").write_bytes(data)
    with pytest.raises(CheckpointError):
        read_checkpoint(tmp_path / "y.pth")


@pytest.mark.parametrize("zipped", [True, False])
def test_messages_quote_names_only_in_part(tmp_path: Path, zipped: bool) -> None:
    for tensor in (torch.zeros(1), torch.zeros(3).to_sparse()):
        with pytest.raises(CheckpointError) as caught:
            read_checkpoint(save_official(tmp_path / "x.pth", {"x" * 5000: tensor}, zipped))
        assert "x" * 61 not in str(caught.value)


def archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(SECRET, SECRET)


FOREIGN: dict[str, Callable[[Path], object]] = {
    "a text": lambda path: path.write_text(f"password: {SECRET}\n" * 20),
    "a short text": lambda path: path.write_text(SECRET),
    "bytes": lambda path: path.write_bytes(b"\x00\x01" + SECRET.encode() * 20),
    "a header": lambda path: path.write_bytes(b"\x40" + bytes(7) + b'{"' + SECRET.encode() * 20),
    "JSON in a header": lambda path: path.write_bytes(b"\x20" + bytes(7) + f'{{"{SECRET}":"{SECRET}"}}'.encode()),
    "an archive": archive,
    "a pickle": lambda path: path.write_bytes(pickle.dumps({SECRET: [SECRET]})),
    "an old pickle": lambda path: path.write_bytes(pickle.dumps([SECRET], protocol=0)),
    "a saved dict": lambda path: torch.save({SECRET: SECRET}, path),
    "a pickle's start": lambda path: path.write_bytes(b"\x80\x02c" + f"{SECRET}\n{SECRET}\n".encode() * 9),
}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".pt2"])
def test_no_message_quotes_a_file_that_is_no_checkpoint(tmp_path: Path, kind: str, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    FOREIGN[kind](path)
    for read in (PoseEstimator.from_pretrained, read_checkpoint, read_rescoring_net):
        with pytest.raises(CheckpointError) as caught:
            read(path)
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_nor_do_those_of_the_runtimes(tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("onnxruntime" if suffix == ".onnx" else "openvino")
    path = tmp_path / f"x{suffix}"
    path.with_suffix(".bin").touch()
    for content in (SECRET, f"<net>{SECRET}</net>", f'<?xml version="1.0"?><{SECRET.split()[0]} a="{SECRET}"/>'):
        path.write_text(content)
        with pytest.raises(CheckpointError) as caught:
            PoseEstimator.from_pretrained(path)
        assert "hunter2" not in str(caught.value)


def test_a_config_beside_weights_is_not_quoted_and_may_be_anything(own: Path, tmp_path: Path) -> None:
    read = read_checkpoint(own)
    folder = tmp_path / "model"
    save_folder(folder, read.config, read.state_dict)
    for text in (SECRET, json.dumps({SECRET: SECRET}), "[" * 100_000, '{"a":' * 100_000, "[]", "\ud800"):
        (folder / "config.json").write_bytes(text.encode("utf-8", "surrogatepass"))
        with pytest.raises(CheckpointError) as caught:
            resolve(folder)
        assert "hunter2" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_a_pipe_is_no_checkpoint(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pth")
    with pytest.raises(CheckpointError, match="pipe"):
        read_checkpoint(tmp_path / "pipe.pth")


class TestTrust:
    def test_a_pt2_is_opened_only_for_those_who_trust_its_author(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened: list[Path] = []

        def load(path: Path, **_: Any) -> None:
            opened.append(path)
            raise RuntimeError("no program")

        monkeypatch.setattr(torch.export, "load", load)
        path = tmp_path / "model.pt2"
        path.write_bytes(b"x")
        with pytest.raises(CheckpointError, match="trust_code=True"):
            PoseEstimator.from_pretrained(path)
        assert opened == []
        with pytest.raises(CheckpointError, match="broken"):
            PoseEstimator.from_pretrained(path, trust_code=True)
        assert opened == [path]

    @pytest.mark.parametrize("command", ["predict x.jpg --model", "eval", "video x.mp4 --model", "export", "benchmark"])
    def test_commands_ask_too(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        for name in ("x.jpg", "x.mp4", "x.json", "model.pt2"):
            (tmp_path / name).write_bytes(b"x")
        more = {"eval": ["x.json"], "export": ["out.onnx"]}.get(command, [])
        if command == "eval":
            pytest.importorskip("faster_coco_eval")
        words = [*command.split(), "model.pt2", *more]
        assert main(words) == 1
        assert "--trust-code" in capsys.readouterr().err
        assert main([*words, "--trust-code"]) == 1
        error = capsys.readouterr().err
        assert "broken" in error
        assert "--trust-code" not in error
