"""Model cards: the Hub's own classes read the header, the text claims nothing that is not known."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from dekrpose.architectures.dekr.network import DEKR
from dekrpose.architectures.dekr.temporal import build_model
from dekrpose.checkpoints import read_checkpoint
from dekrpose.config import ARCHITECTURES, ModelConfig, TemporalConfig
from dekrpose.hub import models
from dekrpose.hub.model_cards import model_card
from tests.small_model import SMALL, write_small_model

COMMAND = "dekrpose eval mine val.json --images val.tar --flip"
FULL = replace(
    SMALL,
    name="mine",
    license="Apache-2.0",
    training_data="COCO train2017",
    datasets=("me/photos", "COCO train2017"),
    metrics={"PCK@0.2": 15.2, "AP": 5.6},
    evaluation=COMMAND,
    evaluation_data="val.json, 629 photos",
    published={"AP": 68.6},
    published_by="mmpose",
    notes="Poor at gymnasts.",
)


def parts(config: ModelConfig, **options: Any) -> tuple[dict[str, Any], str]:
    """The header as the Hub's library understands it, and the text."""
    card = ModelCard(model_card(config, **options))
    assert yaml.safe_load(card.data.to_yaml()) == card.data.to_dict()
    return card.data.to_dict(), card.text


def section(text: str, heading: str) -> str:
    return text.split(f"## {heading}\n")[1].split("\n## ")[0]


def test_the_header_says_what_the_hub_asks_for() -> None:
    header, _ = parts(FULL)
    assert (header["library_name"], header["pipeline_tag"]) == ("dekrpose", "keypoint-detection")
    assert header["license"] == "apache-2.0"
    assert "license_name" not in header
    assert header["datasets"] == ["me/photos"]  # the other one is no identifier on the Hub
    assert header["metrics"] == ["pck-0.2", "ap"]
    assert "pose-estimation" in header["tags"]


def test_measured_numbers_are_in_the_model_index() -> None:
    results = ModelCard(model_card(FULL)).data.eval_results
    assert results is not None
    assert [(result.metric_name, result.metric_value) for result in results] == [("PCK@0.2", 15.2), ("AP", 5.6)]
    assert {(result.task_type, result.dataset_name) for result in results} == {
        ("keypoint-detection", "val.json, 629 photos")
    }
    (index,) = parts(FULL)[0]["model-index"]
    assert index["name"] == "mine"


@pytest.mark.parametrize(
    ("license", "expected"),
    [
        ("MIT", ("mit", None)),
        ("own: terms", ("other", "own-terms")),
        ("Apache-2.0 (mmpose)", ("other", "apache-2.0-mmpose")),
        ("x" * 100, ("other", "x" * 64)),
        ("", (None, None)),
    ],
)
def test_licences_that_the_hub_does_not_know_get_a_name(license: str, expected: tuple[str | None, str | None]) -> None:
    header, text = parts(replace(SMALL, license=license))
    assert (header.get("license"), header.get("license_name")) == expected
    assert f"Licence of the weights: {license or 'not stated'}\n" in text


def test_a_card_of_nothing_known_claims_nothing() -> None:
    header, text = parts(SMALL)
    assert not {"license", "license_name", "datasets", "metrics", "model-index"} & set(header)
    assert "Training data: not stated" in text
    assert section(text, "Measured numbers").strip() == "Not measured."
    assert "Published" not in text
    assert "missed or mixed up" in section(text, "Limits")
    assert 'from_pretrained("path/to/this/folder")' in text


def test_numbers_come_with_their_command_and_data() -> None:
    measured = section(parts(FULL)[1], "Measured numbers")
    assert f"```bash\n{COMMAND}\n```" in measured
    assert "on val.json, 629 photos" in measured
    assert "| PCK@0.2 | 15.2 |" in measured
    assert "68.6" not in measured


def test_numbers_without_a_command_say_so() -> None:
    text = section(parts(replace(SMALL, metrics={"AP": 5.6, "recall, small": math.nan}))[1], "Measured numbers")
    assert "command that is not stated" in text
    assert "data that is not stated" in text
    assert "nan" not in text


def test_published_numbers_stay_apart() -> None:
    header, text = parts(replace(FULL, metrics={}))
    published = section(text, "Published numbers")
    assert "mmpose" in published
    assert "with other decoding; not measured with this library" in published
    assert "| AP | 68.6 |" in published
    assert section(text, "Measured numbers").strip() == "Not measured."
    assert "model-index" not in header


def test_the_network_is_described() -> None:
    network = section(parts(FULL, has_rescoring_net=True)[1], "The network")
    parameters = sum(value.numel() for value in DEKR(SMALL).parameters())
    for fact in ("HRNet-W8", f"{parameters:,}", "64 pixels", "17 (coco-17)", "left_wrist", "0.05", "scoring net"):
        assert fact in network
    assert "| scoring net | none |" in section(parts(FULL)[1], "The network")


def test_a_memory_counts_among_the_parameters() -> None:
    config = replace(FULL, temporal=TemporalConfig())
    with_memory = sum(value.numel() for value in build_model(config).parameters())
    assert with_memory > sum(value.numel() for value in DEKR(FULL).parameters())
    assert f"| {with_memory:,} |" in parts(config)[1]


def test_use_limits_and_citation() -> None:
    _, text = parts(FULL, repository="me/mine")
    assert 'from_pretrained("me/mine")' in text
    for purpose in ("identifying", "surveillance", "medical"):
        assert purpose in section(text, "Intended use")
    assert "Poor at gymnasts." in section(text, "Limits")
    assert "Disentangled Keypoint Regression" in section(text, "Citation")
    assert "2104.02300" in section(text, "Citation")


@pytest.mark.parametrize(
    ("config", "tags", "cited"),
    [
        (FULL, ["dekr", "hrnet-w8"], ("2104.02300", "High-Resolution Representation")),
        (ARCHITECTURES["tiny"], ["dekr", "mobilenetv2-1.5"], ("2104.02300",)),
        (ARCHITECTURES["directpose-r50"], ["directpose", "resnet-50"], ("1911.07451",)),
    ],
    ids=lambda value: value.name if isinstance(value, ModelConfig) else "",
)
def test_tags_and_citations_are_those_of_the_network(
    config: ModelConfig, tags: list[str], cited: tuple[str, ...]
) -> None:
    header, text = parts(config)
    assert header["tags"][-2:] == tags
    papers = ("2104.02300", "1911.07451", "High-Resolution Representation")
    assert tuple(paper for paper in papers if paper in section(text, "Citation")) == cited


def test_awkward_words_break_neither_header_nor_table() -> None:
    awkward = "a: \"b\" | #c\n---\n'd' - *e* ü"
    config = replace(FULL, name=awkward, license=awkward, training_data=awkward, evaluation_data=awkward)
    header, text = parts(replace(config, metrics={awkward: 1.0}))
    (index,) = header["model-index"]
    assert index["name"] == "a: \"b\" | #c --- 'd' - *e* ü"
    assert index["results"][0]["metrics"][0]["name"] == awkward
    assert text.startswith("\n# a: ")
    (row,) = [line for line in text.splitlines() if line.endswith("| 1 |")]
    assert row.replace(r"\|", "").count("|") == 3


def test_a_saved_folder_has_a_card(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(write_small_model(tmp_path / "small.safetensors", FULL))
    models.save_folder(tmp_path / "mine", FULL, checkpoint.state_dict)
    assert (tmp_path / "mine" / "README.md").read_text(encoding="utf-8") == model_card(FULL)
