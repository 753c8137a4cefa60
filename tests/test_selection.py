"""Choosing the tracklet's own person: the search against all chains there are, best-score, and gaps filled."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest

from keyreid.pipeline.pose.selection import (
    GapSettings,
    Person,
    SelectionSettings,
    best_scores,
    body_height,
    fill_gaps,
    in_crop,
    jump_costs,
    off_centre,
    own_evidence,
    select_people,
    similarities,
)

SIZE = (128, 256)
# An upright body, 1 high, its top at (0, 0); rows in the order of skeleton.JOINTS.
BODY = np.array(
    [
        *[(0, 0.07), (0.02, 0.06), (-0.02, 0.06), (0.04, 0.07), (-0.04, 0.07), (0.1, 0.18), (-0.1, 0.18), (0.12, 0.33)],
        *[(-0.12, 0.33), (0.12, 0.46), (-0.12, 0.46), (0.06, 0.5), (-0.06, 0.5), (0.06, 0.73), (-0.06, 0.73)],
        *[(0.06, 0.95), (-0.06, 0.95)],
    ]
)


def standing(x: float, score: float, height: float = 0.85, size: tuple[int, int] = SIZE) -> Person:
    """A complete body; x is the share of the crop's width, height that of its height."""
    place = np.array([x * size[0], (0.98 - height) * size[1]]) + BODY * height * size[1]
    return Person(score, np.column_stack([place, np.full(17, 0.8)]).astype(np.float32))


def random_frames(rng: np.random.Generator, count: int) -> list[list[Person] | None]:
    """0 to 2 people a frame, some of them like one of the frame before, some with joints not found."""
    frames: list[list[Person] | None] = []
    for _ in range(count):
        people = []
        for _ in range(rng.integers(0, 3)):
            person = standing(rng.choice([0.3, 0.5, 0.7]) + rng.normal(0, 0.05), rng.random(), rng.uniform(0.4, 1))
            person.keypoints[rng.random(17) < 0.3] = 0
            people.append(person)
        frames.append(None if rng.random() < 0.1 else people)
    return frames


def chain_value(chain: list[tuple[int, Person]], settings: SelectionSettings) -> float:
    """The sum that select_people maximises, of one chain of (frame number, person)."""
    poses = [(frame, in_crop(person.keypoints, SIZE)) for frame, person in chain]
    value = sum(own_evidence(person, pose, SIZE, settings) for (_, person), (_, pose) in zip(chain, poses, strict=True))
    for (start, before), (end, after) in pairwise(poses):
        value -= float(jump_costs(after, before[None], np.array([end - start]), settings)[0])
    return value


@pytest.mark.parametrize("seed", range(12))
def test_choice_is_the_best_of_all_chains(seed: int) -> None:
    rng = np.random.default_rng(seed)
    settings = SelectionSettings(
        person=rng.uniform(0, 1), centre=rng.uniform(0, 3), jump=rng.uniform(0.5, 6), reach=int(rng.integers(1, 5))
    )
    frames = random_frames(rng, 7)
    numbers = np.cumsum(rng.integers(1, 4, len(frames))).tolist()
    options = [[None, *(people or [])] for people in frames]

    def value(choice: Sequence[Person | None]) -> float:
        chain = [(number, person) for number, person in zip(numbers, choice, strict=True) if person is not None]
        return chain_value(chain, settings)

    values = [value(choice) for choice in product(*options)]
    own = value(select_people(frames, [SIZE] * len(frames), settings, numbers))
    assert own == pytest.approx(max(values), abs=1e-4)


def test_time_is_counted_in_frame_numbers() -> None:
    """Somebody is on the left in frame 1, and two people are there in frame 500: they are no neighbours."""
    before, near, far = standing(0.3, 0.5), standing(0.3, 0.5), standing(0.7, 0.6)
    frames, sizes = [[before], [near, far]], [SIZE] * 2
    assert select_people(frames, sizes, numbers=[1, 2]) == select_people(frames, sizes) == [before, near]
    assert select_people(frames, sizes, numbers=[1, 500]) == [before, far]


@pytest.mark.parametrize("seed", range(4))
def test_order_of_people_and_direction_of_time_do_not_matter(seed: int) -> None:
    rng = np.random.default_rng(100 + seed)
    frames = random_frames(rng, 40)
    sizes = [SIZE] * len(frames)
    chosen = select_people(frames, sizes)
    assert sum(person is not None for person in chosen) > 5
    assert select_people(frames, sizes, numbers=range(7, 47)) == chosen
    assert select_people([people and people[::-1] for people in frames], sizes) == chosen
    assert select_people(frames[::-1], sizes)[::-1] == chosen
    assert best_scores([people and people[::-1] for people in frames]) == best_scores(frames)


def test_best_score_is_the_authors_rule() -> None:
    first, second = standing(0.6, 0.5), standing(0.1, 0.6)
    assert best_scores([[first, second], [second], [], None]) == [second, second, None, None]
    frames = [None, [], [first], None]
    assert select_people(frames, [(0, 0), SIZE, SIZE, (0, 0)]) == best_scores(frames) == [None, None, first, None]
    left, right = standing(0.4, 0.5), standing(0.6, 0.5)
    for rule in (best_scores, lambda frames: select_people(frames, [SIZE])):
        assert rule([[left, right]]) == rule([[right, left]]), "people who tie, whatever their order"


def test_a_stranger_is_not_followed_even_where_the_person_is_hidden() -> None:
    sizes = [SIZE, (64, 128), (40, 80), (256, 512)] * 3  # compared in shares
    own = [standing(0.5 + 0.01 * frame, 0.6, size=size) for frame, size in enumerate(sizes)]
    strangers = [standing(0.95 - 0.02 * frame, 0.9, size=size) for frame, size in enumerate(sizes)]
    frames = [[own[frame], *([strangers[frame]] if 3 <= frame < 9 else [])] for frame in range(12)]
    assert best_scores(frames)[5] is strangers[5]
    assert select_people(frames, sizes) == own
    own, stranger = [standing(0.5, 0.7) for _ in range(10)], standing(0.9, 0.7)
    frames = [[stranger] if frame in (4, 5) else [own[frame]] for frame in range(10)]
    assert best_scores(frames)[4] is stranger
    assert select_people(frames, [SIZE] * 10) == [*own[:4], None, None, *own[6:]]


def test_evidence_of_a_body_that_is_partly_hidden() -> None:
    whole = in_crop(standing(0.75, 0.5).keypoints, SIZE)
    half = whole.copy()
    half[13:] = 0  # knees and ankles hidden
    nothing = np.zeros((17, 3))
    assert off_centre(whole, SIZE, 0.1) == pytest.approx(0.5, abs=0.01)
    assert off_centre(nothing, SIZE, 0.1) == 1
    assert body_height(whole, 0.1) == pytest.approx(0.85, abs=0.01)
    assert body_height(half, 0.1) == pytest.approx(0.85, abs=0.01)
    assert body_height(nothing, 0.1) is None
    assert similarities(whole, np.stack([whole, nothing]), 0.1, 2.0) == pytest.approx([18 / 19, 0.5])
    best, *worse = standing(0.5, 0.6), standing(0.5, 0.6, height=0.4), standing(0.9, 0.6), standing(0.5, 0.5)
    assert all(select_people([[other, best]], [SIZE]) == [best] for other in worse), "size, place and score each tell"


def somebody(x: float, y: float, confidence: float = 0.8, score: float = 0.5) -> Person:
    """All joints in one place."""
    return Person(score, np.tile(np.array([x, y, confidence], np.float32), (17, 1)))


def test_joints_move_in_a_line_and_confidence_decays_to_the_middle() -> None:
    first, last = somebody(10, 20, 0.8, 0.5), somebody(30, 28, 0.6, 0.9)
    filled = fill_gaps([first, None, None, None, last], [SIZE] * 5, GapSettings(decay=0.5))
    assert [pose.interpolated for pose in filled if pose] == [False, True, True, True, False]
    assert filled[0] is first and filled[4] is last, "detected people stay as they are"
    expected = [(15, 22, 0.3), (20, 24, 0.15), (25, 26, 0.3)]
    for pose, row in zip(filled[1:4], expected, strict=True):
        assert pose.keypoints.dtype == np.float32
        np.testing.assert_allclose(pose.keypoints, [row] * 17, rtol=1e-6)
        assert pose.score == pytest.approx(0.5 * row[2] / 0.6)


@pytest.mark.parametrize(
    ("numbers", "longest", "confidence"),
    [([0, 1, 2], 4, 0.4), ([0, 1, 4], 4, 0.4), ([10, 13, 15], 5, 0.2), ([0, 1, 5], 4, 0), ([0, 1, 2], 1, 0)],
)
def test_only_short_gaps_are_filled_counted_in_frame_numbers(
    numbers: list[int], longest: int, confidence: float
) -> None:
    chosen = [somebody(10, 20), None, somebody(20, 20)]
    pose = fill_gaps(chosen, [SIZE] * 3, GapSettings(longest, decay=0.5), numbers)[1]
    assert (pose is None) == (confidence == 0)
    if pose is not None:
        x = 10 + 10 * (numbers[1] - numbers[0]) / (numbers[2] - numbers[0])
        np.testing.assert_allclose(pose.keypoints, [(x, 20, confidence)] * 17, rtol=1e-6)


def test_unreadable_frames_and_both_ends_stay_empty() -> None:
    chosen = [None, somebody(10, 20), None, None, somebody(13, 20), None]
    filled = fill_gaps(chosen, [SIZE, SIZE, (0, 0), SIZE, SIZE, SIZE])
    assert [pose is None for pose in filled] == [True, False, True, False, False, True]
    assert filled[3].keypoints[0, 0] == pytest.approx(12), "an unreadable frame counts as time"
    assert fill_gaps([], []) == []


def test_joints_missing_at_one_end_or_moved_too_far_are_left_out() -> None:
    first, last = somebody(10, 20), somebody(12, 20)
    last.keypoints[3] = 0
    last.keypoints[9, 1] = 20 + 0.2 * SIZE[1]
    pose = fill_gaps([first, None, last], [SIZE] * 3, GapSettings(max_shift=0.15))[1]
    assert np.flatnonzero(pose.keypoints[:, 2] == 0).tolist() == [3, 9]
    assert not pose.keypoints[[3, 9]].any()
    first.keypoints[4:] = 0
    last.keypoints[:4] = 0
    assert fill_gaps([first, None, last], [SIZE] * 3)[1] is None, "no joint is left"


def test_crops_of_different_sizes_are_bridged_in_shares() -> None:
    chosen = [somebody(32, 64), None, somebody(16, 32)]  # a quarter of each side
    pose = fill_gaps(chosen, [(128, 256), (40, 100), (64, 128)])[1]
    np.testing.assert_allclose(pose.keypoints[:, :2], [[10, 25]] * 17)


def test_rule_beats_best_score_on_synthetic_people(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    scenes, benchmark = importlib.import_module("selection_scenes"), importlib.import_module("selection")
    crossing, alone = (next(s for s in scenes.SCENES if s.name == name) for name in ("crossing", "alone, hard"))
    find = benchmark.people_finder()
    best, filled, _, ours = (benchmark.add(rows) for rows in benchmark.measure(find, crossing, 5, 6).values())
    assert ours.switches < best.switches / 1.5
    assert ours.wrong < best.wrong
    assert ours.right > filled.right >= best.right
    best, _, _, ours = (benchmark.add(rows) for rows in benchmark.measure(find, alone, 5, 4).values())
    assert ours.wrong == ours.switches == 0
    assert ours.right >= best.right
