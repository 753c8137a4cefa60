"""From the name or file given as --checkpoint to a PifPaf network that may be trusted."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..commit import sha256_of
from ..errors import CheckpointError

SYNTHETIC_PATH = Path(__file__).with_name("synthetic.safetensors")
OFFICIAL_INPUT_HEIGHT = 256  # crops of MARS as they are, smaller ones enlarged: COCO networks see few tiny people


@dataclass(frozen=True)
class ResolvedCheckpoint:
    """Where weights are, and what they are.

    Attributes:
        name: what the user asked for.
        path: the file on this machine.
        sha256: hash of the file.
        kind: "safetensors" (this project's) or "pickle" (openpifpaf's own).
        input_height: pixels that frames are resized to, unless the user says otherwise.
    """

    name: str
    path: Path
    sha256: str
    kind: str
    input_height: int


def resolve_checkpoint(name: str, *, trust: bool = False) -> ResolvedCheckpoint:
    """Find the file behind a name; fetches an official checkpoint that is not on this machine yet.

    Args:
        name: "synthetic", one of openpifpaf's names (such as "shufflenetv2k16"), or a file.
        trust: whether a pickle of unknown origin may be loaded; loading runs code from it.

    Raises:
        CheckpointError: unknown name, missing file, wrong hash, or a pickle that is not trusted.
    """
    from . import pifpaf

    official = pifpaf.official_urls()
    if name in official:
        path = _fetch(name, official[name])
        return ResolvedCheckpoint(name, path, sha256_of(path), "pickle", OFFICIAL_INPUT_HEIGHT)
    path = SYNTHETIC_PATH if name == "synthetic" else Path(name)
    if not path.is_file():
        raise CheckpointError(
            f"checkpoint {name!r} is neither a file nor a known name",
            "a file, 'synthetic', or one of " + ", ".join(sorted(official)),
        )
    digest = sha256_of(path)
    if path.suffix == ".safetensors":
        metadata = pifpaf.load_network(path)[1]
        return ResolvedCheckpoint(name, path, digest, "safetensors", int(metadata["input_height"]))
    known = {_hash_prefix(url) for url in official.values()}
    if digest[:8] not in known and not trust:
        raise CheckpointError(
            f"{path} has SHA-256 {digest[:16]}..., which is none of openpifpaf's official checkpoints",
            "an official one: a pickle can run any code while it is loaded",
            "add --trust-checkpoint if you know where the file comes from",
        )
    return ResolvedCheckpoint(name, path, digest, "pickle", OFFICIAL_INPUT_HEIGHT)


def load_checkpoint(resolved: ResolvedCheckpoint) -> Any:
    """The network, in eval mode on the CPU.

    Raises:
        CheckpointError: the file is not there, changed since it was resolved, or does not hold a network for people.
    """
    from . import pifpaf

    if not resolved.path.is_file():
        raise CheckpointError(
            f"{resolved.path} is not on the machine {platform.node()}",
            "the checkpoint under the same path on every machine",
            "put it on a shared file system and give that path as --checkpoint",
        )
    digest = sha256_of(resolved.path)
    if digest != resolved.sha256:
        raise CheckpointError(f"{resolved.path} has SHA-256 {digest[:16]}...", f"{resolved.sha256[:16]}...")
    if resolved.kind == "safetensors":
        return pifpaf.load_network(resolved.path)[0]
    return pifpaf.unpickle_network(resolved.path)


def _hash_prefix(url: str) -> str:
    return url.rsplit("-", 1)[1].removesuffix(".pkl")


def _fetch(name: str, url: str) -> Path:
    """openpifpaf's file of that name in torch's cache, fetched and checked if it is not there."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    prefix = _hash_prefix(url)
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
