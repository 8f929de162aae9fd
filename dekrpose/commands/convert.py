"""``dekrpose convert``: from any known format of weights to ours."""

from __future__ import annotations

import argparse
from pathlib import Path

from dekrpose.commands.arguments import check_files

EXAMPLES = (
    "dekrpose convert pose_dekr_hrnetw32_coco.pth w32.safetensors",
    "dekrpose convert pose_dekr_hrnetw32_coco.pth w32.safetensors --rescoring-net final_rescore_coco_kpt.pth --half",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.description = (
        "Read official, mmpose 0.x and 1.x checkpoints, recognised by their tensors; write safetensors."
    )
    parser.add_argument("source", type=Path, metavar="IN.pth")
    parser.add_argument("target", type=Path, metavar="OUT.safetensors")
    parser.add_argument("--rescoring-net", type=Path, metavar="FILE", help="put this scoring net inside")
    smaller = parser.add_mutually_exclusive_group()
    smaller.add_argument("--half", action="store_true", help="store float16: half the size")
    smaller.add_argument("--int8", action="store_true", help="store weights as integers: a quarter of the size")


def run(options: argparse.Namespace) -> int:
    """``dekrpose convert``: read any known format, write ours."""
    check_files([options.source, options.rescoring_net])
    if options.target.suffix != ".safetensors":
        raise ValueError(f"{options.target} must end in .safetensors, the only format that is written")
    from dekrpose.checkpoints import read_checkpoint, read_rescoring_net, write_checkpoint

    checkpoint = read_checkpoint(options.source)
    rescoring = checkpoint.rescoring
    if options.rescoring_net is not None:
        rescoring = read_rescoring_net(options.rescoring_net, checkpoint.config.skeleton)
    write_checkpoint(
        options.target, checkpoint.config, checkpoint.state_dict, rescoring, half=options.half, int8=options.int8
    )
    inside = "with a scoring net" if rescoring else "without a scoring net"
    print(f"{options.source} ({checkpoint.format}, {checkpoint.config.name}) -> {options.target}, {inside}")
    return 0
