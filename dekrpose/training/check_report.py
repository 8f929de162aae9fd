"""What the check of a data file can find, and how it is told."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple

from dekrpose.errors import counted

Severity = Literal["error", "warning", "hint"]

EXAMPLES = 5
"""So many of each kind are shown."""


class Kind(NamedTuple):
    """One kind of problem: how bad it is, what is wrong, and what to do."""

    severity: Severity
    message: str
    advice: str


KINDS: dict[str, Kind] = {
    "file": Kind("error", "The file, or its skeleton, cannot be read.", "Write images, annotations and categories."),
    "names": Kind("error", "The skeleton's keypoints are not the file's.", "Train with the file's own skeleton."),
    "place": Kind("error", "Photos cannot be looked for there.", "Name folders, uncompressed .tar or .zip files."),
    "photo-entry": Kind("error", "Photo records lack a usable id, file_name, width or height.", "Complete them."),
    "photo-id-twice": Kind("error", "Photos share an id.", "Give each its own: people would be on both."),
    "photo-missing": Kind(
        "error",
        "Photos are in none of the given places.",
        "Check --images; where subfolders share names, file_name needs the folder.",
    ),
    "photo-unreadable": Kind("error", "Photos cannot be read.", "Get them again, or remove their records."),
    "photo-size": Kind(
        "error", "Photos have another size than stated.", "Annotate the photos as stored, without their EXIF rotation."
    ),
    "annotation-entry": Kind("error", "Annotations have fields that cannot be used.", "Complete or remove them."),
    "annotation-id-twice": Kind("error", "Annotations share an id.", "Number them anew."),
    "annotation-without-photo": Kind("error", "Annotations belong to no photo.", "Correct image_id or remove them."),
    "keypoint-count": Kind(
        "error", "Keypoint lists are not as long as the skeleton needs.", "Write x, y, visibility of every keypoint."
    ),
    "keypoint-value": Kind("error", "Keypoints are not finite numbers.", "Write 0, 0, 0 for what is not labelled."),
    "visibility": Kind("error", "Visibilities are not 0, 1 or 2.", "Write 0 unlabelled, 1 hidden, 2 visible."),
    "box-impossible": Kind(
        "error", "Boxes are not four numbers of positive width and height.", "Write x, y, width, height in pixels."
    ),
    "area-impossible": Kind(
        "error", "Areas are not positive, or larger than their boxes.", "Write the person's area in square pixels."
    ),
    "segmentation": Kind(
        "error", "Regions cannot be read or drawn.", "Write polygons or run lengths of the photo's size."
    ),
    "nobody": Kind("warning", "Nobody has labelled keypoints.", "This file alone cannot be trained on."),
    "file-name-twice": Kind(
        "warning", "Photos are listed twice.", "Join their records; each lacks the other's people."
    ),
    "same-photo": Kind("warning", "Photos of different names are the same picture.", "Keep one of each."),
    "same-person": Kind("warning", "People are annotated twice.", "Keep one annotation of each."),
    "keypoint-outside": Kind("warning", "Labelled keypoints lie outside the photo.", "They are not learned there."),
    "box-missing": Kind("warning", "Annotations have no box.", "Without an area, their OKS cannot be told."),
    "box-outside": Kind("warning", "Boxes reach outside the photo.", "Are they x, y, width, height in pixels?"),
    "box-elsewhere": Kind("warning", "Boxes are not where the keypoints are.", "Are boxes and keypoints one person's?"),
    "area-missing": Kind("warning", "Annotations have no area.", "0.53 of the box is taken, as for CrowdPose."),
    "num-keypoints": Kind("warning", "num_keypoints is not the number of labelled keypoints.", "Count again."),
    "other-category": Kind(
        "hint", "Annotations are of categories without the keypoints.", "They are skipped: are these no people?"
    ),
    "photo-empty": Kind("hint", "Photos show nobody.", "Good to learn from if true; bad if people are there."),
    "sides-exchanged": Kind(
        "hint", "Left is left in the picture for most people, as if seen from behind.", "Left is the person's own left."
    ),
    "side-without-pair": Kind(
        "hint", "Keypoints of one side have no partner and stay as they are in mirrored photos.", "Give flip_pairs."
    ),
}
"""Everything that is looked for, in the order in which it is told."""


@dataclass(frozen=True)
class Problem:
    """All findings of one kind of ``KINDS``: how often, and the first few examples.

    ``severity``: "error" breaks or spoils the training, "warning" may, "hint" is worth a look.
    """

    kind: str
    severity: Severity
    message: str
    advice: str
    count: int
    examples: tuple[str, ...]


class Findings:
    """Collects: how often each kind occurs, the first examples, and how many errors there are so far."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._examples: defaultdict[str, list[str]] = defaultdict(list)
        self.errors = 0

    def add(self, kind: str, example: str) -> None:
        """One more of a kind of ``KINDS``."""
        self._counts[kind] += 1
        self.errors += KINDS[kind].severity == "error"
        if len(self._examples[kind]) < EXAMPLES:
            self._examples[kind].append(example)

    def problems(self) -> list[Problem]:
        """In the order of ``KINDS``."""
        return [
            Problem(kind, *KINDS[kind], count=self._counts[kind], examples=tuple(self._examples[kind]))
            for kind in KINDS
            if self._counts[kind]
        ]


def report(problems: Sequence[Problem]) -> str:
    """The problems as text to read, errors first."""
    if not problems:
        return "No problems found."
    counts = Counter(problem.severity for problem in problems)
    parts = [counted(count, severity) for severity, count in counts.items()]
    blocks = [f"Kinds of problems: {', '.join(parts)}."]
    for problem in problems:
        lines = [f"{problem.severity:9}{problem.kind}, {counted(problem.count, 'time')}"]
        lines.append(f"    {problem.message} {problem.advice}")
        lines += [f"      {example}" for example in problem.examples]
        if problem.count > len(problem.examples):
            lines.append(f"      and {problem.count - len(problem.examples):,} more")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks).encode("utf-8", "backslashreplace").decode("utf-8")  # half characters cannot be printed


def to_json(problems: Sequence[Problem]) -> str:
    """The problems for programs: an object with ``errors``, ``warnings``, ``hints`` (kinds each) and ``problems``."""
    counts = Counter(problem.severity for problem in problems)
    summary = {"errors": counts["error"], "warnings": counts["warning"], "hints": counts["hint"]}
    return json.dumps({**summary, "problems": [asdict(problem) for problem in problems]}, indent=2)
