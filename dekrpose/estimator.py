"""PoseEstimator: from a photo to poses."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dekrpose import images
from dekrpose.architectures.contract import Found, architecture_of
from dekrpose.architectures.dekr.network import DEKR
from dekrpose.architectures.dekr.temporal import TemporalDEKR
from dekrpose.architectures.parts.scoring_net import OKSScoreNet, rescore
from dekrpose.checkpoints import read_checkpoint, read_rescoring_net
from dekrpose.config import MatchMode, ModelConfig
from dekrpose.engines import EngineName, choose_engine
from dekrpose.engines.base import Stages
from dekrpose.engines.file import Exported, ExportedModel, exported_device, is_exported, read_exported
from dekrpose.errors import CheckpointError, DekrPoseError, ImageError
from dekrpose.hub import models, repositories
from dekrpose.images import Color, Geometry, Pixels
from dekrpose.options import Options, resolve_options
from dekrpose.results import Poses
from dekrpose.video.memory import Recall, StreamState

if TYPE_CHECKING:
    from dekrpose.video.stream import PoseStream

logger = logging.getLogger(__name__)

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    torch.float32: torch.float32,
    torch.bfloat16: torch.bfloat16,
    torch.float16: torch.float16,
}


@dataclass(frozen=True)
class _Loaded:
    """One image on its way: pixels, where they come from, the frames at each scale, milliseconds so far."""

    pixels: Pixels
    source: str | None
    geometries: tuple[Geometry, ...]
    timing: dict[str, float]


@dataclass(frozen=True, eq=False)
class _Raw:
    """What decoding gives for one image: image pixels, raw scores, everyone in the official order."""

    keypoints: NDArray[np.float32]
    keypoint_scores: NDArray[np.float32]
    scores: NDArray[np.float32]
    timing: dict[str, float]


class PoseEstimator:
    """Finds the keypoints of everyone in a photo, in one bottom-up pass. Make one with ``from_pretrained``.

    Attributes:
        engine: what runs the network, see ``engines``.
        config: the network's shape, skeleton and thresholds.
        rescoring_net: the net that predicts how good a pose is, or None.
        device: where it runs.
        dtype: of backbone and heatmap head; positions are always computed in float32.
    """

    def __init__(
        self,
        model: DEKR,
        *,
        rescoring_net: OKSScoreNet | None = None,
        device: str | torch.device = "cpu",
        dtype: str | torch.dtype = "auto",
        engine: EngineName = "auto",
    ) -> None:
        _mind_forks()
        self.config: ModelConfig = model.config
        self.device = pick_device(device)
        self.dtype = _dtype(dtype)
        self.engine = choose_engine(model.eval().requires_grad_(False), self.device, self.dtype, engine)
        self.rescoring_net = rescoring_net.eval().requires_grad_(False) if rescoring_net is not None else None

    @property
    def model(self) -> DEKR:
        """The network: normalised (B, 3, H, W) -> heatmaps (B, K+1, H/4, W/4), offsets (B, 2K, H/4, W/4)."""
        return cast(DEKR, self.engine.model)

    @model.setter
    def model(self, model: DEKR) -> None:
        self.engine.model = model

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path = "tiny",
        *,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
        rescoring_net: str | Path | bool | None = None,
        revision: str | None = None,
        token: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        engine: EngineName = "auto",
    ) -> PoseEstimator:
        """Load a model.

        Args:
            name_or_path: "tiny" (inside the package); a published name such as "dekr-w32-coco", fetched once;
                "organisation/repository" on Hugging Face, in the format of ``save_pretrained``; a folder written by
                that; a weights file: our safetensors, official .pth, mmpose 0.x and 1.x .pth, recognised by their
                tensors; or what ``export`` wrote: .onnx, .xml, .pt2, for the CPU.
            device: "auto" takes CUDA, then MPS, then the CPU.
            dtype: "float32", "bfloat16" or "float16" for backbone and heatmap head; "auto" is float32. Of the exported
                formats only OpenVINO has others than float32.
            rescoring_net: None uses the one inside the file, or the one that a published model names, if any; a path
                or a published name loads one; True demands one; False uses, and fetches, none.
            revision: branch, tag or commit of a Hugging Face repository.
            token: for private repositories; None takes HF_TOKEN or the stored login.
            cache_dir: where downloads are kept; None is DEKRPOSE_CACHE or the user's cache folder for published
                weights, and the hub's own cache for repositories.
            local_files_only: download nothing.
            force_download: download again what the cache has.
            engine: "auto" is the fast one on CPUs and the plain one elsewhere, or what DEKRPOSE_ENGINE says; "torch" is
                the plain one; "cuda" has not been tried on a GPU yet: it compares its first answer with the plain
                engine's, and leaves the rest to that if they differ.

        Raises:
            CheckpointError: the file is broken, foreign, or does not fit.
            DekrPoseError: nothing has this name, or it cannot be fetched.
            ImportError: what runs an exported file is missing.
            ValueError: an unknown device, dtype or engine, or one that the model does not run with.
        """
        where: dict[str, Any] = {
            "cache_dir": cache_dir, "local_files_only": local_files_only, "force_download": force_download,
        }  # fmt: skip
        path = models.resolve(name_or_path, revision=revision, token=token, **where)
        if is_exported(path):
            device = exported_device(device)
            exported = read_exported(path, dtype=_dtype(dtype))
            model, rescoring = cast(DEKR, exported.model), exported.rescoring
        else:
            checkpoint = read_checkpoint(path)
            with torch.device("meta"):
                model = cast(DEKR, architecture_of(checkpoint.config).build(checkpoint.config))
            model.load_state_dict(checkpoint.single(), assign=True)
            rescoring = checkpoint.rescoring
        config = model.config
        if rescoring_net is False:
            rescoring = None
        elif isinstance(rescoring_net, (str, Path)):
            rescoring = read_rescoring_net(models.resolve(rescoring_net, **where), config.skeleton)
        elif rescoring is None:
            named = models.rescoring_net_of(name_or_path)
            if named is not None:
                try:
                    rescoring = read_rescoring_net(models.resolve(named, **where), config.skeleton)
                except DekrPoseError as error:
                    raise type(error)(f"{error}. To go without the scoring net, pass rescoring_net=False") from error
            elif rescoring_net:
                raise CheckpointError(f"{path} holds no rescoring net; pass rescoring_net=PATH")
        return cls(model, rescoring_net=_rescoring(rescoring), device=device, dtype=dtype, engine=engine)

    def estimate(
        self,
        image: Any,
        *,
        score_threshold: float | None = None,
        max_people: int = 30,
        input_size: int | None = None,
        nms_threshold: float | None = None,
        flip_test: bool = False,
        scales: Sequence[float] = (1.0,),
        match_heatmap: bool | MatchMode | None = None,
        rescore: bool | None = None,
        color: Color = "rgb",
    ) -> Poses:
        """Find everyone in one image.

        Args:
            image: path, URL, encoded bytes, Pillow image, uint8 array (H, W, 3) and its kin, or uint8 tensor (3, H, W).
            score_threshold: people below it are left out, the others come best first; None is the model's own; 0 or
                less keeps everyone, in the official order.
            max_people: most people in the answer.
            input_size: short side of the network's input at scale 1, pixels; None is the model's own.
            nms_threshold: pose NMS distance as a share of the box diagonal; None is the model's own (0.05 for one
                scale and 0.15 for several, in the published models).
            flip_test: average with the mirrored image.
            scales: input scales, 1 among them; several are slower and more accurate.
            match_heatmap: move keypoints to heatmap peaks: True or "official" as the released code does, "paper"
                without its mix-up near borders; "weighted" to the peak of highest heat times likelihood of the way
                there, which also scores the keypoint; None is the model's own (False in the published models).
            rescore: predict how good each pose is and multiply its score by that; None does so when the model has
                the net.
            color: "rgb" or "bgr" (OpenCV), for arrays and tensors.

        Returns:
            ``Poses`` in image pixels, the image inside.

        Raises:
            ImageError: the image cannot be read or is not supported (a ValueError too).
            FileNotFoundError: there is no such file.
            ValueError: an option is out of range.
        """
        options = self._options(
            score_threshold=score_threshold,
            max_people=max_people,
            input_size=input_size,
            nms_threshold=nms_threshold,
            flip_test=flip_test,
            scales=scales,
            match_heatmap=match_heatmap,
            rescore=rescore,
            color=color,
        )
        loaded = self._load(image, options)
        raw = self._run([loaded], options)[0]
        return replace(self._poses(loaded, raw, options.score_threshold), image=loaded.pixels)

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
        raw = self._run([self._load(image, checked)], checked)[0]
        return raw.keypoints, raw.keypoint_scores, raw.scores

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
            images: whatever ``estimate`` takes, one by one.
            batch_size: most images in memory at once.
            on_error: "skip" answers an unreadable image with an empty ``Poses`` that has ``error``.
            options: as in ``estimate``.

        Yields:
            ``Poses`` with ``index``; the images themselves are not kept.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if on_error not in ("raise", "skip"):
            raise ValueError(f'on_error must be "raise" or "skip", got {on_error!r}')
        checked = self._options(**options)
        return self._stream(images, batch_size, on_error == "skip", checked)

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
            options: as in ``estimate``; ``color`` is that of arrays in an iterable.

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
        items = [self._load(frame, checked) for frame in frames]
        times = [None] * len(items) if timestamps is None else list(timestamps)
        if len(times) != len(items):
            raise ValueError(f"{len(items)} frames need as many timestamps, got {len(times)}")
        done: list[Poses] = []
        for _, pairs in groupby(zip(items, times, strict=True), key=lambda pair: pair[0].geometries[0].input_size):
            run, seconds = zip(*pairs, strict=True)
            recall = None
            if isinstance(self.model, TemporalDEKR):
                recall = Recall(self.model, state, [item.pixels for item in run], seconds)
            raws = self._run(list(run), checked, recall)
            done += [self._poses(item, raw, checked.score_threshold) for item, raw in zip(run, raws, strict=True)]
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
                source = str(item) if isinstance(item, (str, Path)) else None
                failed = Poses.empty(self.config.skeleton, (0, 0), source=source, error=str(error))
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
            raws = self._run([item for _, item in group], options)
            for (index, item), raw in zip(group, raws, strict=True):
                done[index] = self._poses(item, raw, options.score_threshold)
        for index, _ in pending:
            yield replace(done[index], index=index)

    def warmup(self, *, input_size: int | None = None) -> None:
        """Run once on a grey image, so that the first real one is not slower than the rest."""
        size = input_size or self.config.input_size
        self.estimate(np.full((size, size, 3), 128, np.uint8), input_size=size)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write model.safetensors, config.json and a model card, as ``from_pretrained`` reads them."""
        self._save(folder)

    def export(
        self,
        format: Literal["onnx", "openvino", "pt2"],
        path: str | Path,
        *,
        max_people: int = 30,
        half: bool = False,
        opset: int = 20,
        sampling: Literal["deform_conv", "grid_sample"] | None = None,
        offsets: Literal["map", "people"] = "map",
    ) -> Exported:
        """Write the network, and what reads people from it, as a file that runs without dekrpose; docs/export.md.

        ``from_pretrained`` takes such a file in place of weights. Before it appears it is run beside torch.

        Args:
            format: "onnx" (onnxruntime and others), "openvino" (.xml, with a .bin beside it) or "pt2" (torch.export).
            path: ends in .onnx, .xml or .pt2.
            max_people: places for people in the file's answer.
            half: OpenVINO stores weights as float16: half the size, keypoints move a little.
            opset: of ONNX.
            sampling: how adaptive convolutions are written; None is the fastest for the format. "grid_sample" makes
                ONNX files for runtimes without DeformConv.
            offsets: "people" computes offsets at people's centers alone: faster, for one scale and no flip test.

        Returns:
            The files, and how far their answers are from torch's.

        Raises:
            DekrPoseError: the file answers differently from torch, or the model cannot be exported; nothing is left.
            ImportError: a package is missing; the message says how to get it.
            ValueError: an option is out of range.
        """
        from dekrpose.export import export

        return export(
            self, format, path, max_people=max_people, half=half, opset=opset, sampling=sampling, offsets=offsets
        )

    def _save(self, folder: str | Path, repository: str | None = None) -> None:
        if isinstance(self.model, ExportedModel):
            raise self.model.refuse("saved as weights")
        rescoring = None if self.rescoring_net is None else self.rescoring_net.state_dict()
        models.save_folder(folder, self.config, self.model.state_dict(), rescoring, repository)

    def push_to_hub(
        self,
        repo: str,
        *,
        private: bool = False,
        token: str | None = None,
        revision: str | None = None,
        commit_message: str | None = None,
    ) -> str:
        """Upload model.safetensors, config.json and a model card to a Hugging Face repository, in one commit.

        Args:
            repo: "organisation/repository"; made if it does not exist.
            private: whether a new repository is hidden from others.
            token: None takes HF_TOKEN or the stored login.
            revision: branch, made if it does not exist; None is the main one.
            commit_message: what the history says.

        Returns:
            The address of the commit; ``from_pretrained(repo)`` loads it.

        Raises:
            DekrPoseError: no login, no right to write, or the host cannot be reached.
        """
        with TemporaryDirectory() as folder:
            self._save(folder, repo)
            return repositories.push_folder(
                Path(folder), repo, revision=revision, token=token, private=private, commit_message=commit_message
            )

    def _load(self, image: Any, options: Options) -> _Loaded:
        stages = Stages()
        with stages("read"):
            pixels, source = images.load(image, color=options.color)
        height, width = pixels.shape[:2]
        pixels.flags.writeable = False
        multiple = self.config.backbone.size_multiple
        geometries = tuple(Geometry.fit(height, width, options.input_size, scale, multiple) for scale in options.scales)
        return _Loaded(pixels, source, geometries, stages.milliseconds)

    def _run(self, batch: list[_Loaded], options: Options, recall: Recall | None = None) -> list[_Raw]:
        """Everything after reading, for images of equal input size; frames of a stream come with its memory."""
        found, timing = self.engine.find(
            [item.pixels for item in batch], [item.geometries for item in batch], options, recall
        )
        share = {stage: value / len(batch) for stage, value in timing.items()}
        return [self._raw(item, {**item.timing, **share}, own, options) for item, own in zip(batch, found, strict=True)]

    @torch.inference_mode()
    def _raw(self, item: _Loaded, timing: dict[str, float], found: Found, options: Options) -> _Raw:
        """Poses in input pixels as image pixels, and with the scoring net's scores."""
        start, scores = time.perf_counter(), found.scores
        points = item.geometries[0].to_image(found.keypoints.numpy())
        if options.rescore and self.rescoring_net is not None:
            edges = self.config.skeleton.edges
            scores = rescore(self.rescoring_net, torch.from_numpy(points), found.keypoint_scores, scores, edges)
        timing["decode"] += 1000 * (time.perf_counter() - start)
        return _Raw(points, found.keypoint_scores.numpy(), scores.numpy(), timing)

    def _poses(self, item: _Loaded, raw: _Raw, score_threshold: float) -> Poses:
        order = _shown(raw.scores, score_threshold)
        return Poses(
            keypoints=raw.keypoints[order],
            keypoint_scores=raw.keypoint_scores[order].clip(0, 1),
            scores=raw.scores[order].clip(0, 1),
            skeleton=self.config.skeleton,
            image_size=item.geometries[0].image_size,
            source=item.source,
            timing=raw.timing,
        )

    def _options(self, **options: Any) -> Options:
        has_net = self.rescoring_net is not None
        checked = resolve_options(self.config.decode, self.config.input_size, has_net, **options)
        self.engine.check(checked)
        return checked

    def __repr__(self) -> str:
        return (
            f"PoseEstimator({self.config.name!r}, {len(self.config.skeleton)} keypoints, "
            f"input_size={self.config.input_size}, device={str(self.device)!r})"
        )


def _shown(scores: NDArray[np.float32], threshold: float) -> NDArray[np.intp]:
    """Indices of the people to show: best first, or everyone in the official order without a threshold."""
    if threshold <= 0:
        return np.arange(len(scores))
    order = np.argsort(-scores, kind="stable")
    return order[scores[order] >= threshold]


def _rescoring(tensors: dict[str, Tensor] | None) -> OKSScoreNet | None:
    if tensors is None:
        return None
    with torch.device("meta"):  # real layers would draw from the caller's random numbers
        net = OKSScoreNet(tensors["l1.weight"].shape[1])
    net.load_state_dict({name: value.float() for name, value in tensors.items()}, assign=True)
    return net


@cache
def _mind_forks() -> None:
    """From now on processes forked from this one compute with one thread.

    The threads of torch and OpenCV do not live on in a forked process, which would wait for them for ever as soon as
    the parent has used them.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_one_thread)


def _one_thread() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(0)


def pick_device(device: str | torch.device) -> torch.device:
    """The device to run on: "auto" takes CUDA, then MPS, then the CPU.

    Raises:
        ValueError: it is no device, or this machine or this torch does not have it.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        picked = torch.device(device)
        torch.empty(0, device=picked)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split(". ")[0]
        raise ValueError(f'device must be "auto", "cpu", or one that is here, got {device!r}: {reason}') from error
    return picked


def _dtype(dtype: str | torch.dtype) -> torch.dtype:
    if dtype == "auto":
        return torch.float32
    if dtype not in _DTYPES:
        raise ValueError(f'dtype must be "auto", "float32", "bfloat16" or "float16", got {dtype!r}')
    return _DTYPES[dtype]
