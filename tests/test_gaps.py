"""Gaps between chosen people: what is filled, how surely, and what is not."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from keyreid.pipeline.errors import SettingsError
from keyreid.pipeline.pose.gaps import GapSettings, fill_gaps

SIZE = (128, 256)


@dataclass(frozen=True)
class Somebody:
    score: float
    keypoints: np.ndarray


def somebody(x: float, y: float, confidence: float = 0.8, score: float = 0.5) -> Somebody:
    """All joints in one place."""
    return Somebody(score, np.tile(np.array([x, y, confidence], np.float32), (17, 1)))


def test_joints_move_in_a_line_and_confidence_decays_to_the_middle() -> None:
    first, last = somebody(10, 20, 0.8, 0.5), somebody(30, 28, 0.6, 0.9)
    filled = fill_gaps([first, None, None, None, last], [SIZE] * 5, GapSettings(decay=0.5))
    assert [pose.interpolated for pose in filled if pose] == [False, True, True, True, False]
    expected = [(15, 22, 0.3), (20, 24, 0.15), (25, 26, 0.3)]
    for pose, row in zip(filled[1:4], expected, strict=True):
        assert pose is not None
        assert pose.keypoints.dtype == np.float32
        np.testing.assert_allclose(pose.keypoints, [row] * 17, rtol=1e-6)
        assert pose.score == pytest.approx(0.5 * row[2] / 0.6)


def test_detected_people_stay_as_they_are() -> None:
    people = [somebody(10, 20), None, somebody(12, 20)]
    filled = fill_gaps(people, [SIZE] * 3)
    for person, pose in zip(people, filled, strict=True):
        if person is not None:
            assert pose is not None
            assert pose.keypoints is person.keypoints
            assert (pose.score, pose.interpolated) == (person.score, False)


@pytest.mark.parametrize(("distance", "filled"), [(2, True), (4, True), (5, False)])
def test_only_short_gaps_are_filled(distance: int, filled: bool) -> None:
    chosen = [somebody(10, 20), *[None] * (distance - 1), somebody(12, 20)]
    poses = fill_gaps(chosen, [SIZE] * len(chosen), GapSettings(max_distance=4))
    assert all((pose is not None) == filled for pose in poses[1:-1])


def test_distance_of_one_fills_nothing() -> None:
    chosen = [somebody(10, 20), None, somebody(12, 20)]
    assert fill_gaps(chosen, [SIZE] * 3, GapSettings(max_distance=1))[1] is None


def test_distances_are_counted_in_frame_numbers() -> None:
    chosen = [somebody(10, 20), None, somebody(20, 20)]
    assert fill_gaps(chosen, [SIZE] * 3, numbers=[1, 250, 500])[1] is None
    pose = fill_gaps(chosen, [SIZE] * 3, GapSettings(max_distance=5, decay=0.5), numbers=[10, 13, 15])[1]
    assert pose is not None
    np.testing.assert_allclose(pose.keypoints, [(16, 20, 0.2)] * 17, rtol=1e-6)
    with pytest.raises(SettingsError, match="2 frame numbers for 3 frames"):
        fill_gaps(chosen, [SIZE] * 3, numbers=[1, 2])


def test_nothing_before_the_first_and_after_the_last() -> None:
    filled = fill_gaps([None, somebody(10, 20), None], [SIZE] * 3)
    assert [pose is None for pose in filled] == [True, False, True]
    assert fill_gaps([None, None], [SIZE] * 2) == [None, None]
    assert fill_gaps([], []) == []


def test_unreadable_frames_stay_empty_and_are_counted_as_time() -> None:
    chosen = [somebody(10, 20), None, None, somebody(13, 20)]
    filled = fill_gaps(chosen, [SIZE, (0, 0), SIZE, SIZE])
    assert filled[1] is None
    assert filled[2] is not None
    assert filled[2].keypoints[0, 0] == pytest.approx(12)


def test_joints_missing_at_one_end_or_moved_too_far_are_left_out() -> None:
    first, last = somebody(10, 20), somebody(12, 20)
    last.keypoints[3] = 0
    last.keypoints[9, 1] = 20 + 0.2 * SIZE[1]
    pose = fill_gaps([first, None, last], [SIZE] * 3, GapSettings(max_shift=0.15))[1]
    assert pose is not None
    assert np.flatnonzero(pose.keypoints[:, 2] == 0).tolist() == [3, 9]
    assert not pose.keypoints[[3, 9]].any()


def test_gap_whose_ends_share_no_joint_stays() -> None:
    first, last = somebody(10, 20), somebody(12, 20)
    first.keypoints[:9] = 0
    last.keypoints[9:] = 0
    assert fill_gaps([first, None, last], [SIZE] * 3)[1] is None


def test_crops_of_different_sizes_are_bridged_in_shares() -> None:
    chosen = [somebody(32, 64), None, somebody(16, 32)]  # a quarter of each side
    pose = fill_gaps(chosen, [(128, 256), (40, 100), (64, 128)])[1]
    assert pose is not None
    np.testing.assert_allclose(pose.keypoints[:, :2], [[10, 25]] * 17)


def test_backwards_is_the_same() -> None:
    chosen = [somebody(10, 20), None, None, somebody(13, 30), None, somebody(15, 31)]
    forwards = fill_gaps(chosen, [SIZE] * 6)
    for pose, other in zip(forwards, fill_gaps(chosen[::-1], [SIZE] * 6)[::-1], strict=True):
        assert pose is not None
        assert other is not None
        np.testing.assert_allclose(pose.keypoints, other.keypoints, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_distance": 0}, "max_distance is 0"),
        ({"decay": 0.0}, "decay is 0.0"),
        ({"decay": 1.5}, "decay is 1.5"),
        ({"decay": float("nan")}, "decay is nan"),
        ({"max_shift": 0.0}, "max_shift is 0.0"),
        ({"max_shift": float("nan")}, "max_shift is nan"),
    ],
)
def test_bad_settings_are_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        replace(GapSettings(), **change)


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(SettingsError, match="2 sizes for 1 frames"):
        fill_gaps([None], [SIZE, SIZE])
