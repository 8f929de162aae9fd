"""Training of the scoring net.

A calibrated net learns from a pose's shape and keypoint scores how likely the pose and its keypoints are right, by
cross entropy: what it says becomes the scores. An official one (the released code's rescoring) learns the pose's OKS,
by mean square error, which the score is then multiplied by.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dekrpose.architectures.parts.poses import OKSScoreNet
from dekrpose.errors import DekrPoseError, counted
from dekrpose.progress import Bar

Mode = Literal["paper", "official"]
Examples = tuple[torch.Tensor, torch.Tensor]
"""Features (N, F) and targets (N,) or (N, 1 + K)."""


@dataclass(frozen=True)
class ScoringConfig:
    """How a scoring net is trained; the first four defaults are the official code's.

    Args:
        epochs: times that every example is seen, at least; see ``minimum_steps``.
        batch_size: examples per step.
        learning_rate: Adam's, constant.
        mode: of official nets: "official" teaches 0 where the OKS is exactly 1, as the released code does; "paper"
            teaches 1.
        minimum_steps: there are as many more epochs as it takes. COCO's training photos make some 20,000 steps in 20
            epochs and never need it, but 20 epochs of some hundred photos would leave the net where it began.
        held_out: share of the photos that are not learnt from: the weights of the epoch with the least error on them
            are kept. 0 learns from all photos and keeps the last weights, as the released code does.
        seed: decides the first weights, the order and the photos held out.

    Raises:
        ValueError: a number is out of range.
    """

    epochs: int = 20
    batch_size: int = 1024
    learning_rate: float = 1e-3
    mode: Mode = "paper"
    minimum_steps: int = 1000
    held_out: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError(f"epochs and batch_size must be at least 1, got {self.epochs} and {self.batch_size}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}")
        if not 0 <= self.held_out < 1:
            raise ValueError(f"held_out must be a share from 0 to below 1, got {self.held_out}")
        if self.mode not in get_args(Mode):
            raise ValueError(f"mode must be one of {get_args(Mode)}, got {self.mode!r}")


@dataclass(frozen=True)
class Epoch:
    """Errors of one epoch: while learning, and afterwards of the photos held out, if there are any."""

    error: float
    held_out_error: float | None


def train_scoring_net(
    features: NDArray[np.float32],
    targets: NDArray[np.float32],
    photos: NDArray[np.int64],
    config: ScoringConfig | None = None,
    *,
    progress: bool = False,
) -> tuple[OKSScoreNet, list[Epoch]]:
    """Fit a scoring net to (N, F) features and targets; the same arguments give the same net.

    Targets (N,) are OKS and make an official net, targets (N, 1 + K) of 0, 1 and NaN for what is unknown a calibrated
    one: ``targets`` and ``fits`` of ``Examples``.
    ``photos`` (N,) says which photo each is from: photos are held out as a whole. A config of None is the official
    setting. The net is in evaluation mode; the errors are of all epochs.

    Raises:
        DekrPoseError: there is nothing to learn from or to hold out, or the training diverged.
        ValueError: the shapes do not fit each other.
    """
    config = config or ScoringConfig()
    count = len(features)
    if features.ndim != 2 or targets.ndim not in (1, 2) or len(targets) != count or photos.shape != (count,):
        shapes = f"{features.shape}, {targets.shape} and {photos.shape}"
        raise ValueError(f"features, targets and photos must be (N, F), (N,) or (N, 1 + K), and (N,), got {shapes}")
    aside = hold_out(photos, config.held_out, config.seed)
    if aside.all():
        few = counted(len(features), "pose")
        raise DekrPoseError(f"too few to learn from with photos held out: {few}; use more photos, or held_out=0")
    if config.mode == "official" and targets.ndim == 1:
        targets = np.where(targets == 1, np.float32(0), targets)
    tensors = torch.from_numpy(features), torch.from_numpy(np.float32(targets))
    learnt, held = ((tensors[0][rows], tensors[1][rows]) for rows in (~aside, aside))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        net = OKSScoreNet(features.shape[1], 0 if targets.ndim == 1 else targets.shape[1] - 1)
    optimizer = torch.optim.Adam(net.parameters(), config.learning_rate)
    order = torch.Generator().manual_seed(config.seed)
    steps = math.ceil(len(learnt[1]) / config.batch_size)
    epochs = max(config.epochs, math.ceil(config.minimum_steps / steps))
    history: list[Epoch] = []
    best, least = copy.deepcopy(net.state_dict()), math.inf
    for number in Bar(range(epochs), desc="scoring net", unit="epoch", show=progress):
        error = _epoch(net, optimizer, learnt, torch.randperm(len(learnt[1]), generator=order), config.batch_size)
        if not math.isfinite(error):
            raise DekrPoseError(
                f"the scoring net diverged in epoch {number + 1}; try a learning rate below {config.learning_rate:g}"
            )
        current = _error(net, held)
        history.append(Epoch(error, current))
        if current is None or current < least:
            best, least = copy.deepcopy(net.state_dict()), math.inf if current is None else current
    net.load_state_dict(best)
    return net.eval(), history


def hold_out(photos: NDArray[np.int64], share: float, seed: int) -> NDArray[np.bool_]:
    """Which of (N,) rows belong to photos that are set aside: at least one photo unless ``share`` is 0."""
    names = np.unique(photos)
    count = min(len(names), max(1, round(share * len(names)))) if share > 0 else 0
    chosen = np.random.default_rng(seed).permutation(names)[:count]
    return np.asarray(np.isin(photos, chosen), np.bool_)


def _epoch(
    net: nn.Module, optimizer: torch.optim.Optimizer, learnt: Examples, order: torch.Tensor, batch_size: int
) -> float:
    """Learn every example once; the error while learning."""
    total = torch.zeros(())
    for rows in torch.split(order, batch_size):
        loss = _loss(net(learnt[0][rows]), learnt[1][rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += loss.detach() * len(rows)
    return float(total) / len(learnt[1])


def _loss(said: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean square error of OKS; cross entropy of (N, 1 + K) logits, where keypoints together weigh as much as poses."""
    if targets.ndim == 1:
        return nn.functional.mse_loss(said, targets)
    known = ~targets.isnan()
    errors = nn.functional.binary_cross_entropy_with_logits(said, targets.nan_to_num(), reduction="none") * known
    return errors[:, 0].mean() + errors[:, 1:].sum() / known[:, 1:].sum().clamp(min=1)


@torch.inference_mode()
def _error(net: nn.Module, held: Examples) -> float | None:
    """The error of examples held out; None without any."""
    return float(_loss(net(held[0]), held[1])) if len(held[1]) else None
