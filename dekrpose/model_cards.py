"""The model card: README.md of every saved model."""

from __future__ import annotations

import json

from dekrpose.config import ModelConfig

_LICENSES = {"mit", "apache-2.0", "bsd-3-clause", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc0-1.0"}


def model_card(config: ModelConfig, has_rescoring_net: bool = False, repository: str | None = None) -> str:
    """A short Markdown model card with the metadata that Hugging Face reads."""
    license_id = config.license.lower()
    lines = ["---", "library_name: dekrpose", "pipeline_tag: keypoint-detection"]
    if license_id in _LICENSES:
        lines.append(f"license: {license_id}")
    elif config.license:
        lines += ["license: other", f"license_name: {json.dumps(config.license)}"]
    lines += ["tags:", "- pose-estimation", "- dekr", "---", "", f"# {config.name}", ""]
    lines += [
        f"A DEKR network that finds the {len(config.skeleton)} keypoints ({config.skeleton.name}) of everyone in a "
        f"photo in one pass. HRNet width {config.backbone.width}, short side {config.input_size} pixels"
        f"{', with a scoring net' if has_rescoring_net else ''}.",
        "", "```python", "from dekrpose import PoseEstimator", "",
        'estimator = PoseEstimator.from_pretrained("path/to/this/folder")',
        'poses = estimator.estimate("photo.jpg")', 'poses.save("poses.jpg")', "```", "",
        f"* Licence: {config.license or 'not stated'}",
        f"* Training data: {config.training_data or 'not stated'}", "",
    ]  # fmt: skip
    if config.metrics:
        lines += ["| metric | value |", "| --- | --- |"]
        lines += [f"| {name} | {value:g} |" for name, value in config.metrics.items()] + [""]
    if config.notes:
        lines += [config.notes, ""]
    return "\n".join(lines)
