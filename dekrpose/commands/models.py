"""``dekrpose models``: what there is, what is on this machine, what each architecture costs."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from dekrpose.errors import CheckpointError
from dekrpose.hub import cache

if TYPE_CHECKING:
    from dekrpose.hub.models import ModelInfo

EXAMPLES = ("dekrpose models", "dekrpose models --complexity", "dekrpose models --verify", "dekrpose models --clean")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``dekrpose models``."""
    parser.add_argument("--complexity", action="store_true", help="parameters and GMACs of every architecture")
    parser.add_argument("--verify", action="store_true", help="read every cached file and compare its hash")
    parser.add_argument("--clean", action="store_true", help="delete broken, stale and unfinished files of the cache")
    parser.add_argument("--all", action="store_true", help="with --clean: delete good ones too")
    parser.add_argument("--cache-dir", type=Path, metavar="FOLDER", help="default: DEKRPOSE_CACHE, or the user's cache")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """List, verify or clean as the options say; 1 when --verify found something broken."""
    if options.all and not options.clean:
        raise ValueError("--all goes with --clean")
    if options.complexity:
        return _complexity(options.json)
    if options.clean:
        return _clean(cache.cache_folder(options.cache_dir), options.all)
    if options.verify:
        return _verify(options.cache_dir, options.json)
    from dekrpose.hub.models import list_models
    from dekrpose.hub.published import OTHER_DECODING

    models = list_models(options.cache_dir)
    if options.json:
        print(json.dumps([asdict(model) for model in models], indent=2))
        return 0
    print("\n\n".join(_describe(model) for model in models))
    print(f"\nPublished numbers: {OTHER_DECODING}")
    print(f"Downloads are kept in {cache.cache_folder(options.cache_dir)}")
    return 0


def _describe(model: ModelInfo) -> str:
    size = f"{(model.size or 0) / 1e6:,.1f} MB"
    parameters = f"{(model.parameters or 0) / 1e6:.1f} M parameters"
    state = (
        "in the package" if model.source == "bundled" else f"cached, {model.path}" if model.available else "not here"
    )
    rows = [
        ("size", f"{size}, {parameters}" if model.available else f"about {size} to fetch, {parameters}"),
        ("where", state),
        ("from", "trained for this library" if model.source == "bundled" else model.source),
        ("licence", model.license or "not stated"),
        ("accuracy", model.accuracy if model.measured else f"{model.accuracy or 'unknown'}; not measured here"),
    ]
    return "\n".join([model.name, *(f"  {label:8} {text}" for label, text in rows)])


def _complexity(as_json: bool) -> int:
    from dekrpose.architectures.complexity import complexity, variants

    costs = [complexity(config) for config in variants().values()]
    if as_json:
        names = ("name", "parameters", "gmacs")
        print(json.dumps([{name: getattr(cost, name) for name in names} for cost in costs], indent=2))
        return 0
    print(f"{'name':26} {'input':>5} {'parameters':>12} {'GMACs':>8}")
    for cost in costs:
        print(f"{cost.name:26} {cost.input_size:5} {cost.parameters:12,} {cost.gmacs:8.2f}")
    return 0


def _verify(cache_dir: Path | None, as_json: bool) -> int:
    from dekrpose.hub.models import list_models

    folder = cache.cache_folder(cache_dir)
    found = {str(item.path): _trouble(item) for item in cache.entries(folder)}
    found |= {str(path): "unfinished" for path in cache.leftovers(folder)}
    for model in list_models(cache_dir):
        if model.path is not None and model.path not in found:
            found[model.path] = _unreadable(Path(model.path))
    if as_json:
        print(json.dumps([{"file": path, "problem": trouble} for path, trouble in found.items()], indent=2))
    else:
        for path, trouble in found.items():
            print(f"{'ok' if trouble is None else 'BROKEN'}  {path}{f': {trouble}' if trouble else ''}")
        if any(found.values()):
            print(
                "`dekrpose models --clean` deletes what is broken in the cache; it is fetched again when it is needed"
            )
    return 1 if any(found.values()) else 0


def _trouble(item: cache.Entry) -> str | None:
    return cache.problem(item) or _unreadable(item.path, item.name)


def _unreadable(path: Path, name: str = "") -> str | None:
    from dekrpose.checkpoints import read_checkpoint, read_rescoring_net
    from dekrpose.checkpoints.pickles import read_tensors
    from dekrpose.hub.published import PUBLISHED

    kind = PUBLISHED[name].kind if name in PUBLISHED else "model"
    try:
        if kind == "rescoring net":
            read_rescoring_net(path)
        elif kind == "backbone":
            read_tensors(path)
        else:
            read_checkpoint(path)
    except CheckpointError as error:
        return str(error)
    return None


def _clean(folder: Path, everything: bool) -> int:
    entries = [item for item in cache.entries(folder) if everything or _trouble(item)]
    leftovers = cache.leftovers(folder)
    freed = sum(item.size for item in entries) + sum(path.stat().st_size for path in leftovers)
    for item in entries:
        cache.remove(item)
    for path in leftovers:
        path.unlink(missing_ok=True)
    for path in [*(item.path for item in entries), *leftovers]:
        print(f"deleted {path}")
    kept = sum(item.size for item in cache.entries(folder))
    print(f"{folder}: freed {freed / 1e6:,.1f} MB, {kept / 1e6:,.1f} MB are kept")
    by_hand = [path for path in (folder / cache.DOWNLOADS).glob("*") if path not in leftovers]
    if by_hand:
        print(f"files that were put there by hand stay: {', '.join(path.name for path in by_hand)}")
    print("repositories of Hugging Face lie in the hub's own cache: `hf cache ls` and `hf cache rm` look after it")
    return 0
