"""The doctor: every fault that it knows, planted where it looks, and the same place in health."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import Distribution
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dekrpose import PoseEstimator
from dekrpose.commands.doctor import Finding, add_arguments, gpu, guarded, installation, network, report, storage
from dekrpose.doctor.findings import export, pip, quote, unset
from dekrpose.doctor.gpu import NvidiaGpu, TorchBuild
from dekrpose.hub import cache
from tests.small_model import write_small_model

PACKAGE = Path(installation.__file__).parents[1]
PIP = f"{quote(sys.executable)} -m pip"
needs_sh = pytest.mark.skipif(os.name == "nt", reason="plants shell scripts")
needs_rights = pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")


def install(
    site: Path, name: str, version: str, *requires: str, files: tuple[str, ...] | None = None, extras: str = ""
) -> None:
    """What pip leaves of an installed package."""
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Provides-Extra: {extra}" for extra in extras.split()] + [f"Requires-Dist: {item}" for item in requires]
    (folder / "METADATA").write_text("\n".join(lines) + "\n")
    for file in files or ():
        (site / file).parent.mkdir(exist_ok=True)
        (site / file).touch()
    if files is not None:
        (folder / "RECORD").write_text("".join(f"{file},,\n" for file in (*files, f"{folder.name}/METADATA")))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    return folder


def distributions(site: Path) -> dict[str, Distribution]:
    return installation.installed([str(site)])


def only(findings: list[Finding]) -> Finding:
    (finding,) = findings
    return finding


def fails(error: Exception) -> Callable[[], str]:
    def load() -> str:
        raise error

    return load


def test_python_and_its_pip() -> None:
    assert only(installation.check_python((3, 12, 1), has_pip=True)).status == "ok"
    old = only(installation.check_python((3, 9, 18), has_pip=True))
    assert old.status == "fault"
    assert "3.9.18" in old.message
    assert "3.11" in old.message
    without = only(installation.check_python((3, 12, 1), has_pip=False))
    assert without == Finding("python", "warning", without.message, f"{quote(sys.executable)} -m ensurepip")


def test_the_code_that_runs_is_the_one_that_is_installed(site: Path, tmp_path: Path) -> None:
    package = tmp_path / "checkout" / "dekrpose"
    package.mkdir(parents=True)
    (tmp_path / "checkout" / "pyproject.toml").touch()
    missing = only(installation.check_dekrpose(distributions(site), "0.2.0", package))
    assert (missing.status, missing.repair) == ("warning", f"{PIP} install -e {quote(str(package.parent))}")
    install(site, "dekrpose", "0.1.0")
    other = only(installation.check_dekrpose(distributions(site), "0.2.0", package))
    assert (other.status, other.repair) == (missing.status, missing.repair)
    assert "0.1.0" in other.message
    assert only(installation.check_dekrpose(distributions(site), "0.1.0", package)).status == "ok"


def test_missing_and_old_packages(site: Path) -> None:
    install(
        site, "dekrpose", "0.1.0", "torch>=2.2", "numpy (>=1.24)", "opencv-python>=4.5.5", 'av>=12; extra == "video"'
    )
    install(site, "torch", "2.13.0+cpu")
    install(site, "opencv-python-headless", "4.5.5")
    missing = only(installation.check_requirements(distributions(site)))
    assert (missing.status, missing.repair) == ("fault", f'{PIP} install --upgrade "numpy>=1.24"')
    install(site, "numpy", "1.24.0")
    assert only(installation.check_requirements(distributions(site))).status == "ok"


def test_what_a_broken_install_left_counts_as_missing(site: Path) -> None:
    install(site, "dekrpose", "0.1.0", "torch>=2.2")
    (site / "~orch-2.1.0.dist-info").mkdir()
    (site / "torch-2.13.0.dist-info").mkdir()
    (site / "torch-2.13.0.dist-info" / "METADATA").write_text("Name: torch\n")
    missing = only(installation.check_requirements(distributions(site)))
    assert (missing.status, missing.message) == ("fault", "torch>=2.2 is missing")


def test_a_torch_that_is_too_old(site: Path) -> None:
    install(site, "dekrpose", "0.1.0", "torch>=2.2")
    install(site, "torch", "2.1.2+cu121")
    old = only(installation.check_requirements(distributions(site)))
    assert (old.status, old.repair) == ("fault", f'{PIP} install --upgrade "torch>=2.2"')
    assert "2.1.2" in old.message


def test_what_dekrpose_requires_is_there() -> None:
    assert {finding.status for finding in installation.check_requirements(installation.installed())} <= {"ok"}


@pytest.mark.parametrize("names", list(itertools.combinations(installation.OPENCV_WHEELS, 2)))
def test_two_opencv_wheels(site: Path, names: tuple[str, str]) -> None:
    install(site, names[0], "4.10.0.84")
    assert installation.check_opencv_wheels(distributions(site), has_libgl=True) == []
    install(site, names[1], "5.0.0.93", files=("cv2/__init__.py",))
    both = only(installation.check_opencv_wheels(distributions(site), has_libgl=True))
    assert both.status == "fault"
    assert f"{names[0]} 4.10.0.84 and {names[1]} 5.0.0.93" in both.message
    assert both.repair == f"{PIP} uninstall -y {names[0]} {names[1]} && {PIP} install opencv-python"
    on_a_server = only(installation.check_opencv_wheels(distributions(site), has_libgl=False))
    assert on_a_server.repair == f"{PIP} uninstall -y {names[0]} {names[1]} && {PIP} install opencv-python-headless"


def test_entries_without_files_are_no_second_opencv(site: Path) -> None:
    install(site, "opencv-python", "5.0.0", files=("cv2/__init__.py",))
    install(site, "opencv-python-headless", "5.0.0", files=())
    assert installation.check_opencv_wheels(distributions(site), has_libgl=True) == []


@pytest.mark.parametrize("library", ["libGL.so.1", "libgthread-2.0.so.0"])
def test_opencv_without_system_libraries(site: Path, library: str) -> None:
    install(site, "opencv-python", "5.0.0")
    error = ImportError(f"{library}: cannot open shared object file: No such file or directory")
    broken = only(installation.check_opencv_import(distributions(site), fails(error)))
    assert library in broken.message
    assert broken.repair == f"{PIP} uninstall -y opencv-python && {PIP} install opencv-python-headless"


def test_opencv_that_is_broken_otherwise(site: Path) -> None:
    install(site, "opencv-contrib-python", "5.0.0")
    broken = only(installation.check_opencv_import(distributions(site), fails(ImportError("no module cv2.cv2"))))
    assert broken.status == "fault"
    assert broken.repair == f"{PIP} install --force-reinstall --no-deps opencv-contrib-python"
    assert (
        only(installation.check_opencv_import(distributions(site), lambda: installation.imported("cv2"))).status == "ok"
    )


def test_torch_that_does_not_load() -> None:
    broken = only(installation.check_torch_import(fails(OSError("libcudart.so.12: cannot open shared object file"))))
    assert (broken.check, broken.status) == ("torch", "fault")
    assert "libcudart" in broken.message
    assert "install torch" in (broken.repair or "")
    assert torch.__version__ in only(installation.check_torch_import(lambda: installation.imported("torch"))).message


def test_torch_that_takes_no_arrays() -> None:
    broken = only(installation.check_numpy_bridge(fails(RuntimeError("Numpy is not available"))))
    assert (broken.status, broken.repair) == ("fault", f'{PIP} install "numpy<2"')
    assert only(installation.check_numpy_bridge(installation.share_an_array)).status == "ok"


@pytest.mark.parametrize("wanted", ["torch (==2.2.0)", "torch==2.2.0"])
def test_a_torchvision_of_another_torch(site: Path, wanted: str) -> None:
    install(site, "torchvision", "0.17.0+cpu", "numpy", wanted, "pillow (!=8.3.*,>=5.3.0)")
    install(site, "torch", "2.13.0+cpu")
    other = only(installation.check_torchvision(distributions(site), lambda: ""))
    assert (other.status, other.repair) == ("warning", f"{PIP} install --upgrade torchvision")
    assert "torch 2.2.0" in other.message
    assert "2.13.0+cpu" in other.message


def test_a_torchvision_that_does_not_load(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(site, "torchvision", "0.28.0", "torch==2.13.0")
    assert installation.check_torchvision(distributions(site), fails(AssertionError("not looked at"))) == []
    install(site, "torch", "2.13.0+cpu")
    (site / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    monkeypatch.setenv("PYTHONPATH", str(site))

    def look() -> Finding:
        return only(
            installation.check_torchvision(
                distributions(site), lambda: installation.import_in_a_new_process("torchvision")
            )
        )

    assert (look().status, look().repair) == ("warning", f"{PIP} uninstall -y torchvision")
    assert "operator torchvision::nms does not exist" in look().message
    (site / "torchvision.py").write_text("")
    assert look().status == "ok"


def test_extras_are_listed_and_never_wrong(site: Path) -> None:
    requires = ('av>=12; extra == "video"', "ray[data]>=2.10 ; extra == 'ray'", 'pytest; extra == "dev"')
    install(site, "dekrpose", "0.1.0", "torch>=2.2", *requires, extras="video ray dev")
    install(site, "ray", "2.40.0")
    assert only(installation.check_extras(distributions(site))) == Finding("extras", "ok", "ray; also offered: video")


def test_the_package_comes_back_from_where_it_came(site: Path, tmp_path: Path) -> None:
    install(site, "dekrpose", "0.1.0")
    distribution = distributions(site)["dekrpose"]
    assert installation.reinstall(distribution, site / "dekrpose") == (
        f"{PIP} install --force-reinstall --no-deps dekrpose"
    )
    wheel = "file:///wheels/dekrpose-0.1.0-py3-none-any.whl"
    (site / "dekrpose-0.1.0.dist-info" / "direct_url.json").write_text(json.dumps({"url": wheel, "archive_info": {}}))
    assert installation.reinstall(distribution, site / "dekrpose") == (
        f"{PIP} install --force-reinstall --no-deps {wheel}"
    )
    (tmp_path / ".git").mkdir()
    repair = installation.reinstall(distribution, tmp_path / "dekrpose")
    assert repair == f"git -C {quote(str(tmp_path))} checkout -- dekrpose"


def nvidia_smi(folder: Path, listing: str, table: str = "", status: int = 0) -> str:
    """Plant an nvidia-smi; return the PATH that leads to it."""
    folder.mkdir(exist_ok=True)
    program = folder / "nvidia-smi"
    program.write_text(
        f"#!/bin/sh\nif [ \"$1\" = -L ]; then echo '{listing}'; else echo '{table}'; fi\nexit {status}\n"
    )
    program.chmod(0o755)
    return str(folder)


LISTING = "GPU 0: NVIDIA GeForce RTX 3050 (UUID: GPU-3c1e)"
TABLE = "| NVIDIA-SMI {0}    Driver Version: {0}    CUDA Version: {1} |"
CPU_BUILD = TorchBuild("2.13.0+cpu")
CUDA_BUILD = TorchBuild("2.13.0+cu130", cuda="13.0", trouble="Found no NVIDIA driver on your system.")
NOWHERE = Path("/nowhere")


@needs_sh
@pytest.mark.parametrize(
    ("cuda", "wheels"),
    [("11.4", "cu118"), ("12.2", "cu126"), ("12.8", "cu128"), ("13.1", "cu130"), ("14.0", "cu130"), ("10.2", None)],
)
def test_a_cpu_build_beside_a_gpu(tmp_path: Path, cuda: str, wheels: str | None) -> None:
    path = nvidia_smi(tmp_path / "bin", LISTING, TABLE.format("535.54", cuda))
    found = gpu.find_nvidia(path, NOWHERE, NOWHERE)
    assert found == NvidiaGpu("NVIDIA GeForce RTX 3050", "535.54", cuda)
    fault = only(gpu.check_gpu(found, CPU_BUILD, {}))
    assert fault.status == "fault"
    assert "RTX 3050" in fault.message
    assert "for the CPU alone" in fault.message
    if wheels is None:
        assert fault.repair is None
    else:
        assert (fault.repair or "").startswith(f"{PIP} install uv && ")
        assert (fault.repair or "").endswith(f"--torch-backend={wheels} torch")


def test_a_driver_that_is_too_old() -> None:
    by_version = only(gpu.check_gpu(NvidiaGpu("RTX", "470.86", "11.4"), CUDA_BUILD, {}))
    assert by_version.status == "fault"
    assert "driver 470.86 knows CUDA up to 11.4" in by_version.message
    assert (by_version.repair or "").endswith("--torch-backend=cu118 torch")
    words = "The NVIDIA driver on your system is too old (found version 11040)."
    by_words = only(gpu.check_gpu(NvidiaGpu("RTX"), TorchBuild("2.9", cuda="12.8", trouble=words), {}))
    assert "update the driver" in by_words.message


def test_other_reasons_for_an_idle_gpu() -> None:
    here = NvidiaGpu("RTX", "580.1", "13.0")
    hidden = only(gpu.check_gpu(here, CUDA_BUILD, {"CUDA_VISIBLE_DEVICES": ""}))
    assert (hidden.status, hidden.repair) == ("warning", unset(["CUDA_VISIBLE_DEVICES"]))
    unknown = only(gpu.check_gpu(here, CUDA_BUILD, {"CUDA_VISIBLE_DEVICES": "0"}))
    assert unknown.status == "fault"
    assert CUDA_BUILD.trouble in unknown.message
    assert only(gpu.check_gpu(None, CUDA_BUILD, {})).status == "ok"


@needs_sh
def test_a_driver_that_does_not_answer(tmp_path: Path) -> None:
    mismatch = "Failed to initialize NVML: Driver/library version mismatch"
    (tmp_path / "nvidia0").touch()
    found = gpu.find_nvidia(nvidia_smi(tmp_path / "bin", mismatch, mismatch, 18), NOWHERE, tmp_path)
    fault = only(gpu.check_gpu(found, CUDA_BUILD, {}))
    assert (fault.status, fault.repair) == ("fault", "sudo reboot")
    failed = "NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver."
    path = nvidia_smi(tmp_path / "bin", failed, failed, 9)
    assert only(gpu.check_gpu(gpu.find_nvidia(path, NOWHERE, NOWHERE), CUDA_BUILD, {})).status == "warning"
    fault = only(gpu.check_gpu(gpu.find_nvidia(path, NOWHERE, tmp_path), CUDA_BUILD, {}))
    assert (fault.status, fault.repair) == ("fault", "sudo modprobe nvidia")


@needs_sh
def test_signs_of_a_gpu_without_nvidia_smi(tmp_path: Path) -> None:
    driver, devices, nothing = tmp_path / "driver", tmp_path / "dev", str(tmp_path)
    assert gpu.find_nvidia(nothing, driver, devices) is None
    (driver / "gpus" / "0000:01:00.0").mkdir(parents=True)
    (driver / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 2024\n")
    container = gpu.find_nvidia(nothing, driver, devices)
    assert container == NvidiaGpu(driver="550.54.15", elsewhere=True)
    assert "--gpus all" in only(gpu.check_gpu(container, CPU_BUILD, {})).message
    devices.mkdir()
    (devices / "nvidia0").touch()
    assert gpu.find_nvidia(nothing, driver, devices) == NvidiaGpu(driver="550.54.15")
    none_left = nvidia_smi(tmp_path / "bin", "No devices were found", "No devices were found", 6)
    assert gpu.find_nvidia(none_left, NOWHERE, NOWHERE) is None


@pytest.mark.parametrize(
    ("architecture", "built", "runs"),
    [
        ("sm_90", "sm_80 sm_90", True),
        ("sm_89", "sm_80 sm_86 sm_90", True),
        ("sm_80", "sm_86 sm_90", False),
        ("sm_61", "sm_70 sm_80", False),
        ("sm_120", "sm_80 sm_90", False),
        ("sm_120", "sm_80 sm_90 compute_90", True),
        ("sm_103", "sm_100a", False),
        ("sm_90", "sm_90a", True),
    ],
)
def test_which_code_runs_on_which_gpu(architecture: str, built: str, runs: bool) -> None:
    assert gpu.runs_on(architecture, built.split()) is runs
    build = TorchBuild("2.9.0", cuda="12.8", gpus=(("A GPU", architecture),), architectures=tuple(built.split()))
    finding = only(gpu.check_gpu(NvidiaGpu("A GPU", "580.1", "13.0"), build, {}))
    assert finding.status == ("ok" if runs else "fault")
    assert architecture in finding.message
    if not runs:
        older = architecture in ("sm_61", "sm_80")
        assert (finding.repair or "").endswith(f"--torch-backend={'cu126' if older else 'cu130'} torch")


def test_what_torch_says_about_itself() -> None:
    build = gpu.read_torch()
    assert (build.version, build.cuda) == (torch.__version__, torch.version.cuda)
    assert len(build.gpus) == (torch.cuda.device_count() if torch.cuda.is_available() else 0)


@pytest.mark.parametrize(
    ("built", "available", "machine", "status"),
    [(True, True, "arm64", "ok"), (True, False, "arm64", "warning"), (False, False, "arm64", "fault"),
     (False, False, "x86_64", "ok")],
)  # fmt: skip
def test_macs(built: bool, available: bool, machine: str, status: str) -> None:
    build = TorchBuild("2.9.0", mps_built=built, mps_available=available)
    assert only(gpu.check_mps(build, "Darwin", "13.6", machine)).status == status
    assert gpu.check_mps(build, "Linux", "", machine) == []


@pytest.mark.parametrize(
    ("variables", "folder", "moved_by"),
    [
        ({"HF_HUB_CACHE": "/a", "HF_HOME": "/b"}, "/a", "HF_HUB_CACHE"),
        ({"HF_HOME": "/b", "XDG_CACHE_HOME": "/c"}, "/b/hub", "HF_HOME"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/huggingface/hub", "HF_HOME"),
        ({}, str(Path.home() / ".cache/huggingface/hub"), "HF_HOME"),
    ],
)
def test_where_the_hub_keeps_repositories(variables: dict[str, str], folder: str, moved_by: str) -> None:
    assert storage.hub_cache(variables) == (Path(folder), moved_by)


def test_a_folder_is_not_made_by_looking(tmp_path: Path) -> None:
    finding = only(storage.check_folder("cache", tmp_path / "new" / "folder", "DEKRPOSE_CACHE", lambda _: 5 * 10**9))
    assert finding == Finding("cache", "ok", f"{tmp_path / 'new' / 'folder'}, 5 GB free")
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_the_cache_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    finding = only(storage.check_folder("cache", tmp_path / "file" / "cache", "DEKRPOSE_CACHE"))
    assert finding.status == "fault"
    assert f"{tmp_path / 'file'} is a file" in finding.message
    assert re.match(r"(export|set) DEKRPOSE_CACHE=.*dekrpose-cache", finding.repair or "")


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="plants the folder below /proc")
def test_a_file_system_that_takes_no_files() -> None:
    finding = only(storage.check_folder("hub cache", Path("/proc/self/hub"), "HF_HOME"))
    assert finding.status == "fault"
    assert (finding.repair or "").startswith("export HF_HOME=")


@needs_rights
def test_a_folder_without_write_permission(tmp_path: Path) -> None:
    folder = tmp_path / "read only"
    folder.mkdir(mode=0o500)
    finding = only(storage.check_folder("cache", folder, "DEKRPOSE_CACHE"))
    assert (finding.status, finding.repair) == ("fault", f"chmod -R u+rwX '{folder}'")
    subprocess.run(finding.repair or "", shell=True, check=True)
    assert only(storage.check_folder("cache", folder, "DEKRPOSE_CACHE")).status != "fault"


def test_a_disk_that_is_almost_full(tmp_path: Path) -> None:
    finding = only(storage.check_folder("cache", tmp_path, "DEKRPOSE_CACHE", lambda _: 4 * 10**8))
    assert finding.status == "warning"
    assert "0.40 GB" in finding.message


def test_the_bundled_model(tmp_path: Path) -> None:
    weights = tmp_path / "tiny.safetensors"
    assert only(storage.check_bundled(weights, "repair")).repair == "repair"
    write_small_model(weights)
    assert only(storage.check_bundled(weights, "repair")).status == "ok"
    weights.write_bytes(weights.read_bytes()[:-100])
    broken = only(storage.check_bundled(weights, "repair"))
    assert (broken.status, broken.repair) == ("fault", "repair")


def keep(folder: Path, name: str) -> Path:
    """Put weights into the cache as a download does."""
    written = folder / "written"
    written.write_bytes(name.encode() * 100)
    return cache.keep(folder, name, written, {"url": "https://example.com/weights.pth"})


def test_weights_in_the_cache(tmp_path: Path) -> None:
    assert only(storage.check_cached_weights(tmp_path / "new", "clean")).status == "ok"
    keep(tmp_path, "whole")
    healthy = only(storage.check_cached_weights(tmp_path, "clean"))
    assert healthy.status == "ok"
    assert "whole" in healthy.message

    keep(tmp_path, "short").write_bytes(b"short")
    changed = keep(tmp_path, "changed")
    changed.write_bytes(b"x" + changed.read_bytes()[1:])
    keep(tmp_path, "unknown").with_suffix(".json").unlink()
    note = keep(tmp_path, "stale").with_suffix(".json")
    note.write_text(json.dumps(json.loads(note.read_text()) | {"conversion": -1}))
    found = storage.check_cached_weights(tmp_path, "clean")
    assert [finding.message.split()[0] for finding in found] == ["changed", "short", "stale", "unknown"]
    assert {(finding.status, finding.repair) for finding in found} == {("fault", "clean")}


def test_unfinished_downloads(tmp_path: Path) -> None:
    (tmp_path / cache.DOWNLOADS).mkdir()
    (tmp_path / cache.DOWNLOADS / "w32.pth.part").write_bytes(b"x" * 1_500_000)
    finding = only(storage.check_cached_weights(tmp_path, "clean"))
    assert (finding.status, finding.repair) == ("warning", "clean")
    assert "1.5 MB" in finding.message
    assert "w32.pth.part" in finding.message


@needs_sh
def test_old_unfinished_files_of_the_hub(tmp_path: Path) -> None:
    hub = tmp_path / "the hub"
    blobs = hub / "models--somebody--model" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "now.incomplete").touch()
    assert storage.check_hub_downloads(hub) == []
    (blobs / "old.incomplete").write_bytes(b"x" * 2_000_000)
    os.utime(blobs / "old.incomplete", (time.time() - 3 * storage.DAY,) * 2)
    finding = only(storage.check_hub_downloads(hub))
    assert finding.status == "warning"
    assert "2.0 MB" in finding.message
    subprocess.run(finding.repair or "", shell=True, check=True)
    assert storage.check_hub_downloads(hub) == []
    assert [path.name for path in blobs.iterdir()] == ["now.incomplete"]


@pytest.fixture
def listening() -> Iterator[int]:
    """The port of a server that accepts connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def closed() -> int:
    """A port on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_a_proxy_that_answers(listening: int) -> None:
    assert only(network.check_proxies({}, network.accepts_connections)).status == "ok"
    variables = {"https_proxy": f"http://me:secret@127.0.0.1:{listening}"}
    assert only(network.check_proxies(variables, network.accepts_connections)) == Finding(
        "proxy", "ok", f"https_proxy: 127.0.0.1:{listening} answers"
    )


@pytest.mark.parametrize("value", ["http://me:secret@127.0.0.1:{}", "me:secret@127.0.0.1:{}", "socks5://127.0.0.1:{}"])
def test_a_proxy_that_does_not_answer(closed: int, value: str) -> None:
    variables = {"HTTPS_PROXY": value.format(closed), "ALL_PROXY": value.format(closed)}
    fault = only(network.check_proxies(variables, network.accepts_connections))
    assert (fault.status, fault.repair) == ("fault", unset(["HTTPS_PROXY", "ALL_PROXY"]))
    assert f"127.0.0.1:{closed}" in fault.message
    assert "secret" not in str(fault)


@pytest.mark.parametrize(
    "value",
    ["http://me:secret@", "http://me:sec/ret@proxy:1", "http://me:12/secret@proxy:1", "me:12#secret@proxy:1",
     "http://proxy:secret", "secret://proxy"],
)  # fmt: skip
def test_proxies_that_cannot_be_read_are_not_shown(value: str) -> None:
    fault = only(network.check_proxies({"HTTP_PROXY": value}, lambda host, port: pytest.fail("asked")))
    assert fault.status == "fault"
    assert "secret" not in str(fault)
    assert "12" not in fault.message.replace("3128", "")


def test_proxies_that_downloads_go_around(closed: int) -> None:
    variables = {"HTTP_PROXY": f"http://127.0.0.1:{closed}", "NO_PROXY": "localhost, .huggingface.co"}
    assert only(network.check_proxies(variables, network.accepts_connections)).status == "fault"
    variables["NO_PROXY"] += ",huggingface.co,.openmmlab.com"
    assert only(network.check_proxies(variables, network.accepts_connections)).status == "ok"


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_switches(name: str) -> None:
    for value in ("1", "true", "YES", "on"):
        finding = only(network.check_offline({name: value}))
        assert (finding.status, finding.repair) == ("warning", unset([name]))
    assert {only(network.check_offline({name: value})).status for value in ("", "0", "no")} == {"ok"}


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("HF_ENDPOINT", "https://hf-mirror.example.com/path", "ok"),
        ("HF_ENDPOINT", "hf-mirror.example.com", "fault"),
        ("HF_ENDPOINT", "", "fault"),
        ("HF_ENDPOINT", "file:///srv/models", "fault"),
        ("HF_ENDPOINT", "http://", "fault"),
        ("DEKRPOSE_MIRROR", "http://me:sec/ret@host/weights", "ok"),
        ("DEKRPOSE_MIRROR", "file:///srv/weights", "ok"),
        ("DEKRPOSE_MIRROR", "me:secret@host", "fault"),
        ("DEKRPOSE_MIRROR", "/srv/weights", "fault"),
    ],
)
def test_addresses_of_other_hosts(name: str, value: str, status: str) -> None:
    finding = only(network.check_addresses({name: value}))
    assert (finding.status, finding.repair) == (status, unset([name]) if status == "fault" else None)
    assert not re.search(r"secret|sec/ret", finding.message)
    assert network.check_addresses({}) == []


def test_commands_for_either_shell() -> None:
    assert unset(["A", "B"], windows=False) == "unset A B"
    assert unset(["A", "B"], windows=True) == "set A= && set B="
    assert export("A", "/a b", windows=False) == "export A='/a b'"
    assert pip("list", "/a b/python", windows=False) == "'/a b/python' -m pip list"
    assert pip("list", r"C:\Program Files\python.exe", windows=True) == r'"C:\Program Files\python.exe" -m pip list'


def test_a_check_that_fails_is_a_finding() -> None:
    finding = only(guarded("gpu", fails(KeyError("surprise"))))  # type: ignore[arg-type]
    assert (finding.check, finding.status) == ("gpu", "fault")
    assert "KeyError: 'surprise'" in finding.message


def test_the_report_fits_a_terminal_and_repairs_can_be_copied() -> None:
    long = Finding("hub cache", "fault", "a fault that takes many words to be told " * 5, "repair " * 30)
    text = report([Finding("python", "ok", "3.12"), long, Finding("offline", "warning", "a switch is set")], 80)
    repairs = [line for line in text.splitlines() if "repair " * 30 in line]
    assert len(repairs) == 1
    assert all(len(line) <= 80 for line in text.splitlines() if line not in repairs)
    assert "1 fault and 1 warning" in text
    assert "\033" not in text
    assert "\033" in report([long], 80, colours=True)
    assert report([Finding("python", "ok", "3.12")], 80).endswith("Nothing is wrong.")


DOCTOR = """
import argparse, sys
from dekrpose.commands.doctor import add_arguments, run
parser = argparse.ArgumentParser()
add_arguments(parser)
sys.exit(run(parser.parse_args()))
"""


def run_doctor(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    clean = re.compile(r"(?i)(\w+_proxy|HF_\w*|TRANSFORMERS_\w*|DEKRPOSE_\w*|CUDA_\w*)")
    environment = {name: value for name, value in os.environ.items() if not clean.fullmatch(name)} | variables
    command = [sys.executable, "-c", DOCTOR, *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@needs_sh
def test_everything_at_once(tmp_path: Path, site: Path, closed: int) -> None:
    """Planted around one process: a second OpenCV that does not load, a GPU, an old torchvision, a bad environment."""
    install(site, "opencv-python", "4.10.0.84")
    install(site, "opencv-contrib-python", "4.10.0.84")
    install(site, "torchvision", "0.2.0", "torch==1.0.0")
    (site / "cv2.py").write_text("raise ImportError('libGL.so.1: cannot open shared object file')\n")
    (tmp_path / "file").touch()
    path = nvidia_smi(tmp_path / "bin", LISTING, TABLE.format("580.1", "13.0"))
    result = run_doctor(
        "--json",
        PYTHONPATH=f"{site}{os.pathsep}{PACKAGE.parent}",
        PATH=f"{path}{os.pathsep}{os.environ['PATH']}",
        HTTPS_PROXY=f"http://me:secret@127.0.0.1:{closed}",
        HF_HUB_OFFLINE="1",
        HF_ENDPOINT="no address",
        HF_HOME=str(tmp_path / "hub"),
        DEKRPOSE_CACHE=str(tmp_path / "file" / "cache"),
    )
    assert result.stderr == ""
    assert result.returncode == 1
    assert "secret" not in result.stdout
    findings = [Finding(**item) for item in json.loads(result.stdout)]
    wrong = [(finding.check, finding.status) for finding in findings if finding.status != "ok"]
    expected = [("opencv", "fault"), ("opencv", "fault"), ("torchvision", "warning"), ("cache", "fault")]
    expected += [("proxy", "fault"), ("offline", "warning"), ("mirror", "fault")]
    if not torch.cuda.is_available():
        expected.append(("gpu", "fault"))
    assert set(expected) <= set(wrong)
    assert wrong.count(("opencv", "fault")) == 2
    assert all(finding.repair for finding in findings if (finding.check, finding.status) in expected)
    assert not [finding for finding in findings if "failed itself" in finding.message]


def test_a_torch_that_does_not_load_stops_nothing(tmp_path: Path, site: Path) -> None:
    (site / "torch.py").write_text("raise OSError('libtorch_cuda.so: cannot open shared object file')\n")
    result = run_doctor(PYTHONPATH=f"{site}{os.pathsep}{PACKAGE.parent}", DEKRPOSE_CACHE=str(tmp_path / "cache"))
    assert result.stderr == ""
    assert result.returncode == 1
    assert re.search(r"^fault +torch +torch cannot be imported: libtorch_cuda", result.stdout, re.MULTILINE)
    assert re.search(r"^ok +cache ", result.stdout, re.MULTILINE)
    assert "failed itself" not in result.stdout


def test_options() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    options = parser.parse_args(["--json", "--cache-dir", "weights"])
    assert (options.json, options.cache_dir) == (True, Path("weights"))


WITHOUT_NUMPY = """
import sys
sys.modules["numpy"] = None
import torch
torch.zeros(1)
del sys.modules["numpy"]
from dekrpose.doctor.installation import check_numpy_bridge, share_an_array
(finding,) = check_numpy_bridge(share_an_array)
print(finding.status, finding.message)
"""


@pytest.mark.slow
def test_a_torch_that_started_without_numpy() -> None:
    command = [sys.executable, "-c", WITHOUT_NUMPY]
    result = subprocess.run(command, capture_output=True, text=True, cwd=PACKAGE.parent, check=False)
    assert result.stdout.startswith("fault torch cannot read arrays"), result.stderr


@pytest.mark.parametrize(("difference", "status"), [("", "ok"), ("found 2 people instead of 3", "warning")])
def test_the_cuda_engine_is_compared_with_the_plain_one(
    monkeypatch: pytest.MonkeyPatch, difference: str, status: str
) -> None:
    assert gpu.check_cuda_engine() == [] or torch.cuda.is_available()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    answered = SimpleNamespace(warmup=lambda: None, engine=SimpleNamespace(difference=difference))
    monkeypatch.setattr(PoseEstimator, "from_pretrained", lambda *_, **__: answered)
    finding = only(gpu.check_cuda_engine())
    assert finding.status == status
    assert difference in finding.message
