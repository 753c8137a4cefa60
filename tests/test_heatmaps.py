import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from keyreid.pipeline import heatmaps
from keyreid.pipeline.heatmaps import render_part_heatmaps, stored_heatmaps
from keyreid.pipeline.skeleton import JOINT_INDEX, PARTS


def slow_part_heatmaps(keypoints: np.ndarray, height: int, width: int) -> np.ndarray:
    """The definition, pixel by pixel: one frame's keypoints (17, 3) -> float64 (6, height, width)."""
    radius = int(width / 11)
    deviation = (2 * radius + 1) / 4
    result = np.zeros((len(PARTS), height, width))
    for part, joints in enumerate(PARTS.values()):
        for joint in joints:
            x, y, confidence = keypoints[JOINT_INDEX[joint]]
            if confidence <= 0.1:
                continue
            centre_x, centre_y = math.trunc(float(x)), math.trunc(float(y))
            for row in range(height):
                for column in range(width):
                    dx, dy = column - centre_x, row - centre_y
                    if abs(dx) <= radius and abs(dy) <= radius:
                        value = math.exp(-(dx * dx + dy * dy) / (2 * deviation**2))
                        result[part, row, column] = max(result[part, row, column], value)
    return result


def random_keypoints(rng: np.random.Generator, count: int, height: int, width: int) -> np.ndarray:
    """Some outside the frame, some under the confidence threshold."""
    spread = rng.uniform(-0.1, 1.1, (count, 17, 2)) * (width, height)
    return np.concatenate([spread, rng.uniform(0, 0.5, (count, 17, 1))], axis=2).astype(np.float32)


@pytest.mark.parametrize(("height", "width"), [(64, 32), (40, 33), (20, 9)])
def test_agrees_with_the_definition_pixel_by_pixel(height: int, width: int) -> None:
    keypoints = random_keypoints(np.random.default_rng(height), 3, height, width)
    fast = render_part_heatmaps(keypoints, (height, width)).numpy()
    slow = np.stack([slow_part_heatmaps(frame, height, width) for frame in keypoints])
    assert fast.shape == (3, 6, height, width)
    assert slow.max() > 0.9  # there is something to compare
    np.testing.assert_allclose(fast, slow, atol=1e-6)


def test_stored_heatmaps_are_the_stretched_ones_averaged_over_four_by_four_pixels() -> None:
    rng = np.random.default_rng(0)
    keypoints = np.concatenate([random_keypoints(rng, 2, 256, 128), random_keypoints(rng, 1, 128, 64)])
    keypoints[0, :5, 2] = 0  # no head: it stays empty
    stored = stored_heatmaps(keypoints, np.array([[128, 256], [128, 256], [64, 128]]))
    assert stored.shape == (3, 6, 64, 32) and stored.dtype == np.uint8
    for frame, (height, width) in enumerate([(256, 128), (256, 128), (128, 64)]):
        plain = torch.from_numpy(slow_part_heatmaps(keypoints[frame], height, width)).float()[None]
        plain = functional.interpolate(plain, size=(256, 128), mode="bilinear")[0].numpy()
        low, high = (getattr(plain, name)(axis=(1, 2), keepdims=True) for name in ("min", "max"))
        means = ((plain - low) / (high - low + 1e-6)).reshape(6, 64, 4, 32, 4).mean(axis=(2, 4))
        np.testing.assert_allclose(stored[frame] / 255, means, atol=0.5 / 255 + 1e-5)


@pytest.mark.parametrize(("count", "height", "width"), [(80, 256, 128), (1, 2000, 1000)])
def test_memory_is_bounded_however_many_frames_there_are(count: int, height: int, width: int) -> None:
    """Rendered at once, 920 frames of 256x128 take 2.2 GB."""
    keypoints = random_keypoints(np.random.default_rng(0), count, height, width)
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True, acc_events=True
    ) as profile:
        stored_heatmaps(keypoints, np.tile([[width, height]], (count, 1)))
    held = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    assert peak < 100e6


def test_chunks_have_the_same_bytes_as_all_frames_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    keypoints = random_keypoints(np.random.default_rng(0), 12, 100, 50)
    sizes = np.array([[50, 100]] * 7 + [[128, 256]] * 2 + [[50, 100]] * 3)
    at_once = stored_heatmaps(keypoints, sizes)
    for num_bytes in (8 << 20, 1):
        monkeypatch.setattr(heatmaps, "CHUNK_BYTES", num_bytes)
        np.testing.assert_array_equal(stored_heatmaps(keypoints, sizes), at_once)
    assert stored_heatmaps(keypoints[:0], sizes[:0]).shape == (0, 6, 64, 32)
