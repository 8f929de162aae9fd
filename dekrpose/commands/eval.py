"""``dekrpose eval``: measure a model on annotated photos."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dekrpose.commands.arguments import add_match_argument, add_trust_code, check_files, check_model, scale
from dekrpose.commands.eval_video import add_arguments as add_video_arguments
from dekrpose.commands.eval_video import run as run_on_clips
from dekrpose.errors import DekrPoseError, counted
from dekrpose.formats import json_text, write_whole

if TYPE_CHECKING:
    from dekrpose.data.dataset import KeypointDataset
    from dekrpose.estimator import PoseEstimator
    from dekrpose.evaluation.evaluate import Report
    from dekrpose.evaluation.predictions import Predictions

EXAMPLES = (
    "dekrpose eval tiny people.json --images photos",
    "dekrpose eval runs/mine val.json --images val.tar --sweep --errors --report report.html",
    "dekrpose eval tiny people.json --images photos --compare dtype=bfloat16",
)
RANDOM_SEED = 0
_DECIDING = {
    "images": None, "flip": False, "scales": None, "match_heatmap": None, "nms_threshold": None, "no_rescore": False,
    "rescoring_net": None, "input_size": None, "dtype": "auto", "score_threshold": None, "crowd_limits": None,
    "limit": None, "random_weights": False,
}  # fmt: skip
"""Options that decide the numbers, and what they are when nobody says."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``dekrpose eval``."""
    parser.description = (
        "Measure a model on photos with keypoints in COCO's format: AP and AR of everybody; PCK, recall, precision "
        "and false people at one score threshold."
    )
    parser.add_argument("model", metavar="MODEL", help="a model's name, folder or weights file")
    parser.add_argument(
        "data", metavar="DATA.json", type=Path, nargs="?", help="COCO keypoints file, .json or .json.gz"
    )
    parser.add_argument(
        "--images", metavar="PLACE", type=Path, nargs="+", help="folders, .tar or .zip files; default: beside DATA.json"
    )
    parser.add_argument("--flip", action="store_true", help="average with the mirrored photo, as published numbers do")
    parser.add_argument(
        "--scales", metavar="S", type=scale, nargs="+", help="input scales, 1 among them; default: the model's"
    )
    add_match_argument(parser)
    parser.add_argument(
        "--nms-threshold", metavar="T", type=float,
        help="how near two poses are one person's, as a share of the box's diagonal; default: the model's",
    )  # fmt: skip
    rescoring = parser.add_mutually_exclusive_group()
    rescoring.add_argument("--rescoring-net", metavar="PATH", type=Path, help="predicts how good a pose is")
    rescoring.add_argument("--no-rescore", action="store_true", help="do without the model's scoring net")
    parser.add_argument("--input-size", metavar="N", type=int, help="short side in pixels; default: the model's")
    parser.add_argument("--score-threshold", metavar="T", type=float, help="for all but AP; default: the model's")
    parser.add_argument("--limit", metavar="N", type=int, help="only the first N photos")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps, ...")
    parser.add_argument("--dtype", default="auto", help="float32, bfloat16 or float16 for backbone and heatmap head")
    parser.add_argument(
        "--crowd-limits", metavar=("EASY", "MEDIUM"), type=float, nargs=2,
        help="highest crowdIndex of CrowdPose's easy and medium photos; 0.1 0.8 as in its paper, its code has 0.2 0.8",
    )  # fmt: skip
    parser.add_argument(
        "--compare", metavar="CHANGE", nargs="+",
        help="measure another model as well, or this one with dtype=..., input-size=..., match-heatmap=...: how far "
        "keypoints move, and the measures of both",
    )  # fmt: skip
    parser.add_argument("--json", metavar="OUT.json", type=Path, help="write the measures here")
    parser.add_argument("--results", metavar="RESULTS.json", type=Path, help="write the poses here, in COCO's format")
    parser.add_argument(
        "--report", metavar="REPORT.html", type=Path, help="write a page with the measures, best and worst photos"
    )
    parser.add_argument("--sweep", action="store_true", help="also print the measures at several score thresholds")
    parser.add_argument("--reliability", action="store_true", help="also print the share of right poses by score")
    parser.add_argument("--errors", action="store_true", help="also print how keypoints go wrong: jitter, swap, ...")
    parser.add_argument(
        "--random-weights", action="store_true", help="the same network with fresh weights: what chance would reach"
    )
    parser.add_argument(
        "--record", action="store_true", help="write the measures into MODEL, a folder or file of yours, and its card"
    )
    add_trust_code(parser)
    add_video_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Evaluate as the arguments say and print the measures; 0 when done.

    Raises:
        DekrPoseError: the dataset, a photo or the model cannot be read, or the measures cannot be recorded.
        ImportError: faster-coco-eval is missing.
    """
    check_model(options.model, rescoring_net=options.rescoring_net)
    check_files([options.data, *(options.images or [])])
    if options.video:
        return run_on_clips(options)
    if options.data is None:
        raise DekrPoseError("DATA.json is missing: expected annotated photos to measure on, or --video for clips")
    from dekrpose.data.dataset import KeypointDataset
    from dekrpose.evaluation.coco_ap import load_evaluator
    from dekrpose.evaluation.comparison import check_keypoints, compared_table, other_options, shift
    from dekrpose.evaluation.record import find_target, record

    load_evaluator()
    for path in (options.json, options.results, options.report):
        if path is not None and not path.absolute().parent.is_dir():
            raise DekrPoseError(f"{path} cannot be written, since its folder does not exist; make it first")
    target = None
    if options.record:
        _refuse_partial(options)
        target = find_target(options.model)
    estimator = _estimator(options)
    if options.compare:
        other = other_options(options)
        other_estimator = _estimator(other)
        check_keypoints(estimator.config, other_estimator.config)
    dataset = KeypointDataset(options.data, options.images, estimator.config.skeleton)
    predictions, measures, settings = _measure(options, estimator, dataset)
    _print(options, predictions, measures)
    if options.compare:
        others, other_measures, _ = _measure(other, other_estimator, dataset)
        moved = shift(predictions, others, (measures.score_threshold, other_measures.score_threshold))
        print(f"\ncompared with {' '.join(options.compare)}\n{compared_table(moved, measures, other_measures)}")
        compared = {"with": options.compare, "shift": moved.to_dict(), "measures": other_measures.to_dict()}
        settings["compared"] = compared
    _write(options, predictions, measures, settings)
    if target is not None:
        data = (
            f"{options.data.name} ({counted(measures.photos, 'photo')}, {counted(measures.people, 'person', 'people')})"
        )
        record(target, measures, command_line(options), data)
        print(f"\nrecorded in {options.model}")
    return 0


def _measure(
    options: argparse.Namespace, estimator: PoseEstimator, dataset: KeypointDataset
) -> tuple[Predictions, Report, dict[str, Any]]:
    """What a model finds, its measures, and the settings that both come from."""
    from dekrpose.evaluation.evaluate import own_threshold, predictor, report
    from dekrpose.evaluation.predictions import collect

    settings = {
        "flip_test": options.flip,
        "input_size": options.input_size,
        "scales": options.scales,
        "match_heatmap": estimator.config.decode.match_heatmap or False,
        "nms_threshold": options.nms_threshold,
    }
    predictions = collect(predictor(estimator, **settings), dataset, limit=options.limit)
    threshold = own_threshold(estimator) if options.score_threshold is None else options.score_threshold
    limits = {"crowd_limits": tuple(options.crowd_limits)} if options.crowd_limits else {}
    measures = report(predictions, threshold, **limits)
    return predictions, measures, {**settings, "rescored": estimator.rescoring_net is not None}


def _estimator(options: argparse.Namespace) -> PoseEstimator:
    from dekrpose.estimator import PoseEstimator
    from dekrpose.options import with_matching

    rescoring: dict[str, Any] = {"rescoring_net": options.rescoring_net} if options.rescoring_net else {}
    if options.no_rescore:
        rescoring = {"rescoring_net": False}
    estimator = PoseEstimator.from_pretrained(
        options.model, device=options.device, dtype=options.dtype, trust_code=options.trust_code, **rescoring
    )
    estimator.config = with_matching(estimator.config, options.match_heatmap)
    if options.random_weights:
        randomise(estimator)
    return estimator


def _print(options: argparse.Namespace, predictions: Predictions, measures: Report) -> None:
    from dekrpose.evaluation.errors import keypoint_errors
    from dekrpose.evaluation.evaluate import percent, sweep, sweep_table
    from dekrpose.evaluation.reliability import reliability

    print(measures.table())
    if options.sweep:
        print(f"\n{sweep_table(sweep(predictions))}")
    if options.reliability:
        print(f"\n{reliability(predictions, measures.score_threshold).table()}")
    if options.errors:
        shown = predictions.shown(measures.score_threshold)
        shares = keypoint_errors(predictions.photos, shown, predictions.dataset.skeleton)
        print("\nkeypoints of found people: " + ", ".join(f"{kind} {percent(share)}" for kind, share in shares.items()))


def _write(
    options: argparse.Namespace, predictions: Predictions, measures: Report, settings: Mapping[str, Any]
) -> None:
    from dekrpose.evaluation.page import evaluation_page
    from dekrpose.evaluation.predictions import results_json

    suffix = " with random weights" if options.random_weights else ""
    if options.results:
        write_whole(options.results, json_text(results_json(predictions.photos, predictions.people)))
    if options.json:
        names = {"model": f"{options.model}{suffix}", "data": options.data.name}
        write_whole(options.json, json_text({**names, **settings, **measures.to_dict()}))
    if options.report:
        names = {"model": f"{_name(options.model)}{suffix}", "data": options.data.name}
        page = evaluation_page(predictions, measures, **names, command=command_line(options))
        write_whole(options.report, page)
        print(f"\nreport in {options.report}")


def _refuse_partial(options: argparse.Namespace) -> None:
    for name, given in (("--limit", options.limit is not None), ("--random-weights", options.random_weights)):
        if given:
            raise DekrPoseError(f"--record keeps a model's own numbers on the whole data; leave out {name}")


def command_line(options: argparse.Namespace) -> str:
    """The command that gives the same numbers: what decides them, with names of files and folders, not their paths."""
    words = ["dekrpose", "eval", _name(options.model), _name(options.data)]
    for name, usual in _DECIDING.items():
        value = getattr(options, name)
        if value != usual:
            words.append(f"--{name.replace('_', '-')}")
            given = value if isinstance(value, list) else [] if value is True else [value]
            words += [_name(each) if isinstance(each, Path) else _shortest(each) for each in given]
    return shlex.join(words)


def _shortest(value: float | str) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _name(path: str | Path) -> str:
    return Path(path).expanduser().absolute().name


def randomise(estimator: PoseEstimator) -> None:
    """Give an estimator's network random weights, always the same.

    They are larger than those that training starts from, which answer with nobody: chance shall have its say.
    """
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(RANDOM_SEED)
        for module in estimator.model.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
                module.reset_running_stats()
