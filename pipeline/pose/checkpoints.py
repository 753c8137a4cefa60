"""From the name or file given as --checkpoint to a PifPaf network, without running code from the file."""

from __future__ import annotations

import platform
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import nn

from ..commit import sha256_of
from ..errors import CheckpointError
from ..skeleton import NUM_JOINTS

SYNTHETIC_PATH = Path(__file__).with_name("synthetic.safetensors")
OFFICIAL_INPUT_HEIGHT = 256  # crops of MARS as they are, smaller ones enlarged: COCO networks see few tiny people
SAFETENSORS = ".safetensors"
# Modules of torch.nn.modules that openpifpaf's networks are built from.
_LAYERS = (
    "activation", "batchnorm", "container", "conv", "dropout", "instancenorm", "linear", "normalization",
    "pixelshuffle", "pooling",
)  # fmt: skip


@dataclass(frozen=True)
class ResolvedCheckpoint:
    """What the user asked for, and its file: safetensors (this project's) or a pickle (openpifpaf's)."""

    name: str
    path: Path
    sha256: str
    input_height: int  # pixels that frames are resized to, unless the user says otherwise
    trusted: bool = False  # whether a pickle may hold anything, and so run any code


def resolve_checkpoint(name: str, *, trust: bool = False) -> ResolvedCheckpoint:
    """Find the file behind a name and load it once; fetches an official checkpoint that is not on this machine yet.

    Args:
        name: "synthetic", one of openpifpaf's names (such as "shufflenetv2k16"), or a file.
        trust: whether a pickle may hold more than openpifpaf's networks; loading it may then run any code.

    Raises:
        CheckpointError: unknown name, missing or damaged file, or a pickle that holds more and is not trusted.
    """
    from . import pifpaf

    official = pifpaf.official_urls()
    path = SYNTHETIC_PATH if name == "synthetic" else Path(name)
    if name in official:
        path = _fetch(name, official[name])
    if not path.is_file():
        raise CheckpointError(
            f"checkpoint {name!r} is neither a file nor a known name",
            "a file, 'synthetic', or one of " + ", ".join(sorted(official)),
        )
    digest = sha256_of(path)
    return ResolvedCheckpoint(name, path, digest, _load(path, trust)[1], trust)  # refused before any worker starts


def load_checkpoint(resolved: ResolvedCheckpoint) -> Any:
    """The network, in eval mode on the CPU.

    Raises:
        CheckpointError: the file is not there, changed since it was resolved, or does not hold a network for people.
    """
    if not resolved.path.is_file():
        raise CheckpointError(
            f"{resolved.path} is not on the machine {platform.node()}",
            "the checkpoint under the same path on every machine",
            "put it on a shared file system",
        )
    digest = sha256_of(resolved.path)
    if digest != resolved.sha256:
        raise CheckpointError(f"{resolved.path} has SHA-256 {digest[:16]}...", f"{resolved.sha256[:16]}...")
    return _load(resolved.path, resolved.trusted)[0]


def _load(path: Path, trusted: bool) -> tuple[Any, int]:
    """The network of a file, and the height in pixels that its frames are resized to."""
    from . import pifpaf

    if path.suffix == SAFETENSORS:
        return pifpaf.load_network(path)
    try:
        if zipfile.is_zipfile(path) and (damaged := zipfile.ZipFile(path).testzip()):  # torch compares no checksums
            raise ValueError(f"{damaged} is damaged")
        with torch.serialization.safe_globals(_allowed()):
            model = torch.load(path, map_location="cpu", weights_only=not trusted)["model"]
        pifpaf.network.model_migration.model_migration(model)
        cif, caf = model.head_metas[:2]
    except Exception as error:  # whatever a pickle of another origin may raise
        wanted = re.search(r"GLOBAL ([\w.]+)", str(error)) if isinstance(error, UnpicklingError) else None
        if wanted:
            raise CheckpointError(
                f"{path} wants {wanted[1]}, which no network of openpifpaf needs",
                "openpifpaf's networks and head metas, layers of torch and torchvision",
                "add --trust-checkpoint only if you know where the file comes from: it can then run any code",
            ) from error
        raise CheckpointError(
            f"{path} cannot be read as an openpifpaf checkpoint ({type(error).__name__}: {error})",
            "a file that openpifpaf 0.12 or 0.13 wrote",
        ) from error
    metas = pifpaf.headmeta
    if not (isinstance(cif, metas.Cif) and isinstance(caf, metas.Caf) and cif.n_fields == NUM_JOINTS):
        heads = [meta.name for meta in model.head_metas]
        raise CheckpointError(f"{path} has heads {heads}", "CIF and CAF of 17 COCO joints")
    return model.eval(), OFFICIAL_INPUT_HEIGHT


def _allowed() -> list[Any]:
    """What a pickle may name in addition to torch's own list of tensors and containers.

    The unpickler calls whatever is named here with arguments from the file, so nothing here may do more than make an
    object: layers, networks, head metas, and arrays of numbers in the place of numpy's own.
    """
    from torchvision import models, ops

    from .pifpaf import headmeta, network

    layers = [getattr(nn.modules, name) for name in _LAYERS]
    families = [models.mobilenetv2, models.mobilenetv3, models.resnet, models.shufflenetv2, models.squeezenet]
    modules = [*layers, *families, ops.misc, network.basenetworks, network.heads, network.nets]
    classes = [value for module in modules for value in vars(module).values() if isinstance(value, type)]
    allowed: list[Any] = [value for value in classes if issubclass(value, nn.Module)]
    allowed += [headmeta.Cif, headmeta.Caf, headmeta.CifDet]
    for core in ("core", "_core"):
        allowed.append(_known_as(f"numpy.{core}.multiarray._reconstruct", lambda *_: _NumberArray()))
    return [*allowed, _known_as("numpy.ndarray", _NumberArray), _known_as("numpy.dtype", _NumberType)]


def _known_as(name: str, value: Any) -> Any:
    """The value itself, which the unpickler finds by what it calls itself."""
    value.__module__, _, value.__name__ = name.rpartition(".")
    value.__qualname__ = value.__name__
    return value


class _NumberType:
    """numpy.dtype in a pickle: only numbers, since an array of objects could be made of forged addresses."""

    def __init__(self, name: str, *_: object) -> None:
        self.dtype = np.dtype(name)
        if self.dtype.kind not in "biuf":
            raise UnpicklingError(f"GLOBAL numpy.dtype.{name}")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _NumberArray(np.ndarray):
    """numpy.ndarray in a pickle: empty at first, then filled with bytes that must fit its shape."""

    def __new__(cls, *_: object) -> _NumberArray:
        return super().__new__(cls, 0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, content = state
        super().__setstate__((1, shape, kind.dtype, fortran, content))


def _fetch(name: str, url: str) -> Path:
    """openpifpaf's file of that name in torch's cache, fetched and checked if it is not there."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    prefix = url.rsplit("-", 1)[1].removesuffix(".pkl")  # finds damage; anybody can make a file that has it
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), hash_prefix=prefix)
        except (OSError, RuntimeError) as error:
            raise CheckpointError(
                f"checkpoint {name!r} could not be fetched from {url} ({error})",
                "a connection, or the file already on this machine",
                f"fetch it elsewhere and put it at {path}, or give its path as --checkpoint",
            ) from error
    found = sha256_of(path)[:8]
    if found != prefix:
        raise CheckpointError(f"{path} has a SHA-256 that starts with {found}", prefix, "delete it: it is damaged")
    return path
