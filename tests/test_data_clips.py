import numpy as np
import pytest

from keyreid.model.data.sampler import Clip, evaluation_clips, training_clip


def test_training_clip_takes_one_random_frame_of_each_quarter():
    generator = np.random.default_rng(0)
    clips = np.array([training_clip(10, 4, generator) for _ in range(300)])
    for place, (start, end) in enumerate([(0, 2), (2, 5), (5, 7), (7, 10)]):
        assert set(clips[:, place]) == set(range(start, end))


@pytest.mark.parametrize(("num_frames", "expected"), [(1, (0, 0, 0, 0)), (2, (0, 0, 1, 1)), (4, (0, 1, 2, 3))])
def test_training_clip_of_a_short_tracklet_repeats_in_time_order(num_frames, expected):
    assert training_clip(num_frames, 4, np.random.default_rng(0)) == expected


@pytest.mark.parametrize("variant", ["aligned", "reference"])
@pytest.mark.parametrize(
    ("num_frames", "expected"),
    [
        (1, [Clip((0, 0, 0, 0), 3)]),
        (4, [Clip((0, 1, 2, 3), 0)]),
        (7, [Clip((0, 1, 2, 3), 0), Clip((4, 5, 6, 4), 1)]),
        (6, [Clip((0, 1, 2, 3), 0), Clip((4, 5, 4, 5), 2)]),
    ],
    ids=["one frame", "whole group", "one missing", "the last group cycles through itself"],
)
def test_evaluation_clips_cover_the_tracklet(variant, num_frames, expected):
    assert evaluation_clips(num_frames, 4, variant) == expected


def test_long_tracklets_keep_41_clips_spread_evenly_or_the_first():
    first = evaluation_clips(400, 4, "reference")
    assert [clip.frames[0] for clip in first] == list(range(0, 164, 4))
    spread = evaluation_clips(400, 4, "aligned")
    starts = np.array([clip.frames[0] for clip in spread])
    assert len(spread) == 41 and starts[0] == 0 and starts[-1] == 396
    assert set(np.diff(starts)) <= {8, 12}
    assert evaluation_clips(164, 4, "aligned") == evaluation_clips(164, 4, "reference")


def test_shifted_starts_add_whole_groups_between_the_others():
    def starts(num_frames: int, **options: int | None) -> list[int]:
        return [clip.frames[0] for clip in evaluation_clips(num_frames, 4, "aligned", **options)]

    assert starts(11, shifts=1) == [0, 4, 8]
    assert starts(11, shifts=2) == [0, 2, 4, 6, 8]  # 10 would leave one frame: the last group has shown it
    assert starts(7, shifts=4) == [0, 1, 2, 3, 4]  # every window of four, and the group that ends the tracklet
    assert starts(3, shifts=4) == [0]
    assert evaluation_clips(11, 4, "aligned", shifts=2)[1] == Clip((2, 3, 4, 5), 0)


def test_a_limit_of_one_or_none():
    assert len(evaluation_clips(400, 4, "aligned", 1)) == 1
    assert len(evaluation_clips(400, 4, "aligned", None)) == 100
