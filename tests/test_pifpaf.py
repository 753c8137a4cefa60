"""The committed demo network on people of seeds that it never saw."""

from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch

from keyreid.pipeline.pose import pifpaf
from keyreid.pipeline.pose.checkpoints import SYNTHETIC_PATH, load_checkpoint, resolve_checkpoint
from keyreid.pipeline.pose.forward import DecoderSettings, PoseSettings, make_picture
from keyreid.pipeline.pose.pifpaf import PifPafEstimator
from keyreid.pipeline.pose.selection import Person
from keyreid.pipeline.synthetic.person import sample_appearance
from keyreid.pipeline.synthetic.scene import SyntheticFrame, render_tracklet, sample_camera

CLOSE = 0.05 * 256  # five per cent of the crop's height


@pytest.fixture(scope="module")
def walks() -> list[list[SyntheticFrame]]:
    """Twelve tracklets of four frames, of a seed of their own."""
    return [walk(number, 0.5) for number in range(12)]


def walk(number: int, difficulty: float) -> list[SyntheticFrame]:
    rng = np.random.default_rng([424242, number])
    camera = sample_camera(rng, difficulty)
    return list(render_tracklet(sample_appearance(rng, difficulty, rng), camera, 4, difficulty, rng))


@pytest.fixture(scope="module")
def synthetic() -> Any:
    return load_checkpoint(resolve_checkpoint("synthetic"))


def find(estimator: PifPafEstimator, *tracklets: list[Any]) -> list[list[list[Person]]]:
    """The people of each frame of some tracklets, of SyntheticFrames or arrays."""
    pictures = [
        (number, make_picture(np.asarray(getattr(frame, "image", frame)), PoseSettings(128)))
        for number, frames in enumerate(tracklets)
        for frame in frames
    ]
    people = estimator.estimate(pictures)
    return [[next(people) or [] for _ in frames] for frames in tracklets]


def measure(model: Any, walks: list[list[SyntheticFrame]]) -> tuple[float, float]:
    """Share of frames with a person, and of the visible joints found within five per cent of the height."""
    estimator = PifPafEstimator(model)
    detected, close, visible = 0, 0, 0
    for frames in walks:
        for frame, people in zip(frames, find(estimator, frames)[0], strict=True):
            seen = frame.keypoints[:, 2] > 0
            visible += int(seen.sum())
            if people:
                detected += 1
                found = people[0].keypoints
                distance = np.hypot(*(found[:, :2] - frame.keypoints[:, :2]).T)
                close += int((seen & (found[:, 2] > 0) & (distance < CLOSE)).sum())
    return detected / sum(map(len, walks)), close / visible


def test_the_synthetic_network_finds_people_it_never_saw(synthetic: Any, walks: list[list[SyntheticFrame]]) -> None:
    detection, share_close = measure(synthetic, walks)
    assert detection >= 0.95 and share_close >= 0.9
    assert SYNTHETIC_PATH.stat().st_size <= 6_000_000
    torch.manual_seed(0)
    detection, share_close = measure(pifpaf.build_network("mobilenetv3small", 2).eval(), walks)
    assert share_close < 0.1 and detection < 0.5, "random weights find nobody"


def test_keypoints_are_in_the_frames_own_pixels(synthetic: Any, walks: list[list[SyntheticFrame]]) -> None:
    """The same picture at half the size: the same person at half the coordinates; sizes may be mixed in one call."""
    image = walks[0][0].image
    half = image.resize((64, 128))
    large, small = find(PifPafEstimator(synthetic), [np.asarray(image), np.asarray(half)])[0]
    both = (large[0].keypoints[:, 2] > 0.3) & (small[0].keypoints[:, 2] > 0.3)
    assert both.sum() >= 5
    np.testing.assert_allclose(large[0].keypoints[both, :2], 2 * small[0].keypoints[both, :2], atol=6)


def test_no_frames_and_frames_without_people(synthetic: Any) -> None:
    estimator = PifPafEstimator(synthetic)
    assert list(estimator.estimate([])) == []
    empty = make_picture(np.full((256, 128, 3), 90, np.uint8), PoseSettings(128))
    assert list(estimator.estimate([(0, None), (0, empty), (1, None)])) == [None, [], None]
    assert list(estimator.estimate([(0, None)] * 300)) == [None] * 300, "more than a chunk"


def test_people_are_a_function_of_their_tracklet(
    synthetic: Any, walks: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Across chunks and sizes, best score first; openpifpaf's decoder remembers. Batches of one: equal rounding."""
    sizes = [(256, 128), (256, 128), (200, 100)]
    tracklets = [
        [np.asarray(frame.image.resize(size[::-1])) for frame in walk] for walk, size in zip(walks, sizes, strict=False)
    ]
    tracklets.append([tracklets[0][0], tracklets[2][1], tracklets[1][2]])  # sizes mixed
    crowded = [walk(100 + number, 0.9) for number in range(20)]
    tracklets += [[np.asarray(frame.image) for frame in one] for one in crowded if one[0].stranger[:, 2].sum() >= 9][:3]
    alone = [find(PifPafEstimator(synthetic, batch_size=1), tracklet)[0] for tracklet in tracklets]
    monkeypatch.setattr(pifpaf, "CHUNK", 5)
    together = find(PifPafEstimator(synthetic, batch_size=1), *tracklets)
    most = 0
    for one, other in zip(chain(*together), chain(*alone), strict=True):
        assert [person.score for person in one] == sorted((person.score for person in other), reverse=True)
        assert all(np.array_equal(a.keypoints, b.keypoints) for a, b in zip(one, other, strict=True))
        most = max(most, len(one))
    assert most > 1, "the second person is found as well"


def test_thresholds_reach_the_decoder(synthetic: Any, walks: list[list[SyntheticFrame]]) -> None:
    def joints(settings: DecoderSettings) -> list[int]:
        people = find(PifPafEstimator(synthetic, decoder=settings), *walks[:6])
        return [int((found[0].keypoints[:, 2] > 0).sum()) for frames in people for found in frames if found]

    usual = joints(DecoderSettings())
    complete = joints(DecoderSettings(force_complete=True))
    assert set(complete) == {17} and sum(usual) < 17 * len(usual)
    assert sum(joints(DecoderSettings(keypoint=0.6, seed=0.6))) < sum(usual)
    assert len(joints(DecoderSettings(instance=0.99))) < len(usual)
    assert joints(DecoderSettings()) == usual, "nothing of the earlier estimators is left in the process"


def test_a_network_that_fails_is_no_fact_about_the_frames(synthetic: Any, walks: list[list[SyntheticFrame]]) -> None:
    def fail(batch: torch.Tensor) -> list[torch.Tensor]:
        raise failure

    fail.suitable_batch = lambda _: 1  # type: ignore[attr-defined]
    estimator = PifPafEstimator(synthetic)
    estimator._forward = fail
    for failure in (RuntimeError("CUDA error: device-side assert triggered"), MemoryError()):
        with pytest.raises(type(failure)) as raised:
            find(estimator, walks[0])
        assert raised.value is failure
