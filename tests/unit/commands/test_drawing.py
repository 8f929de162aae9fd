"""The options of pictures that predict, video and webcam share."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dekrpose.cli import main
from dekrpose.commands.drawing import add_draw_arguments, draw_options
from tests.small_model import write_small_model


def parsed(*words: str, stream: bool = False) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_draw_arguments(parser, stream=stream)
    parser.add_argument("--track", action="store_true")
    return parser.parse_args(words)


def test_arguments_become_options_of_draw_poses() -> None:
    words = ["--color-by", "score", "--colors", "red, #00ff00", "--boxes", "--scores", "--names", "--blur-faces"]
    words += ["--thickness", "3", "--keypoint-threshold", "0.2"]
    assert draw_options(parsed(*words, "--background", "white")) == {
        "color_by": "score",
        "colors": [(255, 0, 0), (0, 255, 0)],
        "boxes": True,
        "labels": ("identity", "score"),
        "names": True,
        "blur_faces": True,
        "background": (255, 255, 255),
        "thickness": 3,
        "keypoint_threshold": 0.2,
    }
    given = {name for name, value in draw_options(parsed()).items() if value not in (None, False)}
    assert given == set()


def test_what_cannot_be_drawn_is_said_before_anything_runs() -> None:
    with pytest.raises(ValueError, match="a colour is a name"):
        draw_options(parsed("--background", "nowhere"))
    with pytest.raises(ValueError, match="thickness must be above 0"):
        draw_options(parsed("--thickness", "0"))
    with pytest.raises(ValueError, match="add --track"):
        draw_options(parsed("--color-by", "identity", stream=True))
    assert draw_options(parsed("--color-by", "identity", "--track", stream=True))["color_by"] == "identity"
    with pytest.raises(SystemExit):
        parsed("--color-by", "identity")
    with pytest.raises(ValueError, match="takes two, of left and right, got 1"):
        draw_options(parsed("--color-by", "side", "--colors", "red"))
    sides = draw_options(parsed("--color-by", "side", "--colors", "red,#00ff00"))["colors"]
    assert sides == {"left": (255, 0, 0), "right": (0, 255, 0)}
    with pytest.raises(ValueError, match="a colour is a name"):
        draw_options(parsed("--colors", ""))


def test_predict_draws_as_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = str(write_small_model(tmp_path / "small.safetensors"))
    Image.fromarray(np.full((96, 96, 3), 128, np.uint8)).save("a.png")
    assert main(["predict", "a.png", "--model", model, "--background", "white", "--json"]) == 0
    picture = np.asarray(Image.open("a.poses.png"))
    assert (picture == 255).all(axis=2).mean() > 0.1
    assert not (picture == 128).all(axis=2).any()
    assert main(["predict", "a.png", "--model", model, "--colors", "nowhere"]) == 1


def test_a_film_of_blurred_faces_looks_at_every_frame(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["video", str(tmp_path), "--blur-faces", "--stride", "2"]
    assert main(words) == 1
    assert "--blur-faces misses faces" in capsys.readouterr().err
