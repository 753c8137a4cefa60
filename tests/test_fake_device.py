"""What runs on a CUDA device, with tensors that have a device and a shape but no values: no two devices meet in an
operator, and nothing is read back in between. Kernels, streams and backward passes are for test_cuda.py."""

from dataclasses import replace

import pytest
import torch
from evaluation_dataset import make_prepared as make_striped
from evaluation_dataset import tiny_model
from prepared_dataset import make_prepared
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from training_fixtures import CPU, TINY

from keyreid.model.data.augment import augment_batch
from keyreid.model.data.reading import read_clips
from keyreid.model.embedding.settings import EmbeddingSettings, camera_rows
from keyreid.model.embedding.tracklets import _launch, plan_clips
from keyreid.model.network.attention_maps import attention_maps
from keyreid.model.training.config import resolve_config
from keyreid.model.training.inputs import open_inputs
from keyreid.model.training.state import Clips, Learner, build_state
from keyreid.pipeline.store import TrackletStore

CUDA = torch.device("cuda", 0)


def has_fakes() -> bool:
    """Whether this torch makes them without a driver; 2.6 does not."""
    real = torch.ones(2)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            real.to(CUDA)
    except RuntimeError:
        return False
    return True


pytestmark = pytest.mark.skipif(not has_fakes(), reason="needs a torch with CUDA tensors that have no device")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return make_prepared(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def mode():
    return FakeTensorMode(allow_non_fake_inputs=True)


def move(module: nn.Module, mode: FakeTensorMode) -> None:
    """module.to(CUDA), which needs a driver."""
    for part in module.modules():
        for table in (part._parameters, part._buffers):
            for name, tensor in table.items():
                if tensor is not None:
                    with torch.no_grad():
                        fake = mode.from_tensor(tensor.detach()).to(CUDA)
                    trained = isinstance(tensor, nn.Parameter)
                    table[name] = nn.Parameter(fake, tensor.requires_grad) if trained else fake


def test_two_devices_that_meet_are_found(mode):
    with mode, pytest.raises(RuntimeError, match="cuda:0, cpu"):
        torch.ones(3, device=CUDA) + torch.ones(3)
    with mode, pytest.raises(DataDependentOutputException):
        torch.ones(3, device=CUDA).sum().item()


@pytest.mark.filterwarnings("ignore:CUDA is not available")
@pytest.mark.parametrize(
    "options",
    [
        ("model.variant=aligned",),
        ("model.stem=patch", "model.part_pooling=attention"),
        ("model.variant=reference",),
        ("model.camera_scale=0", "augment.whole_clip=true"),
    ],
)
def test_augmentation_network_and_losses(prepared, mode, options):
    config = resolve_config("vit-small", assignments=[*TINY, *options])
    inputs = open_inputs(prepared, config, device=CPU, num_workers=0, identity_split=0)
    state = build_state(config.model_config(inputs.labels), config.training, CPU)
    host = next(inputs.loader.epoch(0))
    grid, variant, size = state.model.patch_grid, state.model.config.variant, state.model.config.frame_size
    with mode:
        for module in (state.model, state.loss):
            move(module, mode)
        learner = Learner(state.model, state.loss, dtype=torch.bfloat16, gather=None, compiling="none")
        batch = host.to(CUDA)
        frames, weights, erased = augment_batch(
            batch.frames, batch.heatmaps, config.augment, torch.Generator(), size, grid, variant
        )
        terms = learner(Clips(frames, weights, batch.cameras, batch.identities, erased))
    assert {term.device for term in terms} == {CUDA} and terms.total.requires_grad


class NoEvent:
    def record(self) -> None:
        pass


@pytest.mark.filterwarnings("ignore:CUDA is not available")
@pytest.mark.parametrize("variant", ["aligned", "reference"])
@pytest.mark.parametrize("flip", [False, True])
def test_embedding(tmp_path, mode, monkeypatch, variant, flip):
    monkeypatch.setattr(torch.cuda, "Event", NoEvent)
    store, model = TrackletStore(make_striped(tmp_path)), tiny_model(variant=variant)
    tracklets, settings = store.tracklets("query"), EmbeddingSettings(flip=flip)
    plans = plan_clips(store, [tracklets], model.config, settings, 3)
    batches = [read_clips(store, plan, model.config.frame_size) for plan in plans]
    rows = camera_rows(tracklets, model.config, settings.cameras)
    with mode:
        move(model, mode)
        for batch in batches:
            given = replace(batch, frames=mode.from_tensor(batch.frames), heatmaps=mode.from_tensor(batch.heatmaps))
            of_batch = mode.from_tensor(rows[batch.plan.rows])
            clips, event = _launch(model, given, of_batch, flip, True)
            assert {clips.global_feature.device, clips.part_features.device, clips.visibility.device} == {CPU}
            assert isinstance(event, NoEvent)


@pytest.mark.parametrize("options", [{}, {"part_pooling": "average"}, {"variant": "reference"}])
def test_attention_maps(mode, options):
    model = tiny_model(**options)
    config, (rows, columns) = model.config, model.patch_grid
    with mode:
        move(model, mode)
        frames = torch.zeros(2, config.clip_length, 3, *config.frame_size, device=CUDA)
        weights = torch.zeros(2, config.clip_length, rows * columns, 6, device=CUDA)
        maps = attention_maps(model, frames, weights, torch.zeros(2, dtype=torch.int64, device=CUDA))
    assert {maps.frames.device, maps.patches.device, maps.class_tokens.device} == {CUDA}
