"""Configurations travel as JSON and come back equal; older ones stay readable."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from dekrpose.config import ARCHITECTURES, HeadConfig, MobileNetConfig, ModelConfig, TemporalConfig

MEASURED = ModelConfig(
    name="mine",
    license="MIT",
    training_data="my photos",
    metrics={"AP": 12.5},
    evaluation="dekrpose eval mine val.json",
    evaluation_data="val.json",
    datasets=("me/photos", "COCO train2017"),
    published={"AP": 68.6},
    published_by="somebody",
)
VIDEO = replace(MEASURED, name="video", temporal=TemporalConfig(chunk=5))


@pytest.mark.parametrize("config", [MEASURED, VIDEO, *ARCHITECTURES.values()], ids=lambda config: config.name)
def test_a_configuration_survives_json(config: ModelConfig) -> None:
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_what_older_versions_wrote_loads() -> None:
    values = MEASURED.to_dict()
    for name in ("evaluation", "evaluation_data", "datasets", "published", "published_by", "temporal"):
        del values[name]
    older = ModelConfig.from_dict(values)
    assert older.metrics == {"AP": 12.5}
    assert (older.evaluation, older.evaluation_data, older.datasets, older.published) == ("", "", (), {})
    assert older.temporal is None


def test_a_network_of_movenets_kind_survives_json() -> None:
    head = HeadConfig(heatmaps="separable", shared_offsets=96)
    config = replace(
        MEASURED, backbone=MobileNetConfig(width=1.0), head=head, mean=(0.5, 0.4, 0.3), std=(0.1, 0.2, 0.3)
    )
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(ValueError, match="mean must be a list of 3 numbers"):
        ModelConfig.from_dict({"mean": [0.5]})
    with pytest.raises(ValueError, match="heatmaps must be one of"):
        ModelConfig.from_dict({"head": {"heatmaps": "seperable"}})


def test_unknown_matching_is_refused() -> None:
    assert ModelConfig.from_dict({"decode": {"match_heatmap": "paper"}}).decode.match_heatmap == "paper"
    with pytest.raises(ValueError, match=r"match_heatmap must be one of .*, got 'papre'"):
        ModelConfig.from_dict({"decode": {"match_heatmap": "papre"}})


def test_a_single_name_is_no_list_of_datasets() -> None:
    with pytest.raises(ValueError, match="list of texts, got 'coco'"):
        ModelConfig.from_dict({"datasets": "coco"})


def test_unknown_keys_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown TemporalConfig key units"):
        ModelConfig.from_dict({"temporal": {"units": 3}})
    with pytest.raises(ValueError, match="unknown ModelConfig key colour"):
        ModelConfig.from_dict({"colour": "blue"})


WRONG = {
    "input_size": [0, -1, 4097, 10**400, "192", 192.5, True, None, [192]],
    "name": [1, None, ["x"]],
    "metrics": [[], {"AP": "1"}, {"AP": 10**400}],
    "mean": [5, ["1", 2, 3], [float("inf"), 0, 0]],
    "std": [[0, 1, 1], [-1, 1, 1]],
    "datasets": [[1], 3],
    "license": [3],
    "backbone": [
        [], "x", {"width": -1}, {"width": 10**6}, {"blocks": 10**5}, {"modules": [1, 2]}, {"modules": 5},
        {"modules": [1, 2, 10**5]}, {"family": []}, {"family": "mobilenet-v2", "width": float("nan")},
        {"family": "mobilenet-v2", "channels": -1}, {"layer1_blocks": 1.0}, {"width": "32"},
    ],
    "head": [{"blocks": 0}, {"heatmap_channels": "8"}, {"adaptive": 1}, {"branches": ["shared"]}, 7],
    "decode": [{"score_threshold": "x"}, {"nms_min_keypoints": 0.5}, {"match_heatmap": []}],
    "temporal": [{"kind": {}}, {"hidden": 0}, {"chunk": 10**9}, []],
    "skeleton": [
        {}, [], None, {**MEASURED.to_dict()["skeleton"], "keypoints": "abc"},
        {**MEASURED.to_dict()["skeleton"], "edges": [[0, 0.5]]}, {**MEASURED.to_dict()["skeleton"], "edges": 3},
        {**MEASURED.to_dict()["skeleton"], "sigmas": [float("nan")] * 17},
        {**MEASURED.to_dict()["skeleton"], "sigmas": ["1"] * 17}, {**MEASURED.to_dict()["skeleton"], "name": []},
        {**MEASURED.to_dict()["skeleton"], "keypoints": [str(i) for i in range(2000)], "sigmas": [0.1] * 2000},
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in WRONG.items() for value in values], ids=repr
)
def test_values_of_other_types_or_out_of_range_are_refused(key: str, value: object) -> None:
    with pytest.raises(ValueError) as caught:
        ModelConfig.from_json(json.dumps({key: value}))
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[]", "3", "", "nonsense", " " * 5_000_000])
def test_json_that_is_no_configuration_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        ModelConfig.from_json(text)


def test_weights_that_change_keep_no_numbers() -> None:
    bare = MEASURED.without_numbers()
    assert (bare.metrics, bare.published, bare.evaluation) == ({}, {}, "")
    assert replace(MEASURED, metrics={}, published={}, published_by="", evaluation="", evaluation_data="") == bare
