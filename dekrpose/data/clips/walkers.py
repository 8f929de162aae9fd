"""Articulated people who walk to and fro on a stage, seen by a camera: motion whose truth is known exactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dekrpose.data.clips.bodies import JOINTS, PROPORTIONS, posed

Array = NDArray[np.float64]

NEAREST, FARTHEST = 5.0, 9.0
"""Where the stage begins and ends, metres from the camera."""

_FOCAL = 1000.0  # pixels, for an image 1280 pixels wide
_CAMERA_HEIGHT = 1.5
_HALF_WIDTH = 0.5  # of the stage, in shares of the distance: the image shows 0.64


@dataclass(frozen=True)
class Walk:
    """P people over F frames on the stage's floor.

    Args:
        places: (F, P, 2) metres to the camera's right and away from it.
        headings: (F, P) radians, the direction of walking; 0 is to the right.
        steps: (F, P) radians of the gait's cycle.
        effort: (F, P) from 0, standing, to 1, walking.
    """

    places: Array
    headings: Array
    steps: Array
    effort: Array


def walk(random: np.random.Generator, people: int, frames: int, rate: float, stops: float) -> Walk:
    """People who walk from side to side at their own pace, each time at another depth, and turn round there.

    Now and then somebody stands for a while before turning, and ``stops`` times a second, on average, on the way.
    """
    sides = np.where(np.arange(people) % 2 == 0, 1.0, -1.0)
    depths = random.uniform(NEAREST, FARTHEST, people)
    place = np.stack([random.uniform(-1, 1, people) * _HALF_WIDTH * depths, depths], axis=1)
    pace = random.uniform(0.8, 1.4, people)
    goal = _goals(random, sides)
    velocity = np.zeros((people, 2))
    pause, cycle = np.zeros(people), random.uniform(0, 2 * np.pi, people)
    heading = np.where(sides > 0, 0.0, np.pi)
    history: list[tuple[Array, Array, Array, Array]] = []
    for _ in range(frames):
        towards = goal - place
        distance = np.linalg.norm(towards, axis=1)
        arrived = distance < 0.4
        sides = np.where(arrived, -sides, sides)
        goal = np.where(arrived[:, None], _goals(random, sides), goal)
        pause = np.maximum(pause - 1 / rate, 0)
        pause = np.where(arrived & (random.random(people) < 0.4), random.uniform(0.3, 1.5, people), pause)
        pause = np.where(random.random(people) < stops / rate, random.uniform(0.3, 0.8, people), pause)
        wanted = towards / np.maximum(distance, 1e-6)[:, None] * (pace * (pause == 0))[:, None]
        velocity = velocity + (wanted - velocity) * min(1.0, 4 / rate)
        place = place + velocity / rate
        speed = np.linalg.norm(velocity, axis=1)
        turn = np.angle(np.exp(1j * (np.arctan2(velocity[:, 1], velocity[:, 0]) - heading)))
        heading = heading + np.where(speed > 0.2, turn * min(1.0, 6 / rate), 0)
        cycle = cycle + speed / rate * 2 * np.pi / 1.4
        history.append((place, heading, cycle, np.minimum(speed / 1.0, 1.0)))
    places, headings, steps, effort = (np.stack(values) for values in zip(*history, strict=True))
    return Walk(places, headings, steps, effort)


def _goals(random: np.random.Generator, sides: Array) -> Array:
    depths = random.uniform(NEAREST, FARTHEST, len(sides))
    return np.stack([sides * random.uniform(0.7, 1.0, len(sides)) * _HALF_WIDTH * depths, depths], axis=1)


def film(random: np.random.Generator, walked: Walk, image_size: tuple[int, int], rate: float, sway: float) -> Array:
    """(F, P, 17, 2) COCO keypoints in image pixels; the camera sways by about ``sway`` pixels."""
    frames, people = walked.headings.shape
    heights = random.uniform(1.5, 1.95, (people, 1))[:, 0]
    limbs = PROPORTIONS * random.normal(1, 0.04, (people, len(PROPORTIONS)))
    body = heights[None, :, None, None] * _body(walked, limbs)
    right = np.cos(walked.headings)[..., None] * body[..., 0] - np.sin(walked.headings)[..., None] * body[..., 1]
    away = np.sin(walked.headings)[..., None] * body[..., 0] + np.cos(walked.headings)[..., None] * body[..., 1]
    right, away = right + walked.places[..., :1], away + walked.places[..., 1:]
    height, width = image_size
    focal = _FOCAL * width / 1280
    pixels = np.stack(
        [width / 2 + focal * right / away, 0.45 * height + focal * (_CAMERA_HEIGHT - body[..., 2]) / away], 3
    )
    time = np.arange(frames)[:, None] / rate
    waves = np.sin(2 * np.pi * random.uniform(0.1, 0.6, 2) * time + random.uniform(0, 2 * np.pi, 2))
    return np.asarray(pixels + sway * waves[:, None, None])


def _body(walked: Walk, limbs: Array) -> Array:
    """(F, P, 17, 3) forward, to the left, up, in shares of the body's height, from the floor below the hips."""
    effort, phase = walked.effort[..., None], walked.steps[..., None] + np.array([0, np.pi])
    angles = np.zeros((*phase.shape, len(JOINTS)))
    for joint, angle in (
        ("leg", effort * (0.45 * np.sin(phase) + 0.05)),
        ("knee", effort * (0.15 + 0.85 * np.maximum(np.cos(phase), 0) ** 2)),
        ("arm", -effort * 0.45 * np.sin(phase)),
        ("elbow", 0.25 + 0.35 * effort),
        ("arm_out", 0.07),
    ):
        angles[..., JOINTS.index(joint)] = angle
    people = zip(angles.swapaxes(0, 1), limbs, 0.13 * walked.effort.T, strict=True)
    keypoints = np.stack([posed(turned, own, lean, 0 * lean) for turned, own, lean in people], axis=1)
    keypoints[..., 2] += 0.04 - keypoints[..., 15:, 2].min(axis=-1, keepdims=True)  # the lower foot is on the floor
    return np.asarray(keypoints, np.float64)
