"""Checks of the GPU: is one there, and does torch use it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dekrpose.doctor.findings import WINDOWS, Finding, numbers, pip, quote, unset

_WHEELS = (("13.0", "cu130"), ("12.8", "cu128"), ("12.0", "cu126"), ("11.0", "cu118"))
"""The oldest CUDA that a driver must know -> the newest build of torch that then runs."""


@dataclass(frozen=True)
class NvidiaGpu:
    """Signs of an NVIDIA GPU, whether or not torch sees it; "" is unknown.

    Attributes:
        name, driver, cuda: what the driver calls it, the driver's version, the newest CUDA that it runs.
        trouble: what nvidia-smi complained about, if it did.
        there: False when there is nothing but an nvidia-smi that fails.
        elsewhere: the driver lists it, but this system has no device for it, as in a container.
    """

    name: str = ""
    driver: str = ""
    cuda: str = ""
    trouble: str = ""
    there: bool = True
    elsewhere: bool = False


@dataclass(frozen=True)
class TorchBuild:
    """What torch was built for and what it sees.

    Attributes:
        version: such as "2.13.0+cpu".
        cuda, rocm: those that it was built for; None when for none.
        gpus: name and architecture, such as ("NVIDIA H200", "sm_90"), of each GPU that it can use.
        architectures: what its GPU code runs on, such as "sm_90".
        trouble: why it sees no GPU.
        mps_built, mps_available: it was built for Apple's GPUs, and has one.
    """

    version: str
    cuda: str | None = None
    rocm: str | None = None
    gpus: tuple[tuple[str, str], ...] = ()
    architectures: tuple[str, ...] = ()
    trouble: str = ""
    mps_built: bool = False
    mps_available: bool = False


def read_torch() -> TorchBuild:
    """Ask torch."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what they say is in the exception, or checked here
        gpus, trouble = [], ""
        if torch.cuda.is_available():
            for index in range(torch.cuda.device_count()):
                major, minor = torch.cuda.get_device_capability(index)
                gpus.append((torch.cuda.get_device_name(index), f"sm_{major}{minor}"))
        elif torch.version.cuda:
            try:
                torch.zeros(1, device="cuda")
            except (RuntimeError, AssertionError) as error:
                trouble = str(error).strip().split("\n")[0]
        return TorchBuild(
            version=torch.__version__,
            cuda=torch.version.cuda,
            rocm=torch.version.hip,
            gpus=tuple(gpus),
            architectures=tuple(torch.cuda.get_arch_list()),
            trouble=trouble,
            mps_built=torch.backends.mps.is_built(),
            mps_available=torch.backends.mps.is_available(),
        )


def find_nvidia(path: str | None, driver_folder: Path, devices: Path) -> NvidiaGpu | None:
    """Look for an NVIDIA GPU without torch: for nvidia-smi in ``path``, in /proc/driver/nvidia, and in /dev."""
    device = any(devices.glob("nvidia[0-9]*"))
    there = device or any((driver_folder / "gpus").glob("*"))
    driver = ""
    if (driver_folder / "version").is_file():
        found = re.search(r"Kernel Module\s+(?:for \S+\s+)?([\d.]+)", (driver_folder / "version").read_text())
        driver = found[1] if found else ""
    program = shutil.which("nvidia-smi", path=path)
    if program is None:
        return NvidiaGpu(driver=driver, elsewhere=not device) if there else None
    (failed, listing), (_, table) = _ask(program, "-L"), _ask(program)
    name = re.search(r"GPU \d+: (.*?)(?: \(UUID|$)", listing, re.MULTILINE)
    if name is None and not there and (not failed or "No devices" in listing):
        return None
    version = re.search(r"Driver Version:\s*([\d.]+)", table)
    cuda = re.search(r"CUDA (?:\w+ )?Version:\s*([\d.]+)", table)
    return NvidiaGpu(
        name=name[1] if name else "",
        driver=version[1] if version else driver,
        cuda=cuda[1] if cuda else "",
        trouble="" if name else (listing.splitlines() or ["it prints nothing"])[0],
        there=there or name is not None,
        elsewhere=there and not device and name is None,
    )


def _ask(program: str, *words: str) -> tuple[bool, str]:
    """Whether nvidia-smi failed, and what it printed."""
    try:
        result = subprocess.run([program, *words], capture_output=True, text=True, timeout=10, check=False)
    except subprocess.TimeoutExpired:
        return True, "it does not answer within 10 seconds"
    except OSError as error:
        return True, str(error)
    return result.returncode != 0, (result.stdout + result.stderr).strip()


def check_gpu(gpu: NvidiaGpu | None, torch: TorchBuild, environment: Mapping[str, str]) -> list[Finding]:
    """Whether torch uses the GPU that is there."""
    if torch.gpus:
        return _architectures(torch, gpu)
    if gpu is None:
        return [Finding("gpu", "ok", "none found: models run on the CPU")]
    name = gpu.name or "an NVIDIA GPU"
    hidden = environment.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden.strip() in ("", "-1", "NoDevFiles"):
        message = f"{name} is hidden from torch by CUDA_VISIBLE_DEVICES={hidden!r}"
        return [Finding("gpu", "warning", message, unset(["CUDA_VISIBLE_DEVICES"]))]
    if gpu.elsewhere:
        message = "the driver lists an NVIDIA GPU, but /dev has none: containers get theirs with "
        return [Finding("gpu", "warning", message + "`docker run --gpus all`")]
    if gpu.trouble:
        return [_driver_trouble(gpu)]
    if torch.cuda is None:
        build = f"for ROCm {torch.rocm}" if torch.rocm else "for the CPU alone"
        return [_other_build(f"{name} is there, but torch {torch.version} was built {build}", gpu)]
    if "too old" in torch.trouble or (gpu.cuda and numbers(gpu.cuda)[:1] < numbers(torch.cuda)[:1]):
        known = f"knows CUDA up to {gpu.cuda}" if gpu.cuda else "is older than that"
        message = (
            f"{name} is there, but its driver {gpu.driver} {known}, and torch {torch.version} was built for CUDA "
            f"{torch.cuda}: update the driver, or take torch for an older CUDA"
        )
        return [_other_build(message, gpu)]
    message = f"{name} (driver {gpu.driver or 'unknown'}) is there, but torch {torch.version} cannot use it: "
    return [Finding("gpu", "fault", message + (torch.trouble or "it names no reason"))]


def _driver_trouble(gpu: NvidiaGpu) -> Finding:
    message, load = f"nvidia-smi fails: {gpu.trouble}; ", None if WINDOWS else "sudo modprobe nvidia"
    if "mismatch" in gpu.trouble:
        message += "the driver was updated, and the old one runs until the next start"
        return Finding("gpu", "fault", message, "sudo reboot")
    if gpu.there:
        return Finding("gpu", "fault", f"{message}a GPU is there, but its driver does not run", load)
    return Finding("gpu", "warning", f"{message}if this machine has a GPU, its driver does not run", load)


def _other_build(message: str, gpu: NvidiaGpu) -> Finding:
    known = numbers(gpu.cuda or "12.0")
    wheels = next((wheels for oldest, wheels in _WHEELS if known >= numbers(oldest)), None)
    if wheels is None:
        return Finding("gpu", "fault", f"{message}; no torch of today runs with CUDA {gpu.cuda}")
    return Finding("gpu", "fault", message, _replace_torch(wheels))


def _replace_torch(wheels: str) -> str:
    """By uv, which knows where the builds of torch lie."""
    python = quote(sys.executable)
    install = f"{python} -m uv pip install --python {python} --reinstall-package torch --torch-backend={wheels} torch"
    return f"{pip('install uv')} && {install}"


def _architectures(torch: TorchBuild, gpu: NvidiaGpu | None) -> list[Finding]:
    """One finding per GPU that torch sees."""
    findings = []
    for name, architecture in torch.gpus:
        if torch.rocm or runs_on(architecture, torch.architectures):
            findings.append(Finding("gpu", "ok", f"{name} ({architecture}), which torch {torch.version} uses"))
            continue
        message = f"torch {torch.version} has no code for {name} ({architecture}), only for "
        message += ", ".join(torch.architectures)
        if _digits(architecture) < min(map(_digits, torch.architectures), default=0):
            older = "cu118" if (torch.cuda or "").startswith("12.6") else "cu126"
            findings.append(Finding("gpu", "fault", f"{message}: the GPU is older", _replace_torch(older)))
        else:
            findings.append(_other_build(f"{message}: the GPU is newer", gpu or NvidiaGpu(cuda="12.8")))
    return findings


def check_cuda_engine() -> list[Finding]:
    """Whether the fast engine answers as the plain one does, where there is a CUDA device."""
    import torch

    if not torch.cuda.is_available():
        return []
    from dekrpose.estimator import PoseEstimator

    estimator = PoseEstimator.from_pretrained("tiny", device="cuda", engine="cuda")
    estimator.warmup()
    difference: str | None = estimator.engine.difference  # type: ignore[attr-defined]
    message = "the plain engine runs, which is the default"
    if difference is not None:
        message += f'; engine="cuda" {difference or "gives the same"}'
    return [Finding("engine", "warning" if difference else "ok", message)]


def _digits(architecture: str) -> int:
    return int("".join(re.findall(r"\d", architecture)) or 0)


def runs_on(architecture: str, built: Sequence[str]) -> bool:
    """Whether code for some architectures runs on a GPU.

    Binaries (sm_) run on their own generation from their own step on, those ending in "a" on exactly their own;
    intermediate code (compute_) runs on everything newer.
    """
    gpu = _digits(architecture)

    def runs(item: str) -> bool:
        own = _digits(item)
        reaches = own <= gpu and (item.startswith("compute") or own // 10 == gpu // 10)
        return own == gpu or (reaches and not item.endswith("a"))

    return any(map(runs, built))


def check_mps(torch: TorchBuild, system: str, release: str, machine: str) -> list[Finding]:
    """Whether torch uses the GPU of a Mac, such as "Darwin", macOS "14.5", "arm64"."""
    if system != "Darwin":
        return []
    if torch.mps_available:
        return [Finding("gpu", "ok", f"Apple's, through MPS, which torch {torch.version} uses")]
    if torch.mps_built:
        message = f"torch {torch.version} was built for Apple's GPUs (MPS), but finds none on macOS {release} "
        message += f"({machine}): it needs macOS 14 or later, and none in a virtual machine"
        return [Finding("gpu", "warning", message)]
    if machine == "arm64":
        message = f"torch {torch.version} was built without Apple's GPUs (MPS)"
        return [Finding("gpu", "fault", message, pip("install --upgrade --force-reinstall torch"))]
    return [Finding("gpu", "ok", "none that torch knows: models run on the CPU")]
