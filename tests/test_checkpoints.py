"""From --checkpoint to a network: names, files, and pickles that run nothing unasked."""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from keyreid.pipeline.commit import sha256_of
from keyreid.pipeline.errors import CheckpointError
from keyreid.pipeline.pose import pifpaf
from keyreid.pipeline.pose.checkpoints import ResolvedCheckpoint, load_checkpoint, resolve_checkpoint


class Call:
    """Pickled as a call of a function."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


def save(path: Path, model: Any, **more: object) -> Path:
    """A file as openpifpaf's Trainer writes it."""
    arguments = {"device": torch.device("cuda"), "lr": 1e-3, "basenet": "x", "output": None}
    meta = {"args": arguments, "version": "0.13.11", "plugin_versions": {}, "hostname": "somewhere"}
    torch.save({"model": model, "epoch": 250, "meta": meta, **more}, path)
    return path


@pytest.mark.parametrize("base", ["mobilenetv2", "mobilenetv3small", "resnet50", "shufflenetv2x1", "shufflenetv2k16"])
def test_openpifpafs_own_networks_load_untrusted(base: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = pifpaf.build_network(base, 2)
    path = save(tmp_path / f"{base}.pkl.epoch250", model)
    loaded = load_checkpoint(resolve_checkpoint(str(path)))
    assert not loaded.training
    for ours, theirs in zip(loaded.head_metas, model.head_metas, strict=True):
        np.testing.assert_array_equal(ours.pose, theirs.pose)
        assert {**vars(ours), "pose": None} == {**vars(theirs), "pose": None}
    picture = torch.randn(1, 3, 65, 49)
    with torch.inference_mode():
        assert all(torch.equal(a, b) for a, b in zip(loaded(picture), model.eval()(picture), strict=True))


def test_a_forged_official_file_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight digits of a SHA-256 are forged in seconds: they find damage and grant nothing."""
    mark = tmp_path / "ran"
    (tmp_path / "checkpoints").mkdir()
    path = save(tmp_path / "new.pkl", Call(os.system, f"touch {mark}"))
    path = path.rename(tmp_path / f"checkpoints/resnet50-cocokp-{sha256_of(path)[:8]}.pkl")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(pifpaf, "official_urls", lambda: {"resnet50": f"https://example.org/{path.name}"})
    for name in ("resnet50", str(path)):
        with pytest.raises(CheckpointError, match=r"wants (posix|nt)\.system, which no network .*--trust-checkpoint"):
            resolve_checkpoint(name)
    assert not mark.exists()
    with pytest.raises(CheckpointError, match="cannot be read as an openpifpaf checkpoint"):
        resolve_checkpoint(str(path), trust=True)
    assert mark.exists(), "the command would have run"


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (Call(getattr, "x", "upper"), "getattr"),
        (Call(eval, "1 + 1"), "eval"),
        (functools.partial(print, "x"), r"functools\.partial"),
        (Call(torch.load, "other.pkl"), r"torch\.serialization\.load"),
        (np.array([{}, []], object), r"numpy\.dtype\.O8"),
        (Call(np.frombuffer, b"12345678"), "numpy"),
    ],
    ids=["getattr", "eval", "partial", "load", "objects", "frombuffer"],
)
def test_what_no_network_needs_is_refused_by_name(value: object, wanted: str, tmp_path: Path) -> None:
    path = save(tmp_path / "network.pkl", pifpaf.build_network("mobilenetv3small", 1), more=value)
    with pytest.raises(CheckpointError, match=f"wants .*{wanted}"):
        resolve_checkpoint(str(path))


@pytest.mark.parametrize("arguments", [((1,), "O", b"12345678"), ((1 << 40,),)], ids=["forged address", "8 TB"])
def test_arrays_are_made_of_bytes_of_the_file_alone(arguments: tuple[object, ...], tmp_path: Path) -> None:
    model = pifpaf.build_network("mobilenetv3small", 1)
    model.head_metas[0].pose = Call(np.ndarray, *arguments)
    pose = load_checkpoint(resolve_checkpoint(str(save(tmp_path / "network.pkl", model)))).head_metas[0].pose
    assert pose.shape == (0,)


class Missing(torch.nn.Module):
    """A layer of somebody's own."""


def test_a_layer_of_somebodys_own_is_loaded_only_when_trusted(tmp_path: Path) -> None:
    model = pifpaf.build_network("mobilenetv3small", 1)
    model.extra = Missing()
    allowed = set(torch.serialization.get_safe_globals())
    path = save(tmp_path / "network.pkl", model)
    with pytest.raises(CheckpointError, match=r"wants .*Missing, which no network of openpifpaf needs.*--trust"):
        resolve_checkpoint(str(path))
    assert isinstance(load_checkpoint(resolve_checkpoint(str(path), trust=True)).extra, Missing)
    assert set(torch.serialization.get_safe_globals()) == allowed, "the process allows no more than before"


def test_an_official_file_that_was_damaged_in_the_cache_or_cannot_be_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    assert all(url.startswith("https://github.com/") for url in pifpaf.official_urls().values())
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(CheckpointError, match=r"'resnet50' could not be fetched .*no route to host.*put it at"):
        resolve_checkpoint("resnet50")
    (tmp_path / "checkpoints" / pifpaf.official_urls()["resnet50"].rsplit("/", 1)[1]).write_bytes(b"not the real one")
    with pytest.raises(CheckpointError, match=r"starts with .*; expected ecd30da4; delete it"):
        resolve_checkpoint("resnet50")


def test_a_changed_bit_of_the_weights_is_noticed(tmp_path: Path) -> None:
    model = pifpaf.build_network("mobilenetv3small", 1)
    path = save(tmp_path / "network.pkl", model)
    content, weights = bytearray(path.read_bytes()), next(model.parameters()).detach().numpy().tobytes()
    content[content.index(weights)] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"cannot be read as an openpifpaf checkpoint .*data/0 is damaged"):
        resolve_checkpoint(str(path))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.safetensors", "does not hold a PifPaf network"),
        ("b.pkl", "cannot be read as an openpifpaf checkpoint"),
        ("resnet51", r"'.*resnet51' is neither a file nor a known name.*shufflenetv2k16"),
    ],
)
def test_files_that_are_no_checkpoints(tmp_path: Path, name: str, message: str) -> None:
    if "." in name:
        (tmp_path / name).write_bytes(b"not a network")
    with pytest.raises(CheckpointError, match=message):
        resolve_checkpoint(str(tmp_path / name), trust=True)
    elsewhere = ResolvedCheckpoint("mine", tmp_path / "mine.pkl", "ab", 256)
    with pytest.raises(CheckpointError, match=r"mine\.pkl is not on the machine .*the same path on every machine"):
        load_checkpoint(elsewhere)
