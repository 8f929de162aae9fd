"""Which keypoints share a branch of the keypoint tower, and so one place from which their features are read."""

from __future__ import annotations

from dekrpose.skeletons import Skeleton, side_and_rest

_PARTS = (
    ("nose", "eye", "ear", "mouth", "jaw", "chin", "forehead", "face", "head", "neck"),
    ("shoulder",),
    ("elbow", "wrist", "hand", "thumb", "finger"),
    ("hip",),
    ("knee", "ankle", "foot", "heel", "toe"),
)
"""Words in names: the head, which has one group, and the parts of each side."""
_MOST = 3
"""Keypoints of other names in one group."""


def keypoint_groups(skeleton: Skeleton) -> tuple[tuple[int, ...], ...]:
    """Groups of keypoints; for COCO's the paper's nine: head, and on each side shoulder, arm, hip, leg.

    Names say which part of which side a keypoint belongs to. Keypoints of other names go with others of such names on
    their side to which an edge leads, at most three together.

    Returns:
        Indices, each once; groups in the order of their first keypoints.
    """
    groups: dict[object, list[int]] = {}
    unknown: dict[int, list[int]] = {}
    for index, name in enumerate(skeleton.keypoints):
        plain = side_and_rest(name)[2].split("_")
        words = {*plain, *(word.removesuffix("s") for word in plain)}  # eyes are of the head, too
        part = next((number for number, parts in enumerate(_PARTS) if not words.isdisjoint(parts)), None)
        if part is not None:
            groups.setdefault((part, _side(skeleton, index) if part else ""), []).append(index)
            continue
        partner = next(
            (own for other, own in unknown.items() if _together(skeleton, index, other) and len(own) < _MOST), None
        )
        if partner is None:
            partner = groups.setdefault(index, [])
        partner.append(index)
        unknown[index] = partner
    return tuple(sorted((tuple(group) for group in groups.values()), key=lambda group: group[0]))


def _together(skeleton: Skeleton, first: int, second: int) -> bool:
    joined = (first, second) in skeleton.edges or (second, first) in skeleton.edges
    return joined and _side(skeleton, first) == _side(skeleton, second)


def _side(skeleton: Skeleton, index: int) -> str:
    return side_and_rest(skeleton.keypoints[index])[0] or skeleton.sides[index]
