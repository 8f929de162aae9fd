"""Weights files of any origin -> plain dictionaries of tensors, without running anything that is inside them.

Pickles are read by ``torch.load(weights_only=True)`` alone. Beside tensors it may meet the few names of
``_STAND_INS``, which published checkpoints carry in their training log; inert objects take their place, so that
not even NumPy sees what the file says.
"""

from __future__ import annotations

import pickle
import re
import struct
import threading
import warnings
import zipfile
import zlib
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dekrpose.checkpoints.integers import without_integers
from dekrpose.checkpoints.opcodes import check_opcodes, opcodes
from dekrpose.errors import CheckpointError, unquoted

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "checkpoint")
_KEY_PREFIX = re.compile(r"^(?:(?:module|model|ema|ema_model|_orig_mod)\.)+")
_AVERAGING_COUNTERS = {"n_averaged", "steps"}
_USUAL_GLOBAL = re.compile(r"(?:torch|collections|numpy|_codecs)\.")
_NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")
_PICKLE_START = re.compile(rb"\x80|PK")
_MAX_NESTING = 4

# What a broken or hostile pickle raises inside torch.load, besides UnpicklingError.
_UNREADABLE = (
    ArithmeticError, AssertionError, AttributeError, EOFError, ImportError, LookupError, MemoryError,
    RuntimeError, SafetensorError, TypeError, ValueError, struct.error, pickle.UnpicklingError, zipfile.BadZipFile,
    zlib.error,
)  # fmt: skip

_STARTS: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "a git-lfs pointer, a text that stands for the weights", "run: git lfs pull"),
    (b"<!doctype", "a web page, perhaps a login or error page saved in the weights' place", "download it again"),
    (b"<html", "a web page, perhaps a login or error page saved in the weights' place", "download it again"),
    (b"<?xml", "an XML text, perhaps a server's error message", "download it again"),
    (b"\xff\xd8\xff", "a JPEG image", "pass photos to estimate() and weights here"),
    (b"\x89png", "a PNG image", "pass photos to estimate() and weights here"),
    (b"\x1f\x8b", "a gzip archive", "unpack it first"),
    (b"\x89hdf", "an HDF5 file, as Keras writes it", "pass PyTorch or safetensors weights"),
    (b"%pdf", "a PDF document", "pass PyTorch or safetensors weights"),
)
_TEXT = frozenset(range(32, 127)) | {9, 10, 13}


class _Inert:
    """Stands for an object that weights do not need: accepts any arguments and state, keeps and does nothing."""

    def __new__(cls, *_: object) -> _Inert:
        return object.__new__(cls)

    def __setstate__(self, state: object) -> None:
        pass


# mmengine's HistoryBuffer keeps NumPy arrays and its own methods, which pickle as getattr(HistoryBuffer, "mean").
_STAND_INS = [
    type(name, (_Inert,), {"__module__": module})
    for module, name in (
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy.core.multiarray", "scalar"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "scalar"),
        ("mmengine.logging.history_buffer", "HistoryBuffer"),
        ("builtins", "getattr"),
        ("__builtin__", "getattr"),
    )
]
_GLOBALS_LOCK = threading.Lock()


@contextmanager
def _only_stand_ins() -> Iterator[None]:
    """Allow exactly the stand-ins while loading, then put back whatever the program had allowed before."""
    serialization: Any = torch.serialization
    with _GLOBALS_LOCK:
        before = serialization.get_safe_globals()
        serialization.clear_safe_globals()
        serialization.add_safe_globals(_STAND_INS)
        try:
            yield
        finally:
            serialization.clear_safe_globals()
            serialization.add_safe_globals(before)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file, a zip or legacy PyTorch file, and the safetensors metadata (or {}).

    Wrappers such as ``{"state_dict": ...}`` and prefixes such as ``module.`` are taken off.

    Raises:
        CheckpointError: the file is missing, broken, something else, wants to run code, or holds no weights.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would wait for ever
            hint = "a folder, pass a file inside" if path.is_dir() else "a device or a pipe, pass a file"
            raise CheckpointError(f"cannot read it; it is {hint}")
        with path.open("rb") as file:
            head = file.read(256)
    except OSError as error:
        raise CheckpointError(f"cannot read it: {error.strerror}") from error
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 100_000_000:
        tensors, metadata = _read_safetensors(path)
        return _without_prefixes(tensors), metadata
    _refuse_other_kinds(head)
    tensors = _without_prefixes(_state_dict_in(_read_pickle(path, head), 0))
    return {name: tensor.clone() for name, tensor in tensors.items()}, {}  # those in archives are tied to the file


def _refuse_other_kinds(head: bytes) -> None:
    if not head:
        raise CheckpointError("the file is empty; download or copy it again")
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for magic, kind, advice in _STARTS:
        if start.startswith(magic):
            raise CheckpointError(f"these are no weights but {kind}; {advice}")
    if all(byte in _TEXT for byte in head):
        raise CheckpointError("these are no weights but a text; pass a .safetensors or .pth file")


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file, without its tensors, or {}; CheckpointError if it is none or broken."""
    return _read_safetensors(path, with_tensors=False)[1]


def _read_safetensors(path: Path, with_tensors: bool = True) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys()) if with_tensors else []
            # cloned, because the tensors of safe_open stay tied to the file on disk
            return without_integers({name: file.get_tensor(name).clone() for name in names}), file.metadata() or {}
    except (OSError, *_UNREADABLE) as error:
        raise CheckpointError(
            f"the safetensors file is cut off or damaged ({unquoted(error)}); download or copy it again"
        ) from error


def _read_pickle(path: Path, head: bytes) -> Any:
    is_zip = head.startswith(b"PK")
    if is_zip:
        _check_zip(path)
    try:
        check_opcodes(path)
        with _only_stand_ins(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")
            # a tensor in a mapped archive cannot reach beyond it; otherwise torch believes what the pickle says
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        raise CheckpointError(_refusal(path, head, str(error))) from error
    except (OSError, *_UNREADABLE) as error:
        # torch's own words quote names and texts in the file
        raise CheckpointError(
            f"not a readable PyTorch file, perhaps cut off ({type(error).__name__}); download it again"
        ) from error
    _check_claims(content, path.stat().st_size)
    return content


def _check_claims(content: Any, size: int) -> None:
    """Refuse tensors that stand for more numbers than the file can hold, before anything is computed with them."""
    claimed, waiting, seen = 0, [content], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, Counter | OrderedDict | Tensor):
            vars(value).clear()  # what a file names as a method, it would be asked as one
        if isinstance(value, Tensor):
            claimed += value.numel() * value.element_size()
        elif isinstance(value, Mapping | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            waiting.extend(value.values() if isinstance(value, Mapping) else value)
    if claimed > 2 * size:  # some tensors may share their memory
        raise CheckpointError(
            f"its tensors stand for {claimed / 1e6:,.1f} MB, and it has {size / 1e6:,.1f} MB; download it again"
        )


def _check_zip(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            size, names = path.stat().st_size, archive.namelist()
            packed = any(member.compress_type or member.file_size > size for member in archive.infolist())
    except (OSError, *_UNREADABLE) as error:
        raise CheckpointError(
            f"the PyTorch file is cut off or damaged ({unquoted(error)}); download or copy it again"
        ) from error
    if any(name.endswith("/constants.pkl") for name in names):
        raise CheckpointError("this is a TorchScript program, not weights; save module.state_dict() instead")
    if not any(name.endswith("data.pkl") for name in names):
        raise CheckpointError("this is a zip archive without weights; unpack it first")
    if sum(name.lower().endswith("data.pkl") for name in names) > 1:
        raise CheckpointError("refused: it holds several pickles, which torch.save never writes; download it again")
    if packed:
        raise CheckpointError("this archive is compressed, which torch.save never does; unpack it, or save it again")


def _refusal(path: Path, head: bytes, message: str) -> str:
    found = re.search(r"(?:GLOBAL|Unsupported class) ([\w.]{1,100})(?: was| whose|\.?$)", message, re.MULTILINE)
    wanted = [found.group(1)] if found else []
    if not wanted and _PICKLE_START.match(head):
        wanted = [name for name in _globals_in(path) if _NAME.fullmatch(name) and not _USUAL_GLOBAL.match(name)]
    if not wanted:
        return (
            "its pickle is damaged, or no PyTorch file, or not of protocol 2; download it again, or save it again with "
            "torch.save's default settings"
        )
    return (
        f"refused: its pickle asks for {wanted[0][:60]}, which weights do not need and which could run code; nothing "
        "was run. If you trust whoever made it, let them save model.state_dict() alone"
    )


def _globals_in(path: Path) -> list[str]:
    """Names that a pickle would import, read without unpickling, for messages only."""
    names: list[str] = []
    strings: list[str] = []
    memo: list[Any] = []
    latest: Any = None
    try:
        for opcode, argument, _ in chain.from_iterable(opcodes(path)):
            if opcode.name == "PROTO":
                memo = []
            elif opcode.name == "MEMOIZE":
                memo.append(latest)
            elif opcode.name == "GLOBAL":
                names.append(".".join(str(argument).split(" ", 1)))
            elif opcode.name == "STACK_GLOBAL":
                names.append(".".join(strings[-2:]))
            latest = memo[argument] if opcode.name in ("BINGET", "LONG_BINGET") and memo else argument
            if isinstance(latest, str):
                strings.append(latest)
    except (StopIteration, OSError, *_UNREADABLE):
        pass  # what was found before the damage is still worth naming
    return names


def _state_dict_in(content: Any, depth: int) -> dict[str, Tensor]:
    """Find the named tensors in what a file holds; a training checkpoint wraps them."""
    if not isinstance(content, Mapping):
        raise CheckpointError(f"it holds a {type(content).__name__}, not a state dict; save module.state_dict()")
    inner = _wrapped(content) if depth < _MAX_NESTING else None
    if inner is not None:
        return _state_dict_in(inner, depth + 1)
    tensors = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointError(f"it holds no weights: a dict of {len(content)} entries, and none is a named tensor")
    for name, tensor in tensors.items():
        if tensor.is_meta or tensor.is_nested or tensor.layout != torch.strided:
            raise CheckpointError(
                f"its tensor {name[:60]} holds no plain values; save module.state_dict() of a dense model"
            )
    return tensors


def _wrapped(content: Mapping[Any, Any]) -> Mapping[Any, Any] | None:
    # mmengine's averaging hook puts the averaged weights into "state_dict" itself, so that comes first
    averaged = [name for name in content if isinstance(name, str) and name.startswith("ema")]
    for name in (*_WRAPPERS, *averaged, "best_state_dict"):
        value = content.get(name)
        if isinstance(value, Mapping) and value:
            return value
    return None


def _without_prefixes(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    plain = {_KEY_PREFIX.sub("", name): tensor for name, tensor in tensors.items()}
    return {name: tensor for name, tensor in plain.items() if name not in _AVERAGING_COUNTERS}
