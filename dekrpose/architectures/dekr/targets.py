"""Training targets: what the heatmap head and the offset head should say about one photo.

All functions take the people of one crop in heatmap pixels (input pixels / 4) unless they say otherwise. A
keypoint is (x, y, visibility); visibility above 0 means labelled. ``mode="paper"`` follows the DEKR paper,
``mode="official"`` the released training code with its quirks, which the published weights were made with.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

TargetMode = Literal["paper", "official"]

SMALL_AREA = 32.0**2
"""COCO's border between small and medium people, image pixels squared."""
COCO_KEYPOINTS = 17


def _check_people(keypoints: Tensor, centers: Tensor | None = None) -> None:
    if keypoints.ndim != 3 or keypoints.shape[-1] != 3 or not keypoints.is_floating_point():
        raise ValueError(
            f"keypoints must be a floating (P, K, 3) tensor, got {tuple(keypoints.shape)} {keypoints.dtype}"
        )
    if centers is not None and centers.shape != (len(keypoints), 3):
        raise ValueError(f"centers must be ({len(keypoints)}, 3), one per person, got {tuple(centers.shape)}")


def _check_mode(mode: str) -> None:
    if mode not in get_args(TargetMode):
        raise ValueError(f"mode must be one of {get_args(TargetMode)}, got {mode!r}")


def inside(points: Tensor, size: tuple[int, int]) -> Tensor:
    """Which labelled points (..., 3) lie in a map of size (h, w): a boolean of shape (...)."""
    x, y, visibility = points.unbind(-1)
    height, width = size
    return (visibility > 0) & (x >= 0) & (y >= 0) & (x < width) & (y < height)


def person_centers(keypoints: Tensor, *, mode: TargetMode = "paper") -> Tensor:
    """The center of each person: the mean of its labelled keypoints.

    A person without labelled keypoints has no center (visibility 0). In the official code it gets one at
    (0, 0) of the frame that the keypoints are in, which was the image.

    Args:
        keypoints: (P, K, 3) x, y, visibility in any frame; P may be 0.
        mode: "paper" or "official".

    Returns:
        (P, 3) x, y and visibility 1 or 0, same frame.

    Raises:
        ValueError: the shape or the mode is wrong.
    """
    _check_people(keypoints)
    _check_mode(mode)
    labelled = keypoints[..., 2:] > 0
    count = labelled.sum(1)
    xy = (keypoints[..., :2] * labelled).sum(1) / count.clamp(min=1)
    visible = torch.ones_like(xy[:, :1]) if mode == "official" else (count > 0).to(xy.dtype)
    return torch.cat([xy, visible], dim=1)


def drop_small_centers(centers: Tensor, object_areas: Tensor, *, minimum_area: float = SMALL_AREA) -> Tensor:
    """The centers without those of small people: the official rule for COCO, not for CrowdPose.

    Args:
        centers: (P, 3) x, y, visibility.
        object_areas: (P,) segmentation areas as annotated, image pixels squared.
        minimum_area: people below it lose their center; their keypoints keep their heat.

    Returns:
        (P, 3) with visibility 0 for small people.
    """
    keep = (object_areas >= minimum_area).to(centers.dtype)
    return torch.cat([centers[:, :2], centers[:, 2:] * keep[:, None]], dim=1)


def official_areas(keypoints: Tensor) -> Tensor:
    """The "area" by which the official code orders and weighs people: a squared diagonal, with a quirk.

    It was taken while the center row was still zero and without a look at visibility, so the box always
    contains the point (0, 0): for a person in the photo it is x_max^2 + y_max^2. Multiply by the area
    multiplier of ``training_affine`` for the input size to get the value that ``offset_targets`` wants.

    Args:
        keypoints: (P, K, 3) x, y, visibility, image pixels.

    Returns:
        (P,) image pixels squared.
    """
    _check_people(keypoints)
    xy = torch.cat([keypoints[..., :2], torch.zeros_like(keypoints[:, :1, :2])], dim=1)
    return (xy.amax(1) - xy.amin(1)).square().sum(-1)


def official_center_sigma(keypoint_count: int, *, sigma: float = 2.0, center_sigma: float = 4.0) -> float:
    """The sigma that the official code draws centers with, heatmap pixels.

    It tests the channel index against COCO's 17, so skeletons with fewer keypoints (CrowdPose) get the
    keypoints' sigma for their centers too.
    """
    return center_sigma if keypoint_count >= COCO_KEYPOINTS else sigma


def windowed_gaussians(positions: Tensor, drawn: Tensor, sigmas: Tensor, length: int) -> Tensor:
    """One-dimensional Gaussians (..., C, length), 0 outside the official window and where not drawn.

    Args:
        positions: (..., C) coordinates along one axis, heatmap pixels.
        drawn: (..., C) boolean.
        sigmas: (C,) heatmap pixels.
        length: pixels along the axis.
    """
    pixels = torch.arange(length, device=positions.device, dtype=positions.dtype)
    start = torch.floor(positions - 3 * sigmas - 1)
    end = torch.ceil(positions + 3 * sigmas + 2)
    values = torch.exp(-(pixels - positions[..., None]).square() / (2 * sigmas.square())[:, None])
    window = (pixels >= start[..., None]) & (pixels < end[..., None]) & drawn[..., None]
    return torch.where(window, values, torch.zeros_like(values))


def heatmap_targets(
    keypoints: Tensor,
    centers: Tensor,
    size: tuple[int, int],
    *,
    sigma: float = 2.0,
    center_sigma: float = 4.0,
    background_weight: float = 0.1,
    ignored: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw a Gaussian per labelled keypoint and center, and say how much each pixel matters.

    Gaussians are centered on the sub-pixel position and cut to the window [floor(x - 3 sigma - 1),
    ceil(x + 3 sigma + 2)); where two meet the larger value stays. Points outside the map draw nothing.
    Numbers are computed in the type of ``keypoints``.

    Args:
        keypoints: (P, K, 3) x, y, visibility, heatmap pixels; P may be 0.
        centers: (P, 3) x, y, visibility, heatmap pixels, from ``person_centers``.
        size: (height, width) of the map.
        sigma: of the keypoints, heatmap pixels, at least 0.5.
        center_sigma: of the centers, heatmap pixels, at least 0.5 (``official_center_sigma`` for the quirk).
        background_weight: weight outside the windows of a channel's own keypoints.
        ignored: (height, width) boolean, True where unlabelled people are; weight 0 in all channels.

    Returns:
        Heatmaps and weights, both (K + 1, height, width) float32; the center is the last channel.

    Raises:
        ValueError: shapes do not fit or a sigma is below 0.5.
    """
    _check_people(keypoints, centers)
    if min(sigma, center_sigma) < 0.5:
        raise ValueError(f"sigmas must be at least 0.5 heatmap pixels, got {sigma} and {center_sigma}")
    if ignored is not None and tuple(ignored.shape) != tuple(size):
        raise ValueError(f"ignored must be {tuple(size)}, got {tuple(ignored.shape)}")
    height, width = size
    points = torch.cat([keypoints, centers[:, None].to(keypoints.dtype)], dim=1)
    channels = points.shape[1]
    sigmas = points.new_full((channels,), sigma)
    sigmas[-1] = center_sigma
    drawn = inside(points, size)
    rows = windowed_gaussians(points[..., 0], drawn, sigmas, width)
    columns = windowed_gaussians(points[..., 1], drawn, sigmas, height)
    heatmaps = points.new_zeros((channels, height, width))
    for row, column in zip(rows, columns, strict=True):  # one person at a time keeps the memory small
        heatmaps = torch.maximum(heatmaps, column[:, :, None] * row[:, None, :])
    # Within a window no Gaussian underflows to zero (sigmas are at least 0.5), so positive means inside.
    weights = torch.where(heatmaps > 0, 1.0, background_weight)
    if ignored is not None:
        weights = weights * ~ignored.to(torch.bool)
    return heatmaps.float(), weights.float()


def offset_targets(
    keypoints: Tensor,
    centers: Tensor,
    size: tuple[int, int],
    *,
    radius: int = 4,
    mode: TargetMode = "paper",
    areas: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Write each person's offsets (pixel - keypoint) into the pixels around its center.

    "paper": the disc of ``radius`` around the truncated center; where discs meet a pixel belongs to the
    nearer center; the weight is 1 / Z, Z the diagonal of the box of the labelled keypoints (also those
    outside the map), heatmap pixels, but at least ``radius``, so that a person with one label does not
    outweigh everyone. "official": the square [center - radius, center + radius); where squares meet the
    smaller person wins; the weight is 1 / sqrt(area). In both modes a keypoint that is not labelled or lies
    outside the map has weight 0, and a person whose center does writes nothing.

    Args:
        keypoints: (P, K, 3) x, y, visibility, heatmap pixels; P may be 0.
        centers: (P, 3) x, y, visibility, heatmap pixels.
        size: (height, width) of the map.
        radius: heatmap pixels.
        mode: "paper" or "official".
        areas: (P,) input pixels squared, "official" only, from ``official_areas`` times the area multiplier.

    Returns:
        Offsets and weights, both (2K, height, width) float32, channels x0, y0, x1, ...

    Raises:
        ValueError: shapes or mode are wrong, or ``areas`` does not fit the mode.
    """
    _check_people(keypoints, centers)
    _check_mode(mode)
    if (areas is None) == (mode == "official"):
        raise ValueError('areas go with mode="official" and only with it; make them with official_areas')
    if areas is not None and areas.shape != (len(keypoints),):
        raise ValueError(f"areas must be ({len(keypoints)},), one per person, got {tuple(areas.shape)}")
    height, width = size
    shape = (keypoints.shape[1], 2, height, width)
    offsets, weights = keypoints.new_zeros(shape), keypoints.new_zeros(shape)
    if areas is None:
        _write_paper_offsets(offsets, weights, keypoints, centers, radius)
    else:
        _write_official_offsets(offsets, weights, keypoints, centers, radius, areas)
    return offsets.flatten(0, 1).float(), weights.flatten(0, 1).float()


def _write_paper_offsets(offsets: Tensor, weights: Tensor, keypoints: Tensor, centers: Tensor, radius: int) -> None:
    """Fill (K, 2, h, w) maps in place: discs, nearer center first, true diagonals."""
    height, width = offsets.shape[2:]
    present = inside(centers, (height, width))
    keypoints, centers = keypoints[present], centers[present, :2]
    if len(keypoints) == 0:
        return
    ys = torch.arange(height, device=keypoints.device, dtype=keypoints.dtype)[:, None]
    xs = torch.arange(width, device=keypoints.device, dtype=keypoints.dtype)
    x, y = centers[:, 0, None, None], centers[:, 1, None, None]
    in_disc = (xs - x.floor()).square() + (ys - y.floor()).square() <= radius**2
    distance = torch.where(in_disc, (xs - x).square() + (ys - y).square(), torch.inf)
    nearest, owner = distance.min(0)
    rows, columns = torch.nonzero(torch.isfinite(nearest), as_tuple=True)
    owner = owner[rows, columns]

    labelled = keypoints[..., 2:] > 0
    infinity = torch.full_like(keypoints[..., :2], torch.inf)
    top = torch.where(labelled, keypoints[..., :2], -infinity).amax(1)
    bottom = torch.where(labelled, keypoints[..., :2], infinity).amin(1)
    diagonal = (top - bottom).norm(dim=-1).clamp(min=radius)
    valid = inside(keypoints, (height, width))
    person_weights = valid.to(keypoints.dtype) / diagonal[:, None]

    pixels = torch.stack([columns, rows], dim=-1).to(keypoints.dtype)
    values = (pixels[:, None] - keypoints[owner, :, :2]) * valid[owner, :, None]
    offsets[:, :, rows, columns] = values.permute(1, 2, 0)
    weights[:, :, rows, columns] = person_weights[owner].T[:, None].expand(-1, 2, -1)


def _write_official_offsets(
    offsets: Tensor, weights: Tensor, keypoints: Tensor, centers: Tensor, radius: int, areas: Tensor
) -> None:
    """Fill (K, 2, h, w) maps in place: squares, smaller person first, weights from ``areas``."""
    height, width = offsets.shape[2:]
    owner_areas = areas.new_zeros((height, width), dtype=torch.float32)
    valid = inside(keypoints, (height, width))[:, :, None, None]
    for person, (x, y, visibility) in enumerate(centers.tolist()):
        x, y = int(x), int(y)
        if visibility < 1 or not (0 <= x < width and 0 <= y < height):
            continue
        rows = slice(max(y - radius, 0), min(y + radius, height))
        columns = slice(max(x - radius, 0), min(x + radius, width))
        ys = torch.arange(rows.start, rows.stop, device=keypoints.device, dtype=keypoints.dtype)
        xs = torch.arange(columns.start, columns.stop, device=keypoints.device, dtype=keypoints.dtype)
        points, area = keypoints[person, :, :, None, None], areas[person]
        patch, patch_weights = offsets[..., rows, columns], weights[..., rows, columns]
        patch_areas = owner_areas[rows, columns]
        won = _official_winner((patch == 0).all(1), patch_areas, valid[person], area)
        values = torch.empty_like(patch)
        values[:, 0] = xs - points[:, 0]
        values[:, 1] = ys[:, None] - points[:, 1]
        patch.copy_(torch.where(won[:, None], values, patch))
        patch_weights.masked_fill_(won[:, None], area.rsqrt().to(patch.dtype))
        patch_areas.masked_fill_(won.any(0), area.float())


def _official_winner(empty: Tensor, owner_areas: Tensor, valid: Tensor, area: Tensor) -> Tensor:
    """Which pixels a person takes, for each keypoint, (K, h, w) boolean.

    The official code walks over the keypoints and takes a pixel that is empty or whose owner is not smaller.
    All keypoints share one owner's area per pixel, in single precision. So after a person's first keypoint
    the owner is the person itself: it takes the pixel for its later keypoints too, except when rounding
    made its own area smaller; then it takes empty pixels only. Recorded targets depend on both.

    Args:
        empty: (K, h, w), where nobody has written this keypoint.
        owner_areas: (h, w) float32.
        valid: (K, 1, 1), the keypoints that the person has in the map.
        area: scalar, the person's.
    """
    not_smaller = owner_areas.to(area.dtype) >= area
    if area.float().to(area.dtype) >= area:
        return ((empty | not_smaller) & valid).cummax(0).values & valid
    first = valid & (valid.cumsum(0) == 1)
    return valid & (empty | (not_smaller & first))
