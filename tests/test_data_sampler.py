from collections import Counter

import numpy as np
import pytest

from keyreid.model.data.sampler import Clip, IdentitySampler, evaluation_clips, training_clip
from keyreid.pipeline.errors import SettingsError
from keyreid.pipeline.records import Tracklet


def tracklets(*counts: int) -> list[Tracklet]:
    """The identities 0, 1, ... with so many tracklets each."""
    owners = [identity for identity, count in enumerate(counts) for _ in range(count)]
    return [Tracklet(i, "train", identity, 1, 0, 1) for i, identity in enumerate(owners)]


def sampler(*counts: int, seed: int = 0, num_identities: int = 3, clips: int = 2) -> IdentitySampler:
    return IdentitySampler(tracklets(*counts), num_identities=num_identities, clips_per_identity=clips, seed=seed)


def test_batches_hold_p_identities_with_k_clips_each():
    owner = {t.tracklet_id: t.identity for t in tracklets(1, 2, 3, 5, 9)}
    batches = sampler(1, 2, 3, 5, 9).batches(0)
    assert batches
    for batch in batches:
        identities = [owner[tracklet] for tracklet in batch]
        assert set(Counter(identities).values()) == {2} and len(set(identities)) == 3
        assert identities[0::2] == identities[1::2]  # identity by identity


def test_no_tracklet_twice_but_where_an_identity_has_too_few():
    used = Counter(tracklet for batch in sampler(1, 4, 4, 4).batches(3) for tracklet in batch)
    assert all(count == 1 for tracklet, count in used.items() if tracklet != 0)
    alone = [sampler(1, 1, 1).batches(epoch) for epoch in range(3)]
    assert all(Counter(epoch[0]) == {0: 2, 1: 2, 2: 2} for epoch in alone)


def test_everybody_gets_a_turn_over_the_epochs():
    used = {tracklet for epoch in range(20) for batch in sampler(1, 3, 3, 5).batches(epoch) for tracklet in batch}
    assert used == set(range(12))


def test_order_is_a_pure_function_of_seed_and_epoch():
    first = sampler(4, 4, 4, 4)
    first.batches(7)
    assert first.batches(1) == sampler(4, 4, 4, 4).batches(1)
    assert first.batches(1) != first.batches(2)
    assert first.batches(1) != sampler(4, 4, 4, 4, seed=1).batches(1)


@pytest.mark.parametrize(
    ("counts", "num_identities", "message"),
    [
        ((), 3, "no training tracklets; expected a train split"),
        ((4, 4), 3, "2 training identities; expected at least 3.*training.identities_per_batch=2"),
        ((4,), 3, "1 training identities.*add training identities"),
        ((4, 4), 1, "batches of 1 identities x 2 clips; expected at least 2 identities"),
    ],
)
def test_impossible_batches_are_refused(counts, num_identities, message):
    with pytest.raises(SettingsError, match=message):
        sampler(*counts, num_identities=num_identities)


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
    assert [len(evaluation_clips(400, 4, "aligned", limit)) for limit in (1, None)] == [1, 100]


def test_shifted_starts_add_whole_groups_between_the_others():
    def starts(num_frames: int, **options: int | None) -> list[int]:
        return [clip.frames[0] for clip in evaluation_clips(num_frames, 4, "aligned", **options)]

    assert starts(11, shifts=1) == [0, 4, 8]
    assert starts(11, shifts=2) == [0, 2, 4, 6, 8]  # 10 would leave one frame: the last group has shown it
    assert starts(7, shifts=4) == [0, 1, 2, 3, 4]  # every window of four, and the group that ends the tracklet
    assert starts(3, shifts=4) == [0]
    assert evaluation_clips(11, 4, "aligned", shifts=2)[1] == Clip((2, 3, 4, 5), 0)
