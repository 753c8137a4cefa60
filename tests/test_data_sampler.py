from collections import Counter

import pytest

from keyreid.model.data.sampler import IdentitySampler
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
