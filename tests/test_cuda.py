"""What only a CUDA device can show; skipped without one, and in need of neither Dask nor openpifpaf.

Where the package is not installed: mkdir -p /tmp/site/keyreid && ln -s $PWD/{pipeline,model,cli} /tmp/site/keyreid/ &&
PYTHONPATH=/tmp/site python -m pytest tests/test_cuda.py
"""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from evaluation_dataset import make_prepared as make_striped
from evaluation_dataset import save_tiny_model, tiny_model
from loader_fixtures import load, same
from prepared_dataset import make_prepared
from training_fixtures import CPU, TINY, assignments, records

from keyreid.cli.evaluate import main as evaluate
from keyreid.cli.train import main as train_command
from keyreid.model.data.augment import AugmentSettings, augment_batch
from keyreid.model.embedding.embed import embed
from keyreid.model.embedding.file import load_descriptors
from keyreid.model.embedding.settings import EmbeddingSettings
from keyreid.model.embedding.tracklets import Compute
from keyreid.model.evaluation.distances import cosine_distances, squared_distances
from keyreid.model.training import state as training_state
from keyreid.model.training.config import resolve_config
from keyreid.model.training.inputs import open_inputs
from keyreid.model.training.state import build_state
from keyreid.model.training.step import train_step
from keyreid.model.training.trainer import train
from keyreid.pipeline.errors import KeyReIDError
from keyreid.pipeline.store import TrackletStore

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
CUDA = torch.device("cuda")
# What is drawn on the device itself differs from the CPU's draws.
STEADY = ("model.stem=patch", "model.drop_path=0", "model.shift_share=0", "model.shuffle_share=0")
VARIANTS = ((), ("model.part_pooling=attention",), ("model.variant=reference",))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return make_prepared(tmp_path_factory.mktemp("tiny"))


def losses(prepared, device, *options):
    """Loss terms of each step of two epochs, at a rate that moves the weights."""
    config = resolve_config("vit-small", assignments=[*TINY, *STEADY, "training.warmup_rate=0.01", *options])
    inputs = open_inputs(prepared, config, device=device, num_workers=0, identity_split=0)
    state = build_state(config.model_config(inputs.labels), config.training, device)
    batches = [batch for epoch in range(2) for batch in inputs.loader.epoch(epoch)]
    terms = [torch.stack(list(train_step(state, batch.to(device), config, 0))).detach() for batch in batches]
    return torch.stack(terms).cpu()


@pytest.mark.parametrize("options", VARIANTS)
def test_float32_trains_as_on_a_cpu(prepared, options):
    options = (*options, "training.mixed_precision=false")
    with torch.backends.cudnn.flags(allow_tf32=False):
        here = losses(prepared, CUDA, *options)
    torch.testing.assert_close(here, losses(prepared, CPU, *options), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("options", [*VARIANTS, ("training.checkpoint_blocks=1",), ("training.clip_gradient=1.0",)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_trains_nearly_as_float32(prepared, monkeypatch, dtype, options):
    """In its first step; float16 skips steps until its scaler has found a scale."""
    expected = losses(prepared, CPU, *options)
    monkeypatch.setattr(training_state, "compute_dtype", lambda device, mixed: dtype)
    found = losses(prepared, CUDA, *options)
    assert found.isfinite().all()
    torch.testing.assert_close(found[0], expected[0], rtol=0.05, atol=0.05)


@pytest.mark.parametrize("mode", ["auto", "reduce-overhead"])
@pytest.mark.parametrize("options", [(), ("training.checkpoint_blocks=1",), ("model.part_pooling=attention",)])
def test_a_compiled_network_trains_alike(prepared, mode, options):
    options = (*options, "training.mixed_precision=false")
    compiled = losses(prepared, CUDA, *options, f"training.compile={mode}")
    torch.testing.assert_close(compiled, losses(prepared, CUDA, *options), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("options", [(), ("training.clip_gradient=1.0",), ("training.checkpoint_blocks=1",)])
def test_a_step_never_waits_for_the_device(prepared, options):
    config = resolve_config("vit-small", assignments=[*TINY, "model.stem=patch", *options])
    inputs = open_inputs(prepared, config, device=CUDA, num_workers=0, identity_split=0)
    state = build_state(config.model_config(inputs.labels), config.training, CUDA)
    first, second = list(inputs.loader.epoch(0))[:2]
    train_step(state, first.to(CUDA), config, 0)
    second = second.to(CUDA)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        terms = train_step(state, second, config, 0)
        state.average.update(1)
        with pytest.raises(RuntimeError, match="synchroniz"):
            float(terms.total.detach())
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_augmentation_is_that_of_a_cpu():
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (4, 4, 3, 64, 32), generator=generator, dtype=torch.uint8)
    heatmaps = torch.randint(0, 256, (4, 4, 6, 64, 32), generator=generator, dtype=torch.uint8)
    drawn = [
        augment_batch(
            frames.to(device), heatmaps.to(device), AugmentSettings(),
            torch.Generator().manual_seed(1), (64, 32), (16, 8), "aligned",
        )
        for device in (CUDA, CPU)
    ]  # fmt: skip
    for here, there in zip(*drawn, strict=True):
        torch.testing.assert_close(here.cpu(), there, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_reach_the_device_from_pinned_memory(prepared, workers):
    store = TrackletStore(prepared)
    pinned = load(store, num_workers=workers, pin_memory=True)
    assert all(batch.frames.is_pinned() and batch.heatmaps.is_pinned() for batch in pinned)
    assert same([batch.to(CUDA).to(CPU) for batch in pinned], load(store))


@pytest.mark.parametrize("variant", ["aligned", "reference"])
@pytest.mark.parametrize("float32", [False, True])
def test_descriptors(tmp_path, variant, float32):
    store = TrackletStore(make_striped(tmp_path / "prepared"))
    tracklets, settings = store.tracklets("query", "gallery"), EmbeddingSettings(flip=True)
    described = []
    for device in (CUDA, CPU):
        compute = Compute(batch_size=3, num_workers=2, mixed_precision=not float32)
        path = tmp_path / f"{device.type}.h5"
        embed(tiny_model(variant=variant).to(device), store, tracklets, path, settings, compute)
        described.append(load_descriptors(path).values)
    apart = np.linalg.norm(described[0] - described[1], axis=1) / np.linalg.norm(described[1], axis=1)
    assert apart.max() < (1e-3 if float32 else 0.05)


@pytest.mark.parametrize("measure", [squared_distances, cosine_distances])
def test_distances(measure):
    descriptors = np.random.default_rng(0).standard_normal((1500, 64), np.float32)
    for gallery in (descriptors, descriptors[:700].copy()):
        np.testing.assert_allclose(measure(descriptors, gallery, "cuda"), measure(descriptors, gallery), atol=1e-5)


def run(command, *arguments):
    result = CliRunner().invoke(command, [str(word) for word in arguments])
    assert result.exit_code == 0, result.output
    return result


def test_the_commands_from_training_to_the_report(prepared, tmp_path):
    options = ["--preset", "demo", "--device", "cuda", *assignments([*TINY, "training.epochs=2"])]
    told = json.loads(run(train_command, prepared, *options, "--dry-run", "--json").stdout)
    assert told["memory"]["device_peak_mib"] > 0 and told["device"] == torch.cuda.get_device_name()
    shown = run(train_command, prepared, "--out", tmp_path / "run", *options, "--profile").stdout
    assert "operator, by its own time on the device" in shown
    run(train_command, prepared, "--out", tmp_path / "run", *options, "--workers", "2")
    run(train_command, prepared, "--out", tmp_path / "run", *options, "--resume")
    assert all(np.isfinite(record["total"]) for record in records(tmp_path / "run", "step"))
    striped, model = make_striped(tmp_path / "striped"), save_tiny_model(tmp_path / "model")
    run(evaluate, model, striped, "--device", "cuda", "--report", tmp_path / "report", "--rerank", "--k1", 4, "--k2", 2)
    assert (tmp_path / "report" / "report.html").exists()


def test_a_batch_beyond_the_memory_says_what_to_lower(prepared, tmp_path):
    config = resolve_config("demo", assignments=[*TINY, "training.epochs=1"])
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e6 / total)
    try:
        with pytest.raises(KeyReIDError, match=r"the cuda has no memory left .*training.checkpoint_blocks"):
            train(prepared, tmp_path / "run", config, device=CUDA)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_two_devices_have_the_losses_of_one(tmp_path):
    prepared = make_prepared(tmp_path / "tiny", identities=8)
    values = [*TINY, *STEADY, "training.epochs=2", "training.log_every=1", "training.identities_per_batch=4",
              "training.mixed_precision=false", "training.optimizer=sgd"]  # fmt: skip
    command = [sys.executable, "-c", "from keyreid.cli.train import main; main()"]
    together = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    for name, launcher in (("one", command), ("two", [*together, *command])):
        options = [prepared, "--out", tmp_path / name, "--preset", "demo", "--device", "cuda", *assignments(values)]
        subprocess.run([*launcher, *map(str, options)], check=True)
    one, two = ([record["total"] for record in records(tmp_path / name, "step")] for name in ("one", "two"))
    assert two == pytest.approx(one, rel=1e-3)
