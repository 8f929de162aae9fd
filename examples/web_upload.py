"""A web handler: POST a photo, get its poses as JSON.

python web_upload.py 8000, then: curl --data-binary @photo.jpg http://127.0.0.1:8000
With Flask the photo is request.files["photo"], with FastAPI upload.file: both go into the estimator as they are.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable
from typing import Any
from wsgiref.simple_server import make_server

from dekrpose import DekrPoseError, PoseEstimator

MOST_BYTES = 20_000_000
estimator = PoseEstimator.from_pretrained()


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    size = int(environ.get("CONTENT_LENGTH") or 0)
    if not 0 < size <= MOST_BYTES:
        start_response("413 Content Too Large", [("Content-Type", "text/plain")])
        return [f"send a photo of at most {MOST_BYTES} bytes".encode()]
    try:
        poses = estimator(io.BytesIO(environ["wsgi.input"].read(size)))
    except DekrPoseError as error:
        start_response("400 Bad Request", [("Content-Type", "text/plain; charset=utf-8")])
        return [str(error).encode()]
    start_response("200 OK", [("Content-Type", "application/json")])
    return [poses.to_json().encode()]


if __name__ == "__main__":
    make_server("127.0.0.1", int(sys.argv[1] if sys.argv[1:] else sys.exit(__doc__)), application).serve_forever()
