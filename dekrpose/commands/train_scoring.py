"""``dekrpose train-scoring``: teach a model to judge its own poses, and keep that only if it helps."""

from __future__ import annotations

import argparse
from pathlib import Path

from dekrpose.commands.arguments import add_match_argument, add_trust_code, check_files, check_model

EXAMPLES = (
    "dekrpose train-scoring runs/mine people.json --images photos --out runs/judged",
    "dekrpose train-scoring runs/mine people.json --images photos --out runs/judged --val val.json",
)
_OPTIONS = (
    ("epochs", int, 20, "N", "times that every pose is seen, or more"),
    ("minimum-steps", int, 1000, "N", "as many more epochs as make so many steps, for few photos"),
    ("batch-size", int, 1024, "N", "poses per step"),
    ("learning-rate", float, 1e-3, "X", "of Adam"),
    ("held-out", float, 0.1, "X", "share of the photos that choose the best epoch; 0 for the last epoch"),
    ("seed", int, 0, "N", "decides first weights, order and photos held out"),
)
"""With the defaults of ``ScoringConfig``, which is slow to load; a test compares them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``dekrpose train-scoring``."""
    parser.description = (
        "Train the scoring net, which says how likely a pose and its keypoints are right, on what a model finds in "
        "photos with COCO-format keypoints; write the model with the net inside, unless that lowers AP on the "
        "validation photos."
    )
    parser.add_argument("model", metavar="MODEL", help="a model's name, folder or weights file")
    parser.add_argument("data", metavar="DATA.json", type=Path, nargs="+", help="COCO keypoints, .json or .json.gz")
    places = "folders, .tar or .zip files; default: beside"
    parser.add_argument("--images", metavar="PLACE", type=Path, nargs="+", help=f"{places} DATA.json")
    parser.add_argument("--out", metavar="FOLDER", type=Path, required=True, help="the model with the net inside")
    parser.add_argument(
        "--val", metavar="VAL.json", type=Path, action="append", default=[],
        help="validation data; may be given again; default: a fifth of DATA's photos, not learnt",
    )  # fmt: skip
    parser.add_argument(
        "--val-images", metavar="PLACE", type=Path, nargs="+", action="append", default=[],
        help=f"{places} VAL.json; of the --val in the same place",
    )  # fmt: skip
    parser.add_argument(
        "--official", action="store_true", help="a net as the released code's: it predicts OKS, a factor of the score"
    )
    parser.add_argument("--force", action="store_true", help="write the model even if AP is lower")
    parser.add_argument("--flip", action="store_true", help="average with the mirrored photo, as published nets do")
    parser.add_argument("--input-size", metavar="N", type=int, help="short side in pixels; default: the model's")
    add_match_argument(parser)
    parser.add_argument("--limit", metavar="N", type=int, help="only N photos of each DATA, evenly spread")
    parser.add_argument("--cache", metavar="FOLDER", type=Path, help="keep what the model finds, to train again")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps, ...")
    add_trust_code(parser)
    for name, kind, default, metavar, text in _OPTIONS:
        parser.add_argument(f"--{name}", type=kind, metavar=metavar, default=default, help=f"{text} ({default})")


def run(options: argparse.Namespace) -> int:
    """Train a scoring net and write the model with it; 0 when written."""
    check_model(options.model)
    check_files([*options.data, *(options.images or []), *options.val])
    check_files(place for places in options.val_images for place in places)
    from dekrpose.training import scoring_run

    return scoring_run.run(options)
