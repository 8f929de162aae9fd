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
    if keypoints.ndim not in (3, 4) or keypoints.shape[-1] != 3 or not keypoints.is_floating_point():
        raise ValueError(
            f"keypoints must be a floating (P, K, 3) tensor, got {tuple(keypoints.shape)} {keypoints.dtype}"
        )
    shape = (*keypoints.shape[:-2], 3)
    if centers is not None and centers.shape != shape:
        raise ValueError(f"centers must be {shape}, one per person, got {tuple(centers.shape)}")


def _check_mode(mode: str) -> None:
    if mode not in get_args(TargetMode):
        raise ValueError(f"mode must be one of {get_args(TargetMode)}, got {mode!r}")


def inside(points: Tensor, size: tuple[int, int]) -> Tensor:
    """Which labelled points (..., 3) lie in a map of size (h, w): a boolean of shape (...)."""
    x, y, visibility = points.unbind(-1)
    height, width = size
    return (visibility > 0) & (x >= 0) & (y >= 0) & (x < width) & (y < height)


def person_centers(keypoints: Tensor, *, mode: TargetMode = "paper", minimum_keypoints: int = 1) -> Tensor:
    """The center of each person: the mean of its labelled keypoints.

    A person without labelled keypoints has no center (visibility 0). In the official code it gets one at
    (0, 0) of the frame that the keypoints are in, which was the image.

    Args:
        keypoints: (P, K, 3) x, y, visibility in any frame, or (B, P, K, 3); P may be 0.
        mode: "paper" or "official".
        minimum_keypoints: of "paper": people with fewer labels have no center.

    Returns:
        (P, 3) or (B, P, 3) x, y and visibility 1 or 0, same frame.

    Raises:
        ValueError: the shape or the mode is wrong.
    """
    _check_people(keypoints)
    _check_mode(mode)
    labelled = keypoints[..., 2:] > 0
    count = labelled.sum(-2)
    xy = (keypoints[..., :2] * labelled).sum(-2) / count.clamp(min=1)
    visible = torch.ones_like(xy[..., :1]) if mode == "official" else (count >= max(minimum_keypoints, 1)).to(xy.dtype)
    return torch.cat([xy, visible], dim=-1)


def drop_small_centers(centers: Tensor, object_areas: Tensor) -> Tensor:
    """The centers without those of small people, whose keypoints keep their heat: for COCO, not for CrowdPose.

    Args:
        centers: (P, 3) x, y, visibility.
        object_areas: (P,) segmentation areas as annotated, image pixels squared; below ``SMALL_AREA`` is small.

    Returns:
        (P, 3) with visibility 0 for small people.
    """
    keep = (object_areas >= SMALL_AREA).to(centers.dtype)
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
    """Gaussians (..., C, length) along one axis, 0 outside the official window and where (..., C) ``drawn`` is False.

    Positions (..., C), sigmas (C,) and length are in heatmap pixels.
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
        keypoints: (P, K, 3) x, y, visibility, heatmap pixels; P may be 0. Or (B, P, K, 3) of B crops, on any device.
        centers: (P, 3) x, y, visibility, heatmap pixels, from ``person_centers``; or (B, P, 3).
        size: (height, width) of the map.
        sigma: of the keypoints, heatmap pixels, at least 0.5.
        center_sigma: of the centers, heatmap pixels, at least 0.5 (``official_center_sigma`` for the quirk).
        background_weight: weight outside the windows of a channel's own keypoints.
        ignored: (height, width) boolean, True where unlabelled people are; weight 0 in all channels; or (B, h, w).

    Returns:
        Heatmaps and weights, both (K + 1, height, width) float32, or (B, K + 1, h, w); the center is the last channel.

    Raises:
        ValueError: shapes do not fit or a sigma is below 0.5.
    """
    _check_people(keypoints, centers)
    if min(sigma, center_sigma) < 0.5:
        raise ValueError(f"sigmas must be at least 0.5 heatmap pixels, got {sigma} and {center_sigma}")
    if ignored is not None and ignored.shape != (*keypoints.shape[:-3], *size):
        raise ValueError(f"ignored must be {(*keypoints.shape[:-3], *size)}, got {tuple(ignored.shape)}")
    points = torch.cat([keypoints, centers[..., None, :].to(keypoints.dtype)], dim=-2)
    sigmas = points.new_full((points.shape[-2],), sigma)
    sigmas[-1] = center_sigma
    drawn = inside(points, size)
    columns, rows = (windowed_gaussians(points[..., axis], drawn, sigmas, size[1 - axis]) for axis in (0, 1))
    heatmaps = points.new_zeros((*points.shape[:-3], points.shape[-2], *size))
    # one person of every crop at a time keeps the memory small
    for row, column in zip(rows.unbind(-3), columns.unbind(-3), strict=True):
        torch.maximum(heatmaps, row[..., :, None] * column[..., None, :], out=heatmaps)
    # Within a window no Gaussian underflows to zero (sigmas are at least 0.5), so positive means inside.
    weights = torch.where(heatmaps > 0, 1.0, background_weight)
    if ignored is not None:
        weights = weights * ~ignored.unsqueeze(-3)
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
        keypoints: (P, K, 3) x, y, visibility, heatmap pixels; P may be 0. "paper": or (B, P, K, 3) of B crops.
        centers: (P, 3) x, y, visibility, heatmap pixels; or (B, P, 3).
        size: (height, width) of the map.
        radius: heatmap pixels.
        mode: "paper" or "official".
        areas: (P,) input pixels squared, "official" only, from ``official_areas`` times the area multiplier.

    Returns:
        Offsets and weights, both (2K, height, width) float32, or (B, 2K, h, w), channels x0, y0, x1, ...

    Raises:
        ValueError: shapes or mode are wrong, or ``areas`` does not fit the mode.
    """
    _check_people(keypoints, centers)
    _check_mode(mode)
    if (areas is None) == (mode == "official"):
        raise ValueError('areas go with mode="official" and only with it; make them with official_areas')
    if areas is None:
        offsets, weights = _paper_offsets(keypoints, centers, size, radius)
        return offsets.float(), weights.float()
    if areas.shape != (len(keypoints),):
        raise ValueError(f"areas must be ({len(keypoints)},), one per person, got {tuple(areas.shape)}")
    shape = (keypoints.shape[1], 2, *size)
    offsets, weights = keypoints.new_zeros(shape), keypoints.new_zeros(shape)
    _write_official_offsets(offsets, weights, keypoints, centers, radius, areas)
    return offsets.flatten(0, 1).float(), weights.flatten(0, 1).float()


def _paper_offsets(keypoints: Tensor, centers: Tensor, size: tuple[int, int], radius: int) -> tuple[Tensor, Tensor]:
    """Offsets and weights (..., 2K, h, w): discs, nearer center first, true diagonals; nothing waits for a GPU."""
    *batch, people, count, _ = keypoints.shape
    if not people:
        nothing = keypoints.new_zeros(*batch, 2 * count, *size)
        return nothing, nothing.clone()
    ys, xs = (torch.arange(length, device=keypoints.device, dtype=keypoints.dtype) for length in size)

    def squared_distance(points: Tensor) -> Tensor:
        return (ys[:, None] - points[..., 1, None, None]).square() + (xs - points[..., 0, None, None]).square()

    in_disc = (squared_distance(centers.floor()) <= radius**2) & inside(centers, size)[..., None, None]
    nearest, owner = torch.where(in_disc, squared_distance(centers), torch.inf).min(-3)
    labelled, xy = keypoints[..., 2:] > 0, keypoints[..., :2]
    low, high = torch.where(labelled, xy, torch.inf).amin(-2), torch.where(labelled, xy, -torch.inf).amax(-2)
    diagonal = torch.linalg.vector_norm(high - low, dim=-1).nan_to_num(posinf=radius).clamp(min=radius)
    person_weights = inside(keypoints, size) / diagonal[..., None]
    chosen = owner.flatten(-2)[..., None].expand(*batch, -1, 2 * count)
    weights = person_weights.repeat_interleave(2, -1).gather(-2, chosen) * nearest.flatten(-2).isfinite()[..., None]
    pixels = torch.cartesian_prod(ys, xs).flip(1).repeat(1, count)
    offsets = (pixels - xy.flatten(-2).gather(-2, chosen)) * (weights > 0)
    return offsets.mT.reshape(*batch, 2 * count, *size), weights.mT.reshape(*batch, 2 * count, *size)


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

    The official code walks over the keypoints and takes a pixel that is ``empty`` (K, h, w) or whose owner is not
    smaller. All keypoints share one owner's area per pixel (h, w), in single precision. So after a person's first
    keypoint the owner is the person itself: it takes the pixel for its later keypoints too, except when rounding made
    its own area smaller; then it takes empty pixels only. Recorded targets depend on both. ``valid`` (K, 1, 1):
    keypoints that are in the map.
    """
    not_smaller = owner_areas.to(area.dtype) >= area
    if area.float().to(area.dtype) >= area:
        return ((empty | not_smaller) & valid).cummax(0).values & valid
    first = valid & (valid.cumsum(0) == 1)
    return valid & (empty | (not_smaller & first))
