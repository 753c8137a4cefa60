import numpy as np
import pytest
import torch

from keyreid.model.data.augment import AugmentSettings, augment_batch, draw_augmentation
from keyreid.model.data.transform import (
    Draw,
    normalise_frames,
    part_weights_from_heatmaps,
    transform_all_at_once,
    transform_frames,
    transform_heatmaps,
)
from keyreid.pipeline.skeleton import PART_FLIP, PARTS

LEFT_ARM, RIGHT_ARM = list(PARTS).index("left_arm"), list(PARTS).index("right_arm")
SIZE, GRID = (64, 32), (16, 8)
NOTHING = AugmentSettings(flip=0, pad=0, erase=0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def square(part: int, clips: int = 8, length: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Black frames with a white square, and the same square in one part's heatmap (a frame pixel a cell)."""
    frames = torch.zeros(clips, length, 3, *SIZE, dtype=torch.uint8)
    frames[..., 20:36, 4:16] = 255
    heatmaps = torch.zeros(clips, length, 6, 64, 32, dtype=torch.uint8)
    heatmaps[:, :, part, 20:36, 4:16] = 255
    return frames, heatmaps


def patches_of(frames: torch.Tensor) -> torch.Tensor:
    """Mean brightness in [0, 1] of each 4x4 patch, (B, T, N)."""
    grey = (frames.mean(2) + 1) / 2
    return torch.nn.functional.avg_pool2d(grey, 4).flatten(2)


@pytest.mark.parametrize(
    "settings",
    [
        NOTHING,
        AugmentSettings(flip=1, pad=0, erase=0),
        AugmentSettings(flip=0, pad=40, erase=0),
        AugmentSettings(flip=0, pad=0, erase=1, erase_fill=(-1, -1, -1)),
        AugmentSettings(pad=40, erase_fill=(-1, -1, -1)),
        AugmentSettings(pad=40, erase_fill=(-1, -1, -1), whole_clip=True),
    ],
    ids=["nothing", "flip", "shift", "erase", "all", "whole clip"],
)
def test_square_in_frame_and_heatmap_stay_together(settings):
    """The head has no mirror image, so its weights must be the brightness of the patches, whatever was drawn."""
    frames, weights, _ = augment_batch(*square(part=0), settings, generator(), SIZE, GRID, "aligned")
    torch.testing.assert_close(weights[..., 0], patches_of(frames))
    assert weights[..., 0].sum() > 0 and weights[..., 1:].abs().sum() == 0


def test_flip_swaps_left_and_right_parts_only_for_aligned():
    flip = AugmentSettings(flip=1, pad=0, erase=0)
    frames, heatmaps = square(LEFT_ARM)
    moved, aligned, _ = augment_batch(frames, heatmaps, flip, generator(), SIZE, GRID, "aligned")
    torch.testing.assert_close(aligned[..., RIGHT_ARM], patches_of(moved))
    assert aligned[..., LEFT_ARM].sum() == 0
    _, reference, _ = augment_batch(frames, heatmaps, flip, generator(), SIZE, GRID, "reference")
    torch.testing.assert_close((reference[..., LEFT_ARM] + 1) / 2, patches_of(moved))
    assert (reference[..., RIGHT_ARM] == -1).all()


def slow_weights(heatmap: np.ndarray, draw: Draw, size, grid, variant: str) -> np.ndarray:
    """One frame, pixel by pixel, in float64: heatmap (P, 64, 32) -> (P, rows, columns)."""
    flipped, down, right = bool(draw.flipped[0]), int(draw.down[0]), int(draw.right[0])
    top, bottom, left, end = draw.boxes[0].tolist()
    values = heatmap / 255.0 if variant == "aligned" else heatmap / 127.5 - 1
    if flipped and variant == "aligned":
        values = values[list(PART_FLIP)]
    full = np.zeros((6, *size))
    for y in range(size[0]):
        for x in range(size[1]):
            source_y, source_x = y + down, x + right
            if not (0 <= source_y < size[0] and 0 <= source_x < size[1]) or (top <= y < bottom and left <= x < end):
                continue
            source_x = size[1] - 1 - source_x if flipped else source_x
            full[:, y, x] = values[:, source_y * 64 // size[0], source_x * 32 // size[1]]
    return full.reshape(6, grid[0], size[0] // grid[0], grid[1], size[1] // grid[1]).mean((2, 4))


@pytest.mark.parametrize("channels_last", [False, True], ids=["channels first", "as decoders leave them"])
def test_frames_one_by_one_and_all_at_once_are_the_same(channels_last):
    frames = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (40, 3, *SIZE), np.uint8))
    draw = draw_augmentation(10, 4, AugmentSettings(pad=80), generator(), SIZE)
    assert draw.down.min() < 0 < draw.down.max() and draw.right.min() < 0 < draw.right.max()
    fill = torch.tensor([0.1, 0.2, 0.3])
    given = frames.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2) if channels_last else frames
    assert torch.equal(transform_frames(given, draw, fill), transform_all_at_once(frames, draw, fill))


@pytest.mark.parametrize("variant", ["aligned", "reference"])
@pytest.mark.parametrize(
    ("size", "grid"),
    [((256, 128), (16, 8)), ((128, 64), (8, 4)), ((64, 32), (16, 8))],
    ids=["paper size", "half: cells of two pixels", "a pixel a cell"],
)
def test_weights_agree_with_drawing_every_pixel(variant, size, grid):
    heatmaps = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 6, 64, 32), np.uint8))
    for seed in range(4):
        draw = draw_augmentation(1, 1, AugmentSettings(erase=0.8), generator(seed), size)
        fast = transform_heatmaps(heatmaps, draw, size, grid, variant)[0].T.unflatten(1, grid)
        slow = slow_weights(heatmaps[0].numpy(), draw, size, grid, variant)
        np.testing.assert_allclose(fast.numpy(), slow, atol=1e-5)


@pytest.mark.parametrize("variant", ["aligned", "reference"])
def test_without_augmentation_it_is_the_evaluation_path(variant):
    draws = np.random.default_rng(0)
    frames = torch.from_numpy(draws.integers(0, 256, (2, 3, 3, *SIZE), np.uint8))
    heatmaps = torch.from_numpy(draws.integers(0, 256, (2, 3, 6, 64, 32), np.uint8))
    moved, weights, erased = augment_batch(frames, heatmaps, NOTHING, generator(), SIZE, GRID, variant)
    torch.testing.assert_close(moved, normalise_frames(frames))
    torch.testing.assert_close(weights, part_weights_from_heatmaps(heatmaps, GRID, variant))
    assert erased.sum() == 0


def test_erased_tells_which_frames_lost_a_rectangle():
    frames = torch.full((16, 4, 3, *SIZE), 255, dtype=torch.uint8)
    heatmaps = torch.zeros(16, 4, 6, 64, 32, dtype=torch.uint8)
    settings = AugmentSettings(flip=0, pad=0)
    moved, _, erased = augment_batch(frames, heatmaps, settings, generator(), SIZE, GRID, "aligned")
    changed = (moved[:, :, 0] != 1).float().mean((2, 3))
    assert ((changed > 0) == (erased > 0)).all() and 0.3 < erased.mean() < 0.7
    assert changed[erased > 0].min() > 0.01 and changed.max() < 0.42  # area 2 to 40 %, rounded to whole pixels
    fill = moved[:, :, :, 32, 16][moved[:, :, 0, 32, 16] != 1]
    torch.testing.assert_close(fill.unique(dim=0), torch.tensor([settings.erase_fill]))


def test_whole_clip_draws_flip_and_shift_once_a_clip():
    draw = draw_augmentation(6, 4, AugmentSettings(whole_clip=True), generator(), (256, 128))
    for values in (draw.flipped, draw.down, draw.right):
        assert (values.view(6, 4) == values.view(6, 4)[:, :1]).all()
    single = draw_augmentation(6, 4, AugmentSettings(), generator(), (256, 128))
    assert not (single.down.view(6, 4) == single.down.view(6, 4)[:, :1]).all()
    assert (
        single.down.abs().max() <= 10
        and draw_augmentation(64, 4, AugmentSettings(), generator(), (128, 64))[1].abs().max() == 5
    )  # pad 10 at 256x128 is 5 at 128x64


@pytest.mark.parametrize("whole_clip", [False, True])
def test_a_clip_is_augmented_alike_however_many_ranks_share_the_batch(whole_clip):
    frames, heatmaps = square(part=0)
    settings = AugmentSettings(whole_clip=whole_clip)
    whole = augment_batch(frames, heatmaps, settings, generator(), SIZE, GRID, "aligned")
    for first, count in [(0, 8), (0, 4), (4, 4), (6, 2)]:
        places = slice(first, first + count)
        share = augment_batch(
            frames[places],
            heatmaps[places],
            settings,
            generator(),
            SIZE,
            GRID,
            "aligned",
            first_clip=first,
            all_clips=8,
        )
        assert all(torch.equal(ours, other[places]) for ours, other in zip(share, whole, strict=True))
