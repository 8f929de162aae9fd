"""Labels of another tool as a COCO keypoints file: python import_labels.py SOURCE people.json"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from dekrpose.data.importers import Files, Wishes, coco_content, read_labels, skeleton_fields


def main(source: str, out: str, *names: str) -> None:
    files, wishes = Files(Path(source)), Wishes(names or None)
    kind, labels = read_labels(files, wishes)
    content = coco_content(labels, files, skeleton_fields(labels, wishes, edges=None, flip_pairs=None))
    Path(out).write_text(json.dumps(content))
    people = content["annotations"]
    print(f"{kind}: {len(content['images'])} photos, {len(people)} people")
    for index, name in enumerate(content["categories"][0]["keypoints"]):
        print(f"{name}: {sum(person['keypoints'][3 * index + 2] > 0 for person in people)} times")
    for problem in labels.problems:
        print(f"left out: {problem}", file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:] or sys.exit(__doc__))
