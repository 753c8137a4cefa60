"""The real openpifpaf network and C++ decoder, called without its Predictor. The one importer of openpifpaf.

openpifpaf is AGPL-3.0-or-later and is needed by keypoint extraction alone.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..errors import CheckpointError
from ..skeleton import NUM_JOINTS
from .forward import FastForward
from .frames import prepare_frame

if not hasattr(matplotlib.cm, "get_cmap"):  # removed in matplotlib 3.9; openpifpaf's visualizer names it at import
    matplotlib.cm.get_cmap = matplotlib.colormaps.get_cmap  # type: ignore[assignment]

try:
    import openpifpaf
    from openpifpaf import decoder, encoder, headmeta, network, plugins
except ImportError as error:
    raise CheckpointError(
        f"openpifpaf cannot be imported ({error})",
        "openpifpaf 0.13.11, which keypoint extraction needs",
        "run `make setup`, or the command under 'Installing' in README.md",
    ) from error

# Fixed, and part of the receipt: what the authors' thresholds of 0.005 and 0.1 come after (method, part 2).
DECODER_THRESHOLDS = {"cif": 0.3, "seed": 0.2, "keypoint": 0.15, "instance": 0.15}


@dataclass(frozen=True)
class Person:
    """One detected person: score 0 to 1; keypoints float32 (17, 3): x, y in pixels of the frame, confidence."""

    score: float
    keypoints: np.ndarray


def build_network(base_name: str, upsample_stride: int) -> Any:
    """An openpifpaf network for COCO people with random weights: a Shell with a CIF and a CAF head.

    Args:
        base_name: openpifpaf's name of the base network, such as "mobilenetv3small".
        upsample_stride: how much finer than the base network's stride the fields are.
    """
    for base_type in network.factory.BASE_TYPES:
        if hasattr(base_type, "pretrained"):
            base_type.pretrained = False  # the default downloads weights
    if base_name not in network.factory.BASE_FACTORIES:
        raise CheckpointError(
            f"base network {base_name!r}", "one of " + ", ".join(sorted(network.factory.BASE_FACTORIES))
        )
    constants = plugins.coco.constants
    shared = {
        "keypoints": constants.COCO_KEYPOINTS,
        "sigmas": constants.COCO_PERSON_SIGMAS,
        "pose": constants.COCO_UPRIGHT_POSE,
    }
    skeleton = constants.COCO_PERSON_SKELETON
    weights = constants.COCO_PERSON_SCORE_WEIGHTS
    cif = headmeta.Cif("cif", "cocokp", score_weights=weights, draw_skeleton=skeleton, **shared)
    caf = headmeta.Caf("caf", "cocokp", skeleton=skeleton, **shared)
    cif.upsample_stride = caf.upsample_stride = upsample_stride
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="torchvision")  # openpifpaf calls torchvision as of 2022
        return network.Factory(base_name=base_name).from_scratch([cif, caf])


def encoders(model: Any) -> tuple[Any, Any]:
    """openpifpaf's own target encoders for the two heads of a network made by build_network."""
    cif, caf = model.head_metas
    return encoder.Cif(cif, bmin=0.1), encoder.Caf(caf, bmin=0.1)


def training_loss(model: Any) -> Any:
    """openpifpaf's own composite loss over the two heads, every term with weight 1."""
    losses = network.losses
    return losses.multi_head.MultiHeadLoss(
        [losses.composite.CompositeLoss.factory_from_headmeta(meta) for meta in model.head_metas], None
    )


def save_network(model: Any, path: Path, metadata: dict[str, Any]) -> None:
    """Write the weights as float16 safetensors; `metadata` names base_name, upsample_stride and input_height.

    The buffers of batch normalisation stay float32: float16 loses small variances.
    """
    buffers = {name for name, _ in model.named_buffers()}
    state = {
        name: (value if name in buffers else value.half()).contiguous() for name, value in model.state_dict().items()
    }
    save_file(state, path, metadata={"keyreid_pifpaf": json.dumps(metadata, sort_keys=True)})


def load_network(path: Path) -> tuple[Any, dict[str, Any]]:
    """Read what save_network wrote: the network in eval mode, and the metadata."""
    try:
        with safe_open(path, "pt") as file:
            metadata = json.loads((file.metadata() or {})["keyreid_pifpaf"])
        model = build_network(metadata["base_name"], metadata["upsample_stride"])
        state = {name: value.float() if value.is_floating_point() else value for name, value in load_file(path).items()}
        model.load_state_dict(state)
    except (KeyError, RuntimeError, ValueError, OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} does not hold a PifPaf network of this project ({str(error).splitlines()[0]})",
            "safetensors written by benchmarks/train_synthetic_pifpaf.py",
        ) from error
    return model.eval(), metadata


def unpickle_network(path: Path) -> Any:
    """The network in one of openpifpaf's own checkpoints. Runs code from the file: only for files that are trusted."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=False)
        model = checkpoint["model"]
        network.model_migration.model_migration(model)
        cif, caf = model.head_metas[:2]
        fine = isinstance(cif, headmeta.Cif) and isinstance(caf, headmeta.Caf) and cif.n_fields == NUM_JOINTS
    except Exception as error:  # whatever a pickle of another origin may raise
        raise CheckpointError(
            f"{path} cannot be read as an openpifpaf checkpoint ({type(error).__name__}: {error})",
            "a file that openpifpaf 0.12 or 0.13 wrote",
        ) from error
    if not fine:
        raise CheckpointError(f"{path} has heads {[m.name for m in model.head_metas]}", "CIF and CAF of 17 COCO joints")
    return model.eval()


def official_urls() -> dict[str, str]:
    """Name -> address of openpifpaf's own checkpoints for people; the file name ends in 8 digits of its SHA-256."""
    openpifpaf.plugin.register()
    return {name: url for name, url in openpifpaf.CHECKPOINT_URLS.items() if isinstance(url, str) and "-cocokp-" in url}


class PifPafEstimator:
    """People in the frames of tracklets, by a PifPaf network.

    Args:
        model: a network of openpifpaf, in eval mode.
        input_height: pixels that a frame's height is resized to before the network.
        device: "cpu" or "cuda".
        batch_size: frames in one forward pass.
    """

    def __init__(self, model: Any, input_height: int, device: str = "cpu", batch_size: int = 32) -> None:
        self._forward = FastForward(model, device)
        self._cif, self._caf = model.head_metas[:2]
        self._input_height, self._batch_size = input_height, batch_size
        _set_thresholds()

    def estimate(self, tracklets: Sequence[Sequence[np.ndarray]]) -> list[list[list[Person]]]:
        """Find the people in the frames of some tracklets.

        Frames of one size go through the network together, whatever tracklet they are of; a finished tracklet is
        decoded in a thread while the network goes on. The decoder is made anew for each tracklet: openpifpaf's keeps a
        float32 accumulator from image to image, so only this makes the result a function of the tracklet.

        Args:
            tracklets: for each its frames, uint8 (H, W, 3) RGB, of any size.

        Returns:
            For each tracklet and frame its people, best score first, possibly none.
        """
        places = [(number, index) for number, frames in enumerate(tracklets) for index in range(len(frames))]
        prepared = [prepare_frame(tracklets[number][index], self._input_height) for number, index in places]
        fields: list[dict[int, list[Tensor]]] = [{} for _ in tracklets]
        decoded: list[Future[list[list[Person]]] | None] = [None for _ in tracklets]
        with ThreadPoolExecutor(1) as pool:
            for rows in _same_sized(prepared, self._batch_size):
                heads = self._forward(torch.stack([prepared[row] for row in rows]))
                for position, row in enumerate(rows):
                    number, index = places[row]
                    fields[number][index] = [head[position].contiguous() for head in heads[:2]]
                    if len(fields[number]) == len(tracklets[number]):
                        decoded[number] = pool.submit(self._decode, tracklets[number], fields[number])
            return [[] if future is None else future.result() for future in decoded]

    def _decode(self, frames: Sequence[np.ndarray], fields: dict[int, list[Tensor]]) -> list[list[Person]]:
        cif_caf = decoder.CifCaf([self._cif], [self._caf])
        return [
            self._people(cif_caf(fields.pop(index)), frame.shape[0] / self._input_height)
            for index, frame in enumerate(frames)
        ]

    def _people(self, annotations: list[Any], scale: float) -> list[Person]:
        people = []
        for annotation in annotations:
            keypoints = annotation.data.astype(np.float32)
            keypoints[:, :2] *= scale
            people.append(Person(float(annotation.score), keypoints))
        return sorted(people, key=lambda person: -person.score)


def _same_sized(prepared: Sequence[Tensor], batch_size: int) -> list[list[int]]:
    """Indices in batches of one shape each, in order."""
    by_shape: dict[torch.Size, list[int]] = {}
    for index, picture in enumerate(prepared):
        by_shape.setdefault(picture.shape, []).append(index)
    return [
        indices[start : start + batch_size]
        for indices in by_shape.values()
        for start in range(0, len(indices), batch_size)
    ]


def _set_thresholds() -> None:
    """openpifpaf keeps its thresholds in the process: set all of them, whatever ran before."""
    cpp = torch.classes.openpifpaf_decoder
    torch.ops.openpifpaf.set_quiet(True)
    decoder.utils.CifHr.set_threshold(DECODER_THRESHOLDS["cif"])
    decoder.utils.CifSeeds.set_threshold(DECODER_THRESHOLDS["seed"])
    decoder.utils.nms.Keypoints.set_instance_threshold(DECODER_THRESHOLDS["instance"])
    decoder.utils.nms.Keypoints.set_keypoint_threshold(DECODER_THRESHOLDS["keypoint"])
    cpp.CifCaf.set_keypoint_threshold(DECODER_THRESHOLDS["keypoint"])
