"""PoseEstimator: from a photo to poses."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from dekrpose import images
from dekrpose.architectures.contract import Found
from dekrpose.architectures.parts.poses import pose_features
from dekrpose.config import MatchMode
from dekrpose.engines.base import Stages
from dekrpose.errors import ImageError, without_password
from dekrpose.hub.pretrained import Pretrained
from dekrpose.images import Color, Geometry, Pixels, several_images
from dekrpose.options import Options, checked_number, resolve_options
from dekrpose.results import Poses
from dekrpose.video.memory import Recall, StreamState, remembers

if TYPE_CHECKING:
    from dekrpose.video.stream import PoseStream


@dataclass(frozen=True)
class _Loaded:
    """One image on its way: pixels, where they come from, the frames at each scale, its time so far."""

    pixels: Pixels
    source: str | None
    geometries: tuple[Geometry, ...]
    stages: Stages


class PoseEstimator(Pretrained):
    """Finds the keypoints of everyone in a photo, in one bottom-up pass. Make one with ``from_pretrained``."""

    def estimate(
        self,
        image: Any,
        *,
        score_threshold: float | None = None,
        max_people: int = 30,
        input_size: int | None = None,
        nms_threshold: float | None = None,
        flip_test: bool = False,
        scales: Sequence[float] | None = None,
        match_heatmap: bool | MatchMode | None = None,
        rescore: bool | None = None,
        color: Color = "rgb",
        allow_private: bool = False,
    ) -> Poses:
        """Find everyone in one image.

        Args:
            image: path, URL, encoded bytes, file object, Pillow image, uint8 array (H, W, 3) and its kin, or uint8
                tensor (3, H, W).
            score_threshold: people below it are left out, the others come best first; None is the model's own; 0 or
                less keeps everyone, in the official order.
            max_people: most people in the answer, those of the highest scores.
            input_size: short side of the network's input at scale 1, pixels; None is the model's own. Photos longer
                than a model's ``max_aspect`` (the bundled one's is 6) get a smaller one.
            nms_threshold: pose NMS distance as a share of the box diagonal; None is the model's own (0.05 for one
                scale and 0.15 for several, in the published models). DirectPose's is the overlap of boxes.
            flip_test: average with the mirrored image: two to four times slower, more accurate in the published models.
            scales: input scales, 1 among them; several are slower, and more accurate in the published models; None is
                the model's own.
            match_heatmap: move keypoints to heatmap peaks: True or "official" as the released code does, "paper"
                without its mix-up near borders; "weighted" to the peak of highest heat times likelihood of the way
                there, which also scores the keypoint; None is the model's own (False in the published models).
            rescore: let the scoring net judge each pose: an official one multiplies its score, a calibrated one such as
                the bundled model's replaces it and those of its keypoints; None does so when the model has the net.
            color: "rgb" or "bgr" (OpenCV), for arrays and tensors.
            allow_private: fetch URLs from private and loopback addresses too. A service that passes its users' strings
                on must leave this off, and keep strings that are paths away from here: docs/services.md.

        Returns:
            ``Poses`` in image pixels, the image inside.

        Raises:
            ImageError: the image cannot be read or is not supported (a ValueError too).
            FileNotFoundError: there is no such file.
            ValueError: an option is out of range.
        """
        options = self._options(
            score_threshold=score_threshold, max_people=max_people, input_size=input_size, nms_threshold=nms_threshold,
            flip_test=flip_test, scales=scales, match_heatmap=match_heatmap, rescore=rescore, color=color,
            allow_private=allow_private,
        )  # fmt: skip
        loaded = self._load(image, options)
        (found,) = self._find([loaded], options)
        return replace(self._poses(loaded, found, options.score_threshold), image=loaded.pixels)

    __call__ = estimate

    def estimate_raw(
        self, image: Any, **options: Any
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Everyone in the official order with scores as they come, for evaluation: nothing is clipped.

        Args:
            image: as in ``estimate``.
            options: as in ``estimate``; ``score_threshold`` has no effect.

        Returns:
            Keypoints (N, K, 2) in image pixels, keypoint scores (N, K), scores (N,).
        """
        checked = self._options(**options)
        (found,) = self._find([self._load(image, checked)], checked)
        return found.keypoints.numpy(), found.keypoint_scores.numpy(), found.scores.numpy()

    def estimate_many(
        self,
        images: Iterable[Any],
        *,
        batch_size: int = 8,
        on_error: Literal["raise", "skip"] = "raise",
        **options: Any,
    ) -> Iterator[Poses]:
        """Find everyone in many images, in their order, without ever holding more than a batch.

        Images of equal input size share a batch; padding would change results, so there is none.

        Args:
            images: whatever ``estimate`` takes, one by one; or a folder or glob.
            batch_size: most images in memory at once.
            on_error: "skip" answers an unreadable image with an empty ``Poses`` that has ``error``.
            options: as in ``estimate``.

        Yields:
            ``Poses`` with ``index``; the images themselves are not kept.
        """
        checked_number("batch_size", batch_size, int, 1, math.inf, "of at least 1")
        if on_error not in ("raise", "skip"):
            raise ValueError(f'on_error must be "raise" or "skip", got {on_error!r}')
        checked = self._options(**options)
        return self._stream(several_images(images), batch_size, on_error == "skip", checked)

    def estimate_video(
        self,
        source: Any,
        *,
        stride: int = 1,
        track: bool = False,
        smooth: bool = False,
        start: float | None = None,
        end: float | None = None,
        fps: float = 25.0,
        batch_size: int | None = None,
        on_error: Literal["raise", "skip"] = "skip",
        **options: Any,
    ) -> PoseStream:
        """Find everyone in a video, a camera's pictures or another stream, frame by frame, in constant memory.

        Args:
            source: a file; the number of a camera; a URL (rtsp, http, ...); image files as a folder, a glob, a pattern
                such as "frames/%04d.png" or a list; or an iterable of images or of pairs (seconds, image).
            stride: every how many frames to look; the others are left out.
            track: give people identities, ``Poses.track_ids``.
            smooth: smooth the paths of keypoints; needs identities, and so tracks.
            start: seconds of the source at which to begin.
            end: seconds of the source at which to stop.
            fps: frames per second of image files and of images without seconds; everything else knows its own.
            batch_size: frames that go through the network together; None is 8 for files, 1 for iterables. Live
                sources go frame by frame, always the newest.
            on_error: "skip" answers a broken frame with an empty ``Poses`` that has ``error``.
            options: as in ``estimate``; ``color`` is that of arrays in an iterable. Sources are trusted, because
                cameras are private nearly always: no stranger's string belongs here.

        Returns:
            An iterator of ``Poses`` with ``index`` (frames of the source, from 0) and ``timestamp`` (seconds from its
            start), without images; its ``close`` ends a live source, as the end of a ``with`` block does.

        Raises:
            DekrPoseError: the source cannot be opened.
            FileNotFoundError: there is no such file.
            TypeError: it is no stream.
            ValueError: an option is out of range.
        """
        from dekrpose.video.stream import open_stream

        return open_stream(
            self, source, stride=stride, track=track, smooth=smooth, start=start, end=end, fps=fps,
            batch_size=batch_size, on_error=on_error, **options,
        )  # fmt: skip

    def estimate_frames(
        self,
        frames: Sequence[Any],
        state: StreamState | None = None,
        *,
        timestamps: Sequence[float] | None = None,
        **options: Any,
    ) -> tuple[list[Poses], StreamState | None]:
        """Find everyone in the next frames of one stream, with what the model remembers of those before.

        ``estimate_video`` does this for whole streams. Models without memory see the frames one by one.

        Args:
            frames: consecutive, whatever ``estimate`` takes; they go through the network together.
            state: what the last call for this stream returned; None begins it anew.
            timestamps: seconds from the start of the stream, for each frame; None takes no time for a gap.
            options: as in ``estimate``.

        Returns:
            ``Poses`` of each frame, and the state for the next call: None for models without memory.
        """
        checked = self._options(**options)
        items = [self._load(frame, checked) for frame in several_images(frames)]
        times = [None] * len(items) if timestamps is None else list(timestamps)
        if len(times) != len(items):
            raise ValueError(f"timestamps must be one per frame, {len(items)}, got {len(times)}")
        done: list[Poses] = []
        for _, pairs in groupby(zip(items, times, strict=True), key=lambda pair: pair[0].geometries[0].input_size):
            run, seconds = zip(*pairs, strict=True)
            recall = None
            if remembers(self.model):
                recall = Recall(self.model, state, [item.pixels for item in run], seconds)
            found = self._find(run, checked, recall)
            done += [self._poses(item, own, checked.score_threshold) for item, own in zip(run, found, strict=True)]
            state = None if recall is None else recall.state()
        return done, state

    def _stream(self, items: Iterable[Any], batch_size: int, skip: bool, options: Options) -> Iterator[Poses]:
        pending: list[tuple[int, _Loaded | Poses]] = []
        for index, item in enumerate(items):
            try:
                pending.append((index, self._load(item, options)))
            except (ImageError, OSError) as error:
                if not skip:
                    yield from self._flush(pending, options)  # what was read before is not lost
                    raise
                source = without_password(str(item)) if isinstance(item, (str, Path)) else None
                failed = Poses.nobody(self.config.skeleton, (0, 0), source=source, error=str(error))
                pending.append((index, failed))
            if len(pending) == batch_size:
                yield from self._flush(pending, options)
                pending = []
        yield from self._flush(pending, options)

    def _flush(self, pending: list[tuple[int, _Loaded | Poses]], options: Options) -> Iterator[Poses]:
        by_size: dict[tuple[tuple[int, int], ...], list[tuple[int, _Loaded]]] = {}
        done: dict[int, Poses] = {}
        for index, item in pending:
            if isinstance(item, Poses):
                done[index] = item
            else:
                sizes = tuple(geometry.input_size for geometry in item.geometries)
                by_size.setdefault(sizes, []).append((index, item))
        for group in by_size.values():
            for (index, item), found in zip(group, self._find([item for _, item in group], options), strict=True):
                done[index] = self._poses(item, found, options.score_threshold)
        for index, _ in pending:
            yield replace(done[index], index=index)

    def warmup(self, *, input_size: int | None = None) -> None:
        """Run once on a grey image, decoded from a file's bytes, so that the first real one is not slower."""
        size = input_size or self.config.input_size
        _, encoded = cv2.imencode(".jpg", np.full((size, size, 3), 128, np.uint8))
        self.estimate(encoded.tobytes(), input_size=size)

    def _load(self, image: Any, options: Options) -> _Loaded:
        stages = Stages()
        with stages("read"):
            pixels, source = images.load(image, color=options.color, allow_private=options.allow_private)
        pixels.flags.writeable = False
        sides, multiple = (pixels.shape[0], pixels.shape[1]), self.config.backbone.size_multiple
        size = options.size_for(*sides, multiple, self.config.decode.max_aspect)
        geometries = tuple(Geometry.fit(*sides, size, scale, multiple) for scale in options.scales)
        return _Loaded(pixels, source, geometries, stages)

    def _find(self, batch: Sequence[_Loaded], options: Options, recall: Recall | None = None) -> list[Found]:
        """Everyone in images of equal input size, in image pixels; frames of a stream come with its memory."""
        photos, looks = [item.pixels for item in batch], [item.geometries for item in batch]
        found, timing = self.engine.find(photos, looks, options, recall)
        for item in batch:
            item.stages.milliseconds |= {stage: value / len(batch) for stage, value in timing.items()}
        return [self._in_image(item, own, options) for item, own in zip(batch, found, strict=True)]

    @torch.inference_mode()
    def _in_image(self, item: _Loaded, found: Found, options: Options) -> Found:
        """Poses in input pixels as image pixels, with the scoring net's scores, by which the best people are kept."""
        with item.stages("decode"):
            points = torch.from_numpy(item.geometries[0].to_image(found.keypoints.numpy()))
            scores, keypoint_scores = found.scores, found.keypoint_scores
            if options.rescore and self.rescoring_net is not None:
                features = pose_features(points, keypoint_scores, self.config.skeleton.edges)
                scores, keypoint_scores = self.rescoring_net.scored(features, keypoint_scores, scores)
            kept = scores.topk(min(options.max_people, len(scores))).indices.sort().values
        return Found(points[kept], keypoint_scores[kept], scores[kept])

    def _poses(self, item: _Loaded, found: Found, score_threshold: float) -> Poses:
        """Those to show: best first, or everyone in the official order without a threshold."""
        scores = found.scores.numpy()
        order = np.arange(len(scores))
        if score_threshold > 0:
            order = np.argsort(-scores, kind="stable")
            order = order[scores[order] >= score_threshold]
        return Poses(
            keypoints=found.keypoints.numpy()[order],
            keypoint_scores=found.keypoint_scores.numpy()[order].clip(0, 1),
            scores=scores[order].clip(0, 1),
            skeleton=self.config.skeleton,
            image_size=item.geometries[0].image_size,
            source=item.source,
            timing=item.stages.milliseconds,
        )

    def _options(self, **options: Any) -> Options:
        own, has_net = self.config, self.rescoring_net is not None
        checked = resolve_options(own.decode, own.input_size, has_net, **options)
        self.engine.check(checked)
        return checked
