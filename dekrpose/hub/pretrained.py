"""A model's way in and out of files and the hub: what an estimator does that no photo is part of."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, Self, cast

import torch

from dekrpose.architectures.contract import Network, architecture_of
from dekrpose.architectures.parts.poses import OKSScoreNet
from dekrpose.checkpoints import read_checkpoint, read_rescoring_net
from dekrpose.config import ModelConfig
from dekrpose.engines import EngineName, choose_engine
from dekrpose.engines.devices import mind_forks, pick_device, pick_dtype
from dekrpose.engines.file import Exported, ExportedModel, exported_device, is_exported, read_exported
from dekrpose.errors import CheckpointError, DekrPoseError, counted
from dekrpose.hub import models, repositories


class Pretrained:
    """A network with all that it runs with; it can be loaded, saved, exported and published.

    Attributes:
        engine: what runs the network, see ``engines``.
        config: the network's shape, skeleton and thresholds.
        rescoring_net: the net that predicts how good a pose is, or None.
        device: where it runs.
        dtype: of backbone and heatmap head; positions are always computed in float32.
    """

    def __init__(
        self,
        model: Network,
        *,
        rescoring_net: OKSScoreNet | None = None,
        device: str | torch.device = "cpu",
        dtype: str | torch.dtype = "auto",
        engine: EngineName = "auto",
    ) -> None:
        mind_forks()
        self.config: ModelConfig = model.config
        self.device = pick_device(device)
        self.dtype = pick_dtype(dtype)
        self.engine = choose_engine(model.eval().requires_grad_(False), self.device, self.dtype, engine)
        self.rescoring_net = rescoring_net.eval().requires_grad_(False) if rescoring_net is not None else None

    @property
    def model(self) -> Network:
        """The network: normalised (B, 3, H, W) -> heatmaps (B, K+1, H/4, W/4), offsets (B, 2K, H/4, W/4) of DEKR."""
        return cast(Network, self.engine.model)

    @model.setter
    def model(self, model: Network) -> None:
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
        trust_code: bool = False,
    ) -> Self:
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
            trust_code: load .pt2 files, which can run whatever code their author put inside; weights and the other
                exported formats run none.

        Raises:
            CheckpointError: the file is broken, foreign, or does not fit; or it is a .pt2, and ``trust_code`` is off.
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
            exported = read_exported(path, dtype=pick_dtype(dtype), trust_code=trust_code)
            model, rescoring = cast(Network, exported.model), exported.rescoring
        else:
            checkpoint = read_checkpoint(path)
            with torch.device("meta"):
                model = architecture_of(checkpoint.config).build(checkpoint.config)
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
        net = None if rescoring is None else OKSScoreNet.of(rescoring)
        return cls(model, rescoring_net=net, device=device, dtype=dtype, engine=engine)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write model.safetensors, config.json and a model card, as ``from_pretrained`` reads them."""
        self._save(folder)

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

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.config.name!r}, {counted(len(self.config.skeleton), 'keypoint')}, "
            f"input_size={self.config.input_size}, device={str(self.device)!r})"
        )
