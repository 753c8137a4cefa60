"""The network as a file that needs neither this package nor Python: torch.export's .pt2, or ONNX.

Both come from one exported program with a free batch size. A file is read again and compared with the network before
it gets its name, so what stands at the path computes what the network does.
"""

from __future__ import annotations

import copy
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from keyreid.pipeline.commit import commit_file
from keyreid.pipeline.errors import CheckpointError, KeyReIDError, SettingsError
from keyreid.pipeline.skeleton import NUM_PARTS

from .keyreid import KeyReID, concatenate

INPUTS = ("frames", "part_weights", "cameras")
OUTPUTS = ("descriptor", "global_feature", "part_features", "visibility")
CONFIG_ENTRY = "config.json"  # the ModelConfig inside the file
BATCHES = (1, 5)
LARGEST_BATCH = 1 << 20  # torch 2.6 refuses a batch without an end
LARGEST_DIFFERENCE = 1e-4  # of the largest value of an output; float32 in another order of sums stays far below
ONNX_LIMIT = 2 * 10**9  # bytes that protobuf can hold, a little less than 2 GiB

Writer = Callable[[torch.export.ExportedProgram, Path, Sequence[str], str], None]
Runner = Callable[..., tuple[Tensor, ...]]


class DescribingNetwork(nn.Module):
    """What is exported: `KeyReID.describe` and the descriptor, as plain tensors."""

    def __init__(self, model: KeyReID) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor, part_weights: Tensor, cameras: Tensor | None = None) -> tuple[Tensor, ...]:
        """The OUTPUTS: descriptor (B, C + P * D), and the fields of ClipDescriptors, for pooling over clips.

        Args:
            frames, part_weights: as in `KeyReID.forward`.
            cameras: likewise; left out where the network has no camera embedding.
        """
        if cameras is None:
            cameras = torch.zeros_like(part_weights[:, 0, 0, 0], dtype=torch.int64)
        clips = self.model.describe(frames, part_weights, cameras)
        return (
            concatenate(clips, self.model.config), clips.global_feature, clips.part_features, clips.visibility,
        )  # fmt: skip


@dataclass(frozen=True)
class ExportedFile:
    """What was written.

    Attributes:
        path: where.
        inputs: names, in order.
        num_bytes: size of the file.
        difference: the largest to the network itself, relative to the largest value of the output it was found in.
    """

    path: Path
    inputs: tuple[str, ...]
    num_bytes: int
    difference: float

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "path": str(self.path)}


def export_model(model: KeyReID, path: Path) -> ExportedFile:
    """Write the network and compare what was written with it, at batches of 1 and 5, on random input.

    Args:
        model: any device and mode; it is not changed. The file is in float32, for any batch size.
        path: ends in .pt2 (torch.export) or .onnx.

    Raises:
        SettingsError: another ending, the packages for ONNX are missing, or the network is too large for one ONNX file.
        CheckpointError: the network cannot be exported, or the file computes something else; what stood at `path`
            still does.
    """
    write, load = format_of(path)
    network = DescribingNetwork(copy.deepcopy(model).cpu().float()).eval()
    _check_size(network, path)
    with _explained(path):
        program = _trace(network)
    differences: list[float] = []

    def write_and_check(partial: Path) -> None:
        with _explained(path):
            write(program, partial, _input_names(network), json.dumps(model.config.to_dict()))
            differences.extend(_difference(network, load(partial), batch, path) for batch in BATCHES)

    commit_file(path, write_and_check)
    return ExportedFile(path, _input_names(network), path.stat().st_size, max(differences))


def random_clips(model: KeyReID, num_clips: int, seed: int = 0) -> tuple[Tensor, ...]:
    """Inputs in the ranges that `KeyReID.forward` states; without cameras where the network does not look at them."""
    generator = torch.Generator().manual_seed(seed)
    config, (rows, columns) = model.config, model.patch_grid
    shape = (num_clips, config.clip_length)
    frames = 2 * torch.rand(*shape, 3, *config.frame_size, generator=generator) - 1
    weights = torch.rand(*shape, rows * columns, NUM_PARTS, generator=generator)
    weights = 2 * weights - 1 if config.variant == "reference" else weights
    if not config.camera_scale:
        return frames, weights
    return frames, weights, torch.randint(0, config.num_cameras, (num_clips,), generator=generator)


def _input_names(network: DescribingNetwork) -> tuple[str, ...]:
    return INPUTS if network.model.config.camera_scale else INPUTS[:2]


def _trace(network: DescribingNetwork) -> torch.export.ExportedProgram:
    clips = random_clips(network.model, 2)  # a batch of 1 would be taken for a fixed size
    batch = torch.export.Dim("batch", min=1, max=LARGEST_BATCH)
    shapes = {name: {0: batch} for name in _input_names(network)}
    with torch.no_grad():
        return torch.export.export(network, clips, dynamic_shapes=shapes, strict=False)


def _difference(network: DescribingNetwork, written: Runner, num_clips: int, path: Path) -> float:
    clips = random_clips(network.model, num_clips, seed=num_clips)
    with torch.no_grad():
        wanted, found = network(*clips), written(*clips)
    largest = 0.0
    for name, ours, theirs in zip(OUTPUTS, wanted, found, strict=True):
        same_shape = ours.shape == theirs.shape
        difference = float((ours - theirs).abs().max() / ours.abs().max().clamp_min(1e-12)) if same_shape else 0.0
        if not same_shape or not difference <= LARGEST_DIFFERENCE:  # NaN is no agreement
            raise CheckpointError(
                f"{name} of the network as written to {path} differs by {difference:.1e} (relative) for {num_clips} "
                f"clips, in shape {tuple(theirs.shape)}",
                f"at most {LARGEST_DIFFERENCE:.0e}, in shape {tuple(ours.shape)}",
                "nothing was kept; try the other format, or another version of torch or onnxruntime",
            )
        largest = max(largest, difference)
    return largest


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Exporters and what runs their files raise errors of many families."""
    try:
        yield
    except (KeyReIDError, OSError):
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        raise CheckpointError(
            f"the network could not be written to {path}, or what was written not run "
            f"({type(error).__name__}: {reason})",
            "",
            "nothing was kept; try the other format, or another version of torch or onnxruntime",
        ) from error


def _check_size(network: nn.Module, path: Path) -> None:
    num_bytes = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    if path.suffix == ".onnx" and num_bytes > ONNX_LIMIT:
        raise SettingsError(
            f"a network of {num_bytes / 1e9:.1f} GB", "at most 2 GB in one ONNX file", "export to .pt2 instead"
        )


def format_of(path: Path) -> tuple[Writer, Callable[[Path], Runner]]:
    """What writes a program, with its input names and config, to a file of this ending, and what runs the file.

    Raises:
        SettingsError: an unknown ending, or the packages for ONNX are missing.
    """
    if path.suffix == ".pt2":
        return _write_pt2, _load_pt2
    if path.suffix != ".onnx":
        raise SettingsError(f"{path} ends in {path.suffix or 'nothing'}", ".pt2 (torch.export) or .onnx")
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise SettingsError(
            f"ONNX needs {', '.join(missing)}, not installed here",
            "",
            'pip install "keyreid[export]", or export to .pt2',
        )
    return _write_onnx, _load_onnx


def _write_pt2(program: torch.export.ExportedProgram, path: Path, inputs: Sequence[str], config: str) -> None:
    with open(path, "wb") as file:  # an open file, because torch wants paths to end in .pt2
        torch.export.save(program, file, extra_files={CONFIG_ENTRY: config})


def _load_pt2(path: Path) -> Runner:
    with open(path, "rb") as file, _quiet():
        return torch.export.load(file).module()


def _write_onnx(program: torch.export.ExportedProgram, path: Path, inputs: Sequence[str], config: str) -> None:
    with _quiet():
        written = torch.onnx.export(program, dynamo=True, verbose=False, input_names=inputs, output_names=list(OUTPUTS))
    assert written is not None  # None is what the older exporter gives
    written.model.metadata_props[CONFIG_ENTRY] = config
    written.save(str(path))


def _load_onnx(path: Path) -> Runner:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def run(*clips: Tensor) -> tuple[Tensor, ...]:
        fed = {name: tensor.numpy() for name, tensor in zip(names, clips, strict=True)}
        return tuple(map(torch.from_numpy, session.run(list(OUTPUTS), fed)))

    return run


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's warnings about itself, and onnxscript's about each operator that it leaves as it is."""
    logger = logging.getLogger("onnxscript")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
