"""The skeleton of a data file: COCO's format names keypoints and edges, a small JSON file says the rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dekrpose.data.coco_fields import as_name, keypoint_names, shown, with_keypoints
from dekrpose.data.dataset import read_content
from dekrpose.errors import DekrPoseError
from dekrpose.formats import parse_json
from dekrpose.skeletons import COCO_17, CROWDPOSE_14, NamedSide, Skeleton, name_words, side_and_rest

DEFAULT_SIGMA = 0.067
"""OKS falloff of keypoints that neither COCO nor CrowdPose has: the mean of COCO's 17."""

Pairs = tuple[tuple[int, int], ...]

_KNOWN = (COCO_17, CROWDPOSE_14)
_FIELDS = ("name", "names", "edges", "flip_pairs", "sigmas")


def skeleton_of(data_file: Path, skeleton_file: Path | None = None) -> Skeleton:
    """The skeleton that a COCO keypoints file means.

    Names and edges (which count from 1) are those of the category with keypoints, sigmas and flip_pairs too if it has
    any; of several with different keypoints, ``skeleton_file`` chooses one by its names. Flip pairs are otherwise
    guessed from left and right in the names. What ``skeleton_file`` says comes before all that; see docs/data.md for
    its fields. Sigmas that nobody gives are COCO's and CrowdPose's where names agree, else ``DEFAULT_SIGMA``. COCO and
    CrowdPose as published give exactly ``COCO_17`` and ``CROWDPOSE_14``.

    Args:
        data_file: ``.json`` or ``.json.gz``. If it names no keypoints, 17 of them are taken for COCO's.
        skeleton_file: JSON with any of name, names, edges, flip_pairs and sigmas.

    Raises:
        DekrPoseError: a file is not what it should be, or the two contradict each other.
        OSError: a file cannot be read.
    """
    given = {} if skeleton_file is None else _read_skeleton_file(skeleton_file)
    content = read_content(data_file)
    in_file = keypoint_names(given.get("names"), f'"names" of {skeleton_file}')
    category, in_data = _category(content, data_file, in_file)
    if in_data and in_file and in_data != in_file:
        raise DekrPoseError(
            f"{data_file} names the keypoints {', '.join(in_data)}, but {skeleton_file} {', '.join(in_file)}; "
            "they must be the same, in the same order"
        )
    names = in_data or in_file
    if names is None:
        if _first_length(content) != 3 * len(COCO_17):
            raise DekrPoseError(
                f"{data_file} does not name its keypoints: add them to its categories, or give a skeleton file "
                'with "names"'
            )
        names = COCO_17.keypoints
    where = f"{skeleton_file}: " if skeleton_file else ""
    if "edges" in given:
        edges = _named_pairs(given["edges"], names, f'{where}"edges"')
    else:
        edges = _edges(category.get("skeleton"), names, data_file)
    if "flip_pairs" in given:
        pairs = _named_pairs(given["flip_pairs"], names, f'{where}"flip_pairs"', once=True)
    elif category.get("flip_pairs") is not None:
        pairs = _named_pairs(category["flip_pairs"], names, f"flip_pairs of {data_file}", once=True)
    else:
        pairs = guess_flip_pairs(names)
    sigmas = _sigmas(category.get("sigmas"), names, f"sigmas of {data_file}", default_sigmas(names))
    sigmas = _sigmas(given.get("sigmas"), names, f'{where}"sigmas"', sigmas)
    skeleton = Skeleton(_name(given, category, names, where), names, edges, pairs, sigmas)
    if given.get("name") is not None:
        return skeleton
    return next((known for known in _KNOWN if replace(skeleton, name=known.name) == known), skeleton)


def side_of(name: str) -> NamedSide:
    """Whether a keypoint's name says left or right: left_eye, eye-left, LeftEye, "l eye", eyeR, ..."""
    return side_and_rest(name)[0]


def guess_flip_pairs(names: Sequence[str]) -> Pairs:
    """(left, right) indices of the names that differ in nothing but the side, in the order of the left ones."""
    sides: dict[NamedSide, dict[tuple[str, ...], int]] = {"left": {}, "right": {}, "": {}}
    for index, name in enumerate(names):
        side, rest, _ = side_and_rest(name)
        sides[side].setdefault(rest, index)
    return tuple((index, sides["right"][rest]) for rest, index in sides["left"].items() if rest in sides["right"])


def likely_flip_pair(names: Sequence[str]) -> tuple[str, str] | None:
    """The first two names that differ in one word which no third name has another of: izq_ojo and der_ojo."""
    alike: dict[tuple[tuple[str, ...], ...], list[str]] = {}
    for name in names:
        words = name_words(name)
        for index, word in enumerate(words if len(words) > 1 else []):
            if not word.isdigit():
                alike.setdefault((words[:index], words[index + 1 :]), []).append(name)
    return next(((pair[0], pair[1]) for pair in alike.values() if len(pair) == 2), None)


def default_sigmas(names: Iterable[str]) -> tuple[float, ...]:
    """COCO's or CrowdPose's OKS falloff by name, whatever the side; ``DEFAULT_SIGMA`` for other keypoints."""
    known: dict[str, float] = {}
    for skeleton in _KNOWN:
        for name, sigma in zip(skeleton.keypoints, skeleton.sigmas, strict=True):
            known.setdefault(side_and_rest(name)[2], sigma)
    return tuple(known.get(side_and_rest(name)[2], DEFAULT_SIGMA) for name in names)


def _read_skeleton_file(path: Path) -> dict[str, Any]:
    try:
        given = parse_json(path.read_bytes())
    except ValueError as error:
        raise DekrPoseError(f"{path} is not JSON: {error}") from error
    if not isinstance(given, dict):
        raise DekrPoseError(f"{path} must be a JSON object with any of {', '.join(_FIELDS)}")
    unknown = sorted(set(given) - set(_FIELDS))
    if unknown:
        raise DekrPoseError(f"{path} has the unknown fields {', '.join(unknown)}; known are {', '.join(_FIELDS)}")
    return {field: value for field, value in given.items() if value is not None}


def _category(
    content: Mapping[str, Any], path: Path, wanted: tuple[str, ...] | None
) -> tuple[Mapping[str, Any], tuple[str, ...] | None]:
    """The category that has keypoints and their names; an empty one if there is none.

    Of several that differ, the one with the ``wanted`` keypoints is taken.
    """
    named = with_keypoints(content, path)
    if len({names for _, names in named}) > 1:
        for category, names in named:
            if names == wanted:
                return category, names
        raise DekrPoseError(
            f"categories {' and '.join(shown(category.get('name')) for category, _ in named)} of {path} have different "
            'keypoints; a network learns one skeleton: make a file of each, or choose by "names" in a skeleton file'
        )
    return named[0] if named else ({}, None)


def _name(given: Mapping[str, Any], category: Mapping[str, Any], names: tuple[str, ...], where: str) -> str:
    name = given.get("name")
    if name is not None and not isinstance(name, str):
        raise DekrPoseError(f'{where}"name" must be a text, got {shown(name)}')
    return name or f"{as_name(category.get('name') or 'skeleton')}-{len(names)}"


def _first_length(content: Mapping[str, Any]) -> int:
    entries = content["annotations"] if isinstance(content["annotations"], list) else []
    lists = (entry.get("keypoints") for entry in entries if isinstance(entry, dict))
    return next((len(values) for values in lists if isinstance(values, list) and values), 3 * len(COCO_17))


def _edges(values: object, names: tuple[str, ...], path: Path) -> Pairs:
    """The category's edges, counted from 0; those of a known skeleton in its own order, which scoring nets need."""
    known = next((skeleton for skeleton in _KNOWN if skeleton.keypoints == names), None)
    if not values:
        return known.edges if known else ()
    where = f'"skeleton" in the categories of {path}'
    if not isinstance(values, list):
        raise DekrPoseError(f"{where} must be a list of pairs, got {shown(values)}")
    pairs: list[tuple[int, int]] = []
    for pair in values:
        if not isinstance(pair, list) or len(pair) != 2 or not all(type(number) is int for number in pair):
            raise DekrPoseError(f"{where} must hold pairs of keypoint numbers, got {shown(pair)}")
        pairs.append((pair[0] - 1, pair[1] - 1))
    if known and _undirected(pairs) == _undirected(known.edges):
        return known.edges
    if known == CROWDPOSE_14 and _undirected(pairs) <= _undirected(COCO_17.edges):
        return known.edges  # CrowdPose was published with COCO's edges, which make no sense for its keypoints
    for start, end in pairs:
        if not (0 <= start < len(names) and 0 <= end < len(names)) or start == end:
            raise DekrPoseError(
                f"{where} must join two of the keypoints 1 to {len(names)}, counted from 1, got "
                f'{[start + 1, end + 1]}; correct it, or give "edges" in a skeleton file'
            )
    return tuple(dict.fromkeys(pairs))


def _undirected(pairs: Iterable[tuple[int, int]]) -> set[frozenset[int]]:
    return {frozenset(pair) for pair in pairs}


def _named_pairs(values: object, names: tuple[str, ...], where: str, once: bool = False) -> Pairs:
    if not isinstance(values, list):
        raise DekrPoseError(f"{where} must be a list of pairs of keypoint names, got {shown(values)}")
    pairs: list[tuple[int, int]] = []
    for pair in values:
        if not isinstance(pair, list) or len(pair) != 2 or pair[0] == pair[1]:
            raise DekrPoseError(f"{where} must hold pairs of two keypoint names, got {shown(pair)}")
        for name in pair:
            if name not in names:
                raise DekrPoseError(f"{where} names {shown(name)}, which is no keypoint; there are {', '.join(names)}")
            if once and any(names.index(name) in other for other in pairs):
                raise DekrPoseError(f"{where} names {shown(name)} twice; a keypoint has one mirror image")
        pairs.append((names.index(pair[0]), names.index(pair[1])))
    return tuple(dict.fromkeys(pairs))


def _sigmas(values: object, names: tuple[str, ...], where: str, others: tuple[float, ...]) -> tuple[float, ...]:
    """From a list, or from an object by name; ``others`` stand where nothing is given."""
    if values is None:
        return others
    if isinstance(values, dict):
        strangers = sorted(set(values) - set(names))
        if strangers:
            raise DekrPoseError(f"{where} names {', '.join(strangers)}; keypoints are {', '.join(names)}")
        values = [values.get(name, other) for name, other in zip(names, others, strict=True)]
    if not isinstance(values, list) or len(values) != len(names):
        count = len(values) if isinstance(values, list) else shown(values)
        raise DekrPoseError(f"{where} must be {len(names)} numbers, one per keypoint, got {count}")
    for value in values:
        if type(value) not in (int, float) or not 0 < value < 1:
            raise DekrPoseError(
                f"{where} must be numbers between 0 and 1, such as 0.079 for a shoulder, got {shown(value)}"
            )
    return tuple(float(value) for value in values)
