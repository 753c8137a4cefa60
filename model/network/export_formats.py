"""The two formats of exported networks: how each is written, and how it is run again to be compared."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from keyreid.pipeline.errors import SettingsError

OUTPUTS = ("descriptor", "global_feature", "part_features", "visibility")
CONFIG_ENTRY = "config.json"  # the ModelConfig inside the file

Writer = Callable[[torch.export.ExportedProgram, Path, Sequence[str], str], None]
Runner = Callable[..., tuple[Tensor, ...]]


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
