"""The model card: README.md of every saved model, with the header that the Hugging Face Hub reads."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping

import torch

from dekrpose.architectures.contract import architecture_of, build
from dekrpose.config import ModelConfig
from dekrpose.errors import counted
from dekrpose.options import default_threshold

_LICENSES = {
    "afl-3.0", "agpl-3.0", "apache-2.0", "artistic-2.0", "bsd-2-clause", "bsd-3-clause", "bsl-1.0", "cc0-1.0",
    "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-nd-4.0",
    "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cdla-permissive-2.0", "eupl-1.2", "gpl-2.0", "gpl-3.0",
    "isc", "lgpl-2.1", "lgpl-3.0", "mit", "mpl-2.0", "odbl", "openrail", "unlicense", "wtfpl", "zlib",
}  # fmt: skip
"""Licences that the Hub knows by these names; any other one is "other" with a name."""
_REPOSITORY_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_FOLDER = "path/to/this/folder"

_INTENDED_USE = """\
It is meant for research, teaching and applications that need to know where body keypoints are in photos or videos: for
example the analysis of movement in sports, animation, interaction, or the counting of people in a scene.

It is not meant for identifying or tracking down persons, for surveillance, or for medical, legal or safety decisions:
it was not tested for any of these, and it makes mistakes. It says nothing about who somebody is or what somebody
intends."""

_LIMITS = """\
In general, expect people to be missed or mixed up with others where they are small in the photo, hidden by things or by
each other, crowded, upside down, or in poses that are rare in the training data. Left and right can be exchanged.
Keypoints that are hidden or outside the photo are guesses. Whether accuracy differs between groups of people was not
measured."""


def model_card(config: ModelConfig, has_rescoring_net: bool = False, repository: str | None = None) -> str:
    """The README.md of a saved model; what is not known is said to be not stated or not measured.

    ``repository`` is "organisation/repository" on the Hub, for the lines that show how to use it, when it is known.
    """
    name = _line(config.name) or "model"
    scoring = ", with a scoring net that judges each pose" if has_rescoring_net else ""
    sections = {
        f"# {name}": f"A {architecture_of(config).title} network that finds the "
        f"{counted(len(config.skeleton), 'keypoint')} of everyone in a photo in one bottom-up pass, without a person "
        f"detector{scoring}. It is used with the Python library dekrpose (`pip install dekrpose`).\n\n"
        "```python\nfrom dekrpose import PoseEstimator\n\n"
        f"estimator = PoseEstimator.from_pretrained({json.dumps(repository or _FOLDER)})\n"
        'poses = estimator.estimate("photo.jpg")\nposes.save("poses.jpg")\n```',
        "## Intended use": _INTENDED_USE,
        "## The network": _network(config, has_rescoring_net),
        "## Licence and training data": _origin(config),
        "## Measured numbers": _measured(config),
        "## Published numbers": _published(config),
        "## Limits": "\n\n".join(filter(None, (config.notes.strip(), _LIMITS))),
        "## Citation": "\n\n".join(filter(None, (architecture_of(config).CITATION, config.backbone.citation))),
    }
    body = "\n\n".join(f"{heading}\n\n{text}" for heading, text in sections.items() if text)
    return f"---\n{_header(config, name)}\n---\n\n{body}\n"


def _header(config: ModelConfig, name: str) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    license_id = config.license.strip().lower()
    known = license_id in _LICENSES
    measured = _finite(config.metrics)
    results = [
        EvalResult(
            task_type="keypoint-detection",
            task_name="Human keypoint detection",
            dataset_type="other",
            dataset_name=_line(config.evaluation_data) or "not stated",
            metric_type=_slug(metric),
            metric_name=metric,
            metric_value=value,
        )
        for metric, value in measured.items()
    ]
    data = ModelCardData(
        library_name="dekrpose",
        pipeline_tag="keypoint-detection",
        license=license_id if known else "other" if license_id else None,
        license_name=_slug(config.license) if license_id and not known else None,
        datasets=[item for item in config.datasets if _REPOSITORY_ID.fullmatch(item)] or None,
        metrics=[_slug(metric) for metric in measured] or None,
        tags=["pose-estimation", "human-pose", "bottom-up", config.architecture, _slug(config.backbone.title)],
        model_name=name if results else None,
        eval_results=results or None,
    )
    return data.to_yaml()


def _network(config: ModelConfig, has_rescoring_net: bool) -> str:
    with torch.device("meta"):
        parameters = sum(value.numel() for value in build(config).parameters())
    decode, skeleton = config.decode, config.skeleton
    return _table(
        ("", ""),
        {
            "architecture": f"{architecture_of(config).title} on {config.backbone.title}",
            "parameters": f"{parameters:,}",
            "input": f"short side of {config.input_size} pixels",
            "keypoints": f"{len(skeleton)} ({skeleton.name}): {', '.join(skeleton.keypoints)}",
            "score threshold": f"{default_threshold(decode, has_rescoring_net):g}",
            "NMS threshold": f"{decode.nms_threshold:g} at one scale, {decode.multi_scale_nms_threshold:g} at several",
            "keypoint positions": "as regressed"
            if decode.match_heatmap is None
            else f"moved to heatmap peaks ({decode.match_heatmap})",
            "scoring net": "inside the weights file" if has_rescoring_net else "none",
        },
    )


def _origin(config: ModelConfig) -> str:
    lines = [
        f"* Licence of the weights: {_line(config.license) or 'not stated'}",
        f"* Training data: {_line(config.training_data) or 'not stated'}",
    ]
    if config.datasets:
        lines.append(f"* Datasets: {', '.join(map(_line, config.datasets))}")
    return "\n".join(lines)


def _measured(config: ModelConfig) -> str:
    numbers = _finite(config.metrics)
    if not numbers:
        return "Not measured."
    command = _line(config.evaluation)
    made = f"by this command:\n\n```bash\n{command}\n```" if command else "by a command that is not stated."
    return f"Measured with this library on {measured_on(config)}, {made}\n\n{_numbers(numbers)}"


def measured_on(config: ModelConfig) -> str:
    """The data that a model's numbers are of, in one line."""
    return _line(config.evaluation_data) or "data that is not stated"


def _published(config: ModelConfig) -> str:
    numbers = _finite(config.published)
    if not numbers:
        return ""
    by = _line(config.published_by) or "not stated by whom"
    return f"Published ({by}), with other decoding; not measured with this library.\n\n{_numbers(numbers)}"


def _numbers(values: Mapping[str, float]) -> str:
    return _table(("metric", "value"), {name: f"{value:g}" for name, value in values.items()})


def _table(titles: tuple[str, str], rows: Mapping[str, str]) -> str:
    lines = [" | ".join(titles), "--- | ---", *(f"{_cell(key)} | {_cell(value)}" for key, value in rows.items())]
    return "\n".join(f"| {line} |" for line in lines)


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if math.isfinite(value)}


def _cell(text: str) -> str:
    return _line(text).replace("|", r"\|")


def _line(text: str) -> str:
    return " ".join(text.split())


def _slug(text: str) -> str:
    """A name as the Hub's header wants it: lower-case letters, digits, dots and hyphens, at most 64."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower())[:64].strip("-.") or "unnamed"
