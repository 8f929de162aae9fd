"""The house: its public names, which module may import which, and that importing it changes nothing."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dekrpose
from tests.photo_way import photo_way

PACKAGE = Path(dekrpose.__file__).parent

TIERS = (
    ("errors", "skeletons", "progress"),
    ("config",),
    ("images", "draw", "formats"),
    ("results",),
    ("tracking",),
    ("data",),
    ("options",),
    ("architectures",),
    ("checkpoints",),
    ("engines",),
    ("hub",),
    ("video",),
    ("estimator",),
    ("export", "evaluation", "doctor"),
    ("benchmark", "training"),
    ("serving", "integrations"),
    ("commands",),
    ("cli",),
)
"""A part (a module or a subpackage) may import the parts of the tiers above it, and its own modules."""

FACADE = {("hub", "export")}
"""Parts whose functions may import these from below, inside their bodies. Anyone may import errors."""

CORE = {"torch", "numpy", "cv2", "PIL", "huggingface_hub", "tqdm", "safetensors", "scipy"}
BROUGHT = {"filelock", "yaml"}
"""What core packages bring along: torch and huggingface-hub need them."""
EXTRAS = {
    "tensorboard", "faster_coco_eval", "onnx", "onnxscript", "onnxruntime", "openvino", "av", "pandas", "supervision",
    "gradio", "ray", "matplotlib", "pillow_heif",
}  # fmt: skip
KERNELS = {"architectures.dekr.adaptive_kernels": "triton"}
"""Modules in the language of a package that may be missing: they import it at their top, and only functions them."""

ONE_ARCHITECTURE = {
    "video.memory": "networks for video: DEKR's alone have a memory",
    "training.clips": "networks for video",
    "training.temporal": "networks for video",
    "training.temporal_start": "networks for video",
    "benchmark.streaming": "networks for video",
    "benchmark.naive": "DEKR's naive formulation, as a reference",
    "benchmark.made_up": "made-up people for DEKR",
}
"""Modules outside ``architectures`` that know one of them by name, and why; the others ask the contract."""


@dataclass(frozen=True)
class Import:
    """One imported module: who imports it, what, in which line, whether a function does, whether only for types."""

    importer: str
    imported: str
    line: int
    in_function: bool
    for_types: bool

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported}"


def modules() -> dict[str, Path]:
    """Dotted names below the package, such as decode.nms; the package itself is "__init__"."""
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def imports_of(module: str, path: Path) -> Iterator[Import]:
    def visit(node: ast.AST, in_function: bool, for_types: bool) -> Iterator[Import]:
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: imports are absolute"
            # "from dekrpose import images" imports a module, "from dekrpose.images import load" a name of one
            base = node.module or ""
            names = [f"{base}.{alias.name}" for alias in node.names] if base == "dekrpose" else [base]
        elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func):
            names = [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
        for name in names:
            yield Import(module, name, getattr(node, "lineno", 0), in_function, for_types)
        in_function = in_function or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        types_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, in_function, for_types or types_only)

    yield from visit(ast.parse(path.read_text(encoding="utf-8")), False, False)


IMPORTS = [item for module, path in modules().items() for item in imports_of(module, path)]


def part(module: str) -> str:
    """The part of the house that a dotted name below the package belongs to."""
    return module.split(".")[0]


def tier(name: str) -> int:
    found = [number for number, parts in enumerate(TIERS) if name in parts]
    assert found, f"{name} is in no tier: give it a place in TIERS"
    return found[0]


def test_public_names() -> None:
    assert sorted(dekrpose.__all__) == [
        "COCO_17",
        "CROWDPOSE_14",
        "CheckpointError",
        "DekrPoseError",
        "PoseEstimator",
        "Poses",
        "Skeleton",
        "__version__",
        "draw_poses",
        "list_models",
    ]
    assert all(getattr(dekrpose, name) is not None for name in dekrpose.__all__)


def test_errors_have_one_base() -> None:
    assert issubclass(dekrpose.CheckpointError, dekrpose.DekrPoseError)


def test_every_module_has_its_tier() -> None:
    for module in modules():
        if module not in ("__init__", "__main__"):
            tier(part(module))


def test_tiers() -> None:
    wrong, used = [], set()
    for item in IMPORTS:
        if not item.imported.startswith("dekrpose.") or item.importer in ("__init__", "__main__"):
            continue
        importer, imported = part(item.importer), part(item.imported.removeprefix("dekrpose."))
        if imported == "__version__":
            continue
        if imported in dekrpose.__all__:
            imported = "__init__"
        if imported == "__init__":
            wrong.append(f"{item}: nobody stands above the whole package")
        elif (importer, imported) in FACADE and item.in_function:
            used.add((importer, imported))
        elif imported in ("errors", importer):
            continue
        elif tier(imported) >= tier(importer):
            wrong.append(str(item))
    assert not wrong, "\n".join(wrong)
    assert used == FACADE, f"nobody needs {sorted(FACADE - used)} any more"
    assert len(FACADE) + len(ONE_ARCHITECTURE) <= 10


def test_network_and_decode_of_an_architecture_never_import_each_other() -> None:
    pairs = {tuple(name.removeprefix("dekrpose.") for name in (item.importer, item.imported)) for item in IMPORTS}
    for folder in (PACKAGE / "architectures").iterdir():
        both = f"architectures.{folder.name}.network", f"architectures.{folder.name}.decode"
        assert not pairs & {both, both[::-1]}


def test_only_named_modules_know_an_architecture() -> None:
    folders = [path.name for path in (PACKAGE / "architectures").iterdir() if (path / "learning.py").is_file()]
    assert "dekr" in folders
    ways = tuple(f"dekrpose.architectures.{name}" for name in folders)
    inside = (item for item in IMPORTS if part(item.importer) != "architectures")
    assert {item.importer for item in inside if item.imported.startswith(ways)} == ONE_ARCHITECTURE.keys()


def test_the_command_line_imports_late() -> None:
    early = {item.imported for item in IMPORTS if item.importer == "cli" and not item.in_function}
    early -= {item.imported for item in IMPORTS if item.importer == "cli" and item.for_types}
    assert {name for name in early if name.startswith("dekrpose")} == {"dekrpose.errors"}
    assert not {name.split(".")[0] for name in early} & (CORE | EXTRAS)


def test_core_packages_everywhere_and_extras_inside_functions() -> None:
    wrong = []
    for item in IMPORTS:
        root = item.imported.split(".")[0]
        if item.imported.removeprefix("dekrpose.") in KERNELS and not item.in_function:
            wrong.append(f"{item}: kernels are imported inside functions only")
        if root in sys.stdlib_module_names or root in CORE | BROUGHT | {"dekrpose", KERNELS.get(item.importer)}:
            continue
        if root not in EXTRAS:
            wrong.append(f"{item}: neither a core dependency nor an extra")
        elif not (item.in_function or item.for_types):
            wrong.append(f"{item}: extras are imported inside functions only")
    assert not wrong, "\n".join(wrong)


def test_the_package_says_that_it_is_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()


SNAPSHOT = """
import hashlib, json, logging, os, random, signal, socket, sys, warnings
import cv2, numpy as np, PIL.Image, PIL.ImageFile, safetensors.torch, torch

events = []
watching = False

def watch(event, args):
    if not watching:
        return
    if event.startswith(("socket.", "urllib.", "http.", "ftplib.", "subprocess.", "os.system", "os.remove", "os.rename",
                         "os.mkdir", "os.rmdir", "os.putenv", "tempfile.")):
        events.append(f"{event} {args!r}")
    if event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        events.append(f"{event} {args!r}")

def digest(value):
    return hashlib.sha256(repr(value).encode()).hexdigest()

def settings():
    return {
        "torch threads": [torch.get_num_threads(), torch.get_num_interop_threads()],
        "torch dtype": str(torch.get_default_dtype()),
        "torch gradients": [torch.is_grad_enabled(), torch.is_inference_mode_enabled()],
        "torch backends": [torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic,
                           torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision()],
        "torch printing": repr(vars(torch._tensor_str.PRINT_OPTS)),
        "random": [digest(torch.get_rng_state().tolist()), digest(np.random.get_state()), digest(random.getstate())],
        "opencv": [cv2.getNumThreads(), cv2.useOptimized()],
        "numpy": [repr(np.geterr()), repr(np.get_printoptions())],
        "pillow": [PIL.Image.MAX_IMAGE_PIXELS, PIL.ImageFile.LOAD_TRUNCATED_IMAGES],
        "logging": [repr(logging.root.handlers), logging.root.level, logging.raiseExceptions],
        "warnings": repr(warnings.filters),
        "environment": dict(os.environ),
        "process": [os.getcwd(), repr(signal.getsignal(signal.SIGINT)), repr(sys.excepthook), sys.getrecursionlimit(),
                    socket.getdefaulttimeout(), list(sys.path)],
    }

sys.addaudithook(watch)
before = settings()
watching = True
import dekrpose
watching = False
print(json.dumps({"before": before, "after": settings(), "events": events}))
"""


def test_importing_changes_nothing(tmp_path: Path) -> None:
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    caches = ("XDG_", "HF_", "TORCH_", "MPL", "PYTHON")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(caches)}
    environment |= {"HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(PACKAGE.parent)}
    run = subprocess.run(
        [sys.executable, "-c", SNAPSHOT], capture_output=True, text=True, env=environment, cwd=here, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    seen = json.loads(run.stdout)
    assert seen["before"] == seen["after"]
    assert seen["events"] == []
    assert list(home.rglob("*")) == []
    assert list(here.rglob("*")) == []


def test_the_way_of_a_photo_is_short() -> None:
    way = photo_way()
    assert len(way.lines) <= 16
    assert way.code <= 680
    assert len(way.climbs) <= 1, way.climbs
