"""Articulated bodies: how people's joints turn while they walk, wave, run or clap, and where that puts keypoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from dekrpose.data.clips.clip import Floats, Split, wander


@dataclass(frozen=True)
class Swing:
    """How one joint turns: ``bias + amplitude * sin(pace * cycle + phase)``, radians.

    Args:
        bias, amplitude, phase: radians.
        pace: turns per cycle of the motion.
        other: the other side's phase is this much later.
        alone: the other side stays at rest.
    """

    bias: float
    amplitude: float
    phase: float = 0.0
    pace: float = 1.0
    other: float = np.pi
    alone: bool = False


JOINTS = ("arm", "arm_out", "elbow", "elbow_out", "leg", "leg_out", "knee")
"""Upper arm forward and sideways, the forearm beyond it, thigh forward and sideways, the shank backward."""
_REST = np.array([0.05, 0.12, 0.2, 0.0, 0.0, 0.06, 0.05])

Motion = Mapping[str, Swing]
MOTIONS: Mapping[Split, Mapping[str, Motion]] = {
    "train": {
        "walking": {
            "leg": Swing(0.05, 0.45), "knee": Swing(0.4, 0.38, phase=1.9),
            "arm": Swing(0.0, 0.4, phase=np.pi), "elbow": Swing(0.4, 0.2, phase=np.pi),
        },
        "waving": {
            "arm_out": Swing(2.2, 0.25, alone=True), "elbow_out": Swing(0.5, 0.6, pace=2.0, alone=True),
            "leg_out": Swing(0.12, 0.04),
        },
        "squatting": {
            "leg": Swing(0.55, 0.5, other=0.0), "knee": Swing(1.05, 0.95, other=0.0),
            "arm": Swing(0.7, 0.6, other=0.0), "leg_out": Swing(0.2, 0.08, other=0.0),
        },
        "reaching": {
            "arm": Swing(1.2, 0.8, other=2.0), "arm_out": Swing(0.4, 0.4, other=1.0), "elbow": Swing(0.6, 0.5),
            "leg": Swing(0.1, 0.15), "knee": Swing(0.2, 0.15),
        },
    },
    "test": {
        "running": {
            "leg": Swing(0.3, 0.75), "knee": Swing(0.95, 0.8, phase=1.9),
            "arm": Swing(-0.1, 0.7, phase=np.pi), "elbow": Swing(1.5, 0.2, phase=np.pi),
        },
        "jumping jacks": {
            "arm_out": Swing(1.5, 1.25, other=0.0), "leg_out": Swing(0.3, 0.25, other=0.0),
            "elbow_out": Swing(0.1, 0.1, other=0.0),
        },
        "clapping": {
            "arm": Swing(1.1, 0.15, other=0.0), "arm_out": Swing(0.5, 0.45, other=0.0),
            "elbow": Swing(0.5, 0.2, other=0.0), "elbow_out": Swing(-0.5, 0.4, other=0.0),
        },
        "kicking": {
            "leg": Swing(0.5, 0.7, alone=True), "knee": Swing(0.7, 0.6, phase=2.2, alone=True),
            "arm_out": Swing(0.7, 0.35), "elbow": Swing(0.7, 0.3),
        },
    },
}  # fmt: skip
"""What people do; nobody in a test clip does what somebody in a training clip does."""
CYCLES: Mapping[Split, tuple[float, float]] = {"train": (0.6, 1.1), "test": (0.75, 1.3)}
"""Slowest and fastest cycles per second."""

PROPORTIONS = np.array([0.165, 0.155, 0.235, 0.235, 0.105, 0.06, 0.29, 0.13])
"""Shares of the body's height: upper arm, forearm, thigh, shank, half the shoulders' and hips' width, torso, neck."""
# Nose, eyes, ears around the middle of the head: forward, to the left, up.
_FACE = np.array([(0.06, 0, -0.01), (0.05, 0.022, 0.015), (0.05, -0.022, 0.015), (0, 0.05, 0.005), (0, -0.05, 0.005)])


def body(rng: np.random.Generator, times: Floats, motion: Motion, cycles: tuple[float, float]) -> Floats:
    """(T, 17, 3) one person's keypoints in shares of its height: to the image's right, down, towards the camera.

    The middle of the hips stays near the origin. ``rng`` decides build, direction and how the motion is done;
    ``cycles`` are the slowest and fastest paces, cycles a second.
    """
    limbs = PROPORTIONS * rng.uniform(0.92, 1.08, len(PROPORTIONS))
    cycle = 2 * np.pi * (rng.uniform(*cycles) * times + rng.random())
    angles = _angles(rng, times, cycle, motion)
    heading = rng.uniform(-np.pi, np.pi) + wander(rng, times, 1, 0.5)[:, 0]
    lean = rng.uniform(-0.05, 0.2) + wander(rng, times, 1, 0.1)[:, 0]
    gaze = wander(rng, times, 1, 0.4)[:, 0] + rng.uniform(-0.4, 0.4)
    points = posed(angles, limbs, lean, gaze)
    points[..., 2] += 0.02 * np.sin(2 * cycle)[:, None]
    forward, left, up = np.moveaxis(points, -1, 0)
    cosine, sine = np.cos(heading)[:, None], np.sin(heading)[:, None]
    towards = forward * cosine - left * sine
    perspective = 1 + 0.2 * towards
    return np.stack([(left * cosine + forward * sine) * perspective, -up * perspective, towards], axis=-1)


def _angles(rng: np.random.Generator, times: Floats, cycle: Floats, motion: Motion) -> Floats:
    """(T, 2 sides, joints), left first."""
    angles: Floats = np.broadcast_to(_REST, (len(times), 2, len(JOINTS))) + 0.15 * wander(
        rng, times, 2 * len(JOINTS), 1
    ).reshape(len(times), 2, len(JOINTS))
    lead = int(rng.integers(2))
    for name, swing in motion.items():
        strength = rng.uniform(0.75, 1.15)
        for side in (0, 1):
            later = swing.other if side != lead else 0.0
            if not (swing.alone and side != lead):
                wave = swing.bias + strength * swing.amplitude * np.sin(swing.pace * cycle + swing.phase + later)
                angles[:, side, JOINTS.index(name)] += wave
    return angles


def posed(angles: Floats, limbs: Floats, lean: Floats, gaze: Floats) -> Floats:
    """(T, 17, 3) where joints put keypoints: forward, to the left, up, from the middle of the hips, in body heights.

    Angles (T, 2 sides, joints), left first, are radians, see ``JOINTS``; limbs (8,) as ``PROPORTIONS``; lean and gaze
    (T,) radians of the torso forward, of the face to the left.
    """
    upper, fore, thigh, shank, shoulder, hip, torso, neck = limbs
    points = np.zeros((len(angles), 17, 3))
    spine = np.stack([np.sin(lean), 0 * lean, np.cos(lean)], -1)
    turned = np.stack([np.cos(gaze), np.sin(gaze), -np.sin(gaze), np.cos(gaze)], -1).reshape(-1, 2, 2)
    face = np.concatenate([np.einsum("kj,tji->tki", _FACE[:, :2], turned), np.zeros((len(angles), 5, 1))], -1)
    face[..., 2] = _FACE[:, 2]
    points[:, :5] = ((torso + neck) * spine)[:, None] + face
    for side, sign in enumerate((1.0, -1.0)):
        arm, arm_out, elbow, elbow_out, leg, leg_out, knee = np.moveaxis(angles[:, side], -1, 0)
        sideways = np.array([0, sign, 0])
        points[:, 5 + side] = torso * spine + shoulder * sideways
        points[:, 7 + side] = points[:, 5 + side] + upper * _direction(arm, arm_out, sign)
        points[:, 9 + side] = points[:, 7 + side] + fore * _direction(arm + elbow, arm_out + elbow_out, sign)
        points[:, 11 + side] = hip * sideways
        points[:, 13 + side] = points[:, 11 + side] + thigh * _direction(leg, leg_out, sign)
        points[:, 15 + side] = points[:, 13 + side] + shank * _direction(leg - knee, leg_out, sign)
    return points


def _direction(forward: Floats, outward: Floats, sign: float) -> Floats:
    """(T, 3) where a limb points that hangs down at angles of 0."""
    return np.array([np.sin(forward), sign * np.sin(outward) * np.cos(forward), -np.cos(outward) * np.cos(forward)]).T
