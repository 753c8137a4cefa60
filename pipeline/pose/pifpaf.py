"""The real openpifpaf network and C++ decoder, called without its Predictor. The one importer of openpifpaf.

openpifpaf is AGPL-3.0-or-later and is needed by keypoint extraction alone.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice, starmap
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from ..errors import CheckpointError
from .forward import DecoderSettings, FastForward, Picture
from .selection import Person

if not hasattr(matplotlib.cm, "get_cmap"):  # removed in matplotlib 3.9; openpifpaf's visualizer names it at import
    matplotlib.cm.get_cmap = matplotlib.colormaps.get_cmap  # type: ignore[assignment]

try:
    import openpifpaf
    from openpifpaf import decoder, headmeta, network, plugins
except ImportError as error:
    raise CheckpointError(
        f"openpifpaf cannot be imported ({error})",
        "openpifpaf 0.13.11, which keypoint extraction needs",
        "run `make setup`, or the command under 'Installing' in README.md",
    ) from error

CHUNK = 256  # pictures among which those of one size are looked for
_RELATIVE_THRESHOLD = 0.5  # openpifpaf's default for a joint next to the one it was reached from


def build_network(base_name: str, upsample_stride: int) -> Any:
    """An openpifpaf network for COCO people with random weights: a Shell with a CIF and a CAF head.

    Args:
        base_name: openpifpaf's name of the base network, such as "mobilenetv3small".
        upsample_stride: how much finer than the base network's stride the fields are.
    """
    for base_type in network.factory.BASE_TYPES:
        if hasattr(base_type, "pretrained"):
            base_type.pretrained = False  # the default downloads weights
    known = network.factory.BASE_FACTORIES
    if base_name not in known:
        raise CheckpointError(f"base network {base_name!r}", "one of " + ", ".join(sorted(known)))
    coco = plugins.coco.constants
    body = {"keypoints": coco.COCO_KEYPOINTS, "sigmas": coco.COCO_PERSON_SIGMAS, "pose": coco.COCO_UPRIGHT_POSE}
    skeleton, weights = coco.COCO_PERSON_SKELETON, coco.COCO_PERSON_SCORE_WEIGHTS
    cif = headmeta.Cif("cif", "cocokp", score_weights=weights, draw_skeleton=skeleton, **body)
    caf = headmeta.Caf("caf", "cocokp", skeleton=skeleton, **body)
    cif.upsample_stride = caf.upsample_stride = upsample_stride
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="torchvision")  # openpifpaf calls torchvision as of 2022
        return network.Factory(base_name=base_name).from_scratch([cif, caf])


def load_network(path: Path) -> tuple[Any, int]:
    """Read what tools/train_synthetic_pifpaf.py wrote: the network in eval mode, and its frames' height in pixels."""
    try:
        with safe_open(path, "pt") as file:
            metadata = json.loads((file.metadata() or {})["keyreid_pifpaf"])
        model = build_network(metadata["base_name"], metadata["upsample_stride"])
        state = {name: value.float() if value.is_floating_point() else value for name, value in load_file(path).items()}
        model.load_state_dict(state)
        return model.eval(), int(metadata["input_height"])
    except (KeyError, TypeError, RuntimeError, ValueError, OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} does not hold a PifPaf network of this project ({str(error).splitlines()[0]})",
            "safetensors written by tools/train_synthetic_pifpaf.py",
        ) from error


def official_urls() -> dict[str, str]:
    """Name -> address of openpifpaf's own checkpoints for people; the file name ends in 8 digits of its SHA-256."""
    openpifpaf.plugin.register()
    return {
        name: "https://" + url.partition("://")[2]  # openpifpaf names them by http
        for name, url in openpifpaf.CHECKPOINT_URLS.items()
        if isinstance(url, str) and "-cocokp-" in url
    }


class PifPafEstimator:
    """People in the pictures of tracklets, by a PifPaf network.

    Args:
        model: a network of openpifpaf, in eval mode.
        device: "cpu", or a CUDA device.
        batch_size: pictures in one forward pass; None: as many as suit the device.
        decoder: thresholds; openpifpaf keeps them in the process, so two estimators share those of the later one.
    """

    def __init__(
        self, model: Any, device: str = "cpu", batch_size: int | None = None, decoder: DecoderSettings | None = None
    ) -> None:
        self._forward = FastForward(model, device)
        self._cif, self._caf = model.head_metas[:2]
        self._batch_size = batch_size
        _configure_decoder(decoder or DecoderSettings())

    def estimate(self, pictures: Iterable[tuple[int, Picture | None]]) -> Iterator[list[Person] | None]:
        """Find the people in the pictures of tracklets, one after the other.

        Pictures of one size go through the network together, whatever tracklet they are of; those of the batch before
        are decoded in a thread meanwhile. That thread has nothing to do while this one runs Python: two that want
        Python's lock wait for each other. Each tracklet gets a decoder of its own: openpifpaf's keeps a float32
        accumulator from image to image, so only this makes the result a function of the tracklet.

        Args:
            pictures: tracklet and picture, tracklet by tracklet; None in the place of a frame that could not be read.

        Yields:
            For each picture in turn its people, best score first, possibly none; None for None. A failure of the
            network or the decoder is raised as it is: it says nothing about a picture.
        """
        tracklet_now, its_decoder = None, None
        ready: list[tuple[Any, list[Tensor], int, Picture | None]] = []  # arguments of _decode
        with ThreadPoolExecutor(1) as pool:
            stream = iter(pictures)
            while chunk := list(islice(stream, CHUNK)):
                heads: dict[int, tuple[list[Tensor], int]] = {}
                done = 0
                for rows in self._same_sized([picture for _, picture in chunk]):
                    decoding = pool.submit(list, starmap(_decode, ready))
                    batch = [picture.pixels for row in rows if (picture := chunk[row][1]) is not None]
                    fields = self._forward(torch.stack(batch))[:2] if batch else []
                    yield from decoding.result()
                    heads.update({row: (fields, position) for position, row in enumerate(rows)})
                    ready = []
                    while done < len(chunk) and (done in heads or chunk[done][1] is None):
                        tracklet, picture = chunk[done]
                        if tracklet != tracklet_now:
                            tracklet_now, its_decoder = tracklet, decoder.CifCaf([self._cif], [self._caf])
                        ready.append((its_decoder, *heads.pop(done, ([], 0)), picture))
                        done += 1
            yield from starmap(_decode, ready)

    def _same_sized(self, pictures: Sequence[Picture | None]) -> list[list[int]]:
        """Indices in batches of one shape each, in order; never empty: unreadable frames are passed on."""
        by_shape: dict[torch.Size, list[int]] = {}
        for index, picture in enumerate(pictures):
            if picture is not None:
                by_shape.setdefault(picture.pixels.shape, []).append(index)
        batches = []
        for shape, indices in by_shape.items():
            size = self._batch_size or self._forward.suitable_batch(shape)
            batches += [indices[start : start + size] for start in range(0, len(indices), size)]
        return batches or [[]]


def _decode(cif_caf: Any, heads: list[Tensor], position: int, picture: Picture | None) -> list[Person] | None:
    """The people of a picture, whose fields are at a position of a batch's, by the decoder of its tracklet."""
    if picture is None:
        return None
    people = []
    for annotation in cif_caf([head[position].contiguous() for head in heads]):
        keypoints = annotation.data.astype(np.float32)
        keypoints[:, :2] /= np.float32(picture.scale)
        people.append(Person(float(annotation.score), keypoints))
    return sorted(people, key=lambda person: -person.score)


def _configure_decoder(settings: DecoderSettings) -> None:
    """openpifpaf keeps its thresholds in the process: set all of them, whatever ran before.

    As its own configuration does it: a person that is completed by force loses no joint to a threshold.
    """
    cif_caf = torch.classes.openpifpaf_decoder.CifCaf
    keypoint = 0.0 if settings.force_complete else settings.keypoint
    torch.ops.openpifpaf.set_quiet(True)
    decoder.utils.CifHr.set_threshold(settings.cif)
    decoder.utils.CifSeeds.set_threshold(settings.seed)
    decoder.utils.nms.Keypoints.set_instance_threshold(settings.instance)
    decoder.utils.nms.Keypoints.set_keypoint_threshold(keypoint)
    cif_caf.set_force_complete(settings.force_complete)
    cif_caf.set_keypoint_threshold(min(keypoint, settings.seed))
    cif_caf.set_keypoint_threshold_rel(0.0 if settings.force_complete else _RELATIVE_THRESHOLD)
