"""``dekrpose export``: a model as a file for ONNX Runtime, OpenVINO or plain torch."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from dekrpose.commands.arguments import add_trust_code, check_model
from dekrpose.errors import DekrPoseError

EXAMPLES = (
    "dekrpose export tiny tiny.onnx",
    "dekrpose export runs/mine mine.xml --half",
    "dekrpose export tiny tiny.onnx --offsets people --max-people 5",
)
FORMATS = {".onnx": "onnx", ".xml": "openvino", ".pt2": "pt2"}
OFFSETS, SAMPLINGS, OPSET = ("map", "people"), ("deform_conv", "grid_sample"), 20
"""The choices of ``dekrpose.export``, which is slow to load; a test compares them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``dekrpose export``."""
    parser.add_argument("model", metavar="MODEL", help="name, folder or weights file")
    parser.add_argument("out", type=Path, metavar="OUT", help="the new file: .onnx, .xml (OpenVINO) or .pt2 (torch)")
    parser.add_argument("--format", choices=tuple(FORMATS.values()), help="default: as OUT ends")
    parser.add_argument("--max-people", type=int, default=30, metavar="N", help="places in the answer (default: 30)")
    parser.add_argument(
        "--offsets", choices=OFFSETS, default="map",
        help="people: compute offsets at people's centers alone, faster; for one scale and no flip test (default: map)",
    )  # fmt: skip
    parser.add_argument("--half", action="store_true", help="OpenVINO: store weights as float16, half the size")
    parser.add_argument("--opset", type=int, default=OPSET, metavar="N", help=f"of ONNX (default: {OPSET})")
    parser.add_argument("--sampling", choices=SAMPLINGS, help="ONNX: grid_sample is for runtimes without DeformConv")
    parser.add_argument("--rescoring-net", metavar="FILE", help="put this scoring net inside")
    add_trust_code(parser)


def run(options: argparse.Namespace) -> int:
    """Export as the options say, and tell what was written and how far it is from torch."""
    file_format: Any = options.format or FORMATS.get(options.out.suffix.lower())
    if file_format is None:
        raise DekrPoseError(f"{options.out.name} must end in {', '.join(FORMATS)}, or --format must say what it is")
    check_model(options.model, rescoring_net=options.rescoring_net)
    from dekrpose.estimator import PoseEstimator

    print(f"{options.model} as {file_format}: traced, written, then run beside torch ...", file=sys.stderr, flush=True)
    estimator = PoseEstimator.from_pretrained(
        options.model, device="cpu", rescoring_net=options.rescoring_net, trust_code=options.trust_code
    )
    exported = estimator.export(
        file_format, options.out, max_people=options.max_people, half=options.half, opset=options.opset,
        sampling=options.sampling, offsets=options.offsets,
    )  # fmt: skip
    for path in exported.files:
        print(f"{path}  {path.stat().st_size / 1e6:.1f} MB")
    differences = exported.differences
    print(
        f"run beside torch: keypoints differ by at most {differences.keypoints:.1g} input pixels, heatmaps by "
        f"{differences.heatmaps:.1g}"
    )
    return 0
