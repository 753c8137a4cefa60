"""The order of training: batches of P identities x K clips, a pure function of (seed, epoch)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from math import gcd

import numpy as np

from keyreid.pipeline.errors import SettingsError
from keyreid.pipeline.records import Tracklet

from .seeds import numpy_generator


class IdentitySampler:
    """Batches of tracklet ids: P different identities, K tracklets of each, identity by identity.

    In an epoch each identity's tracklets are shuffled and cut into groups of K; a remainder shorter than K waits for
    another epoch's shuffle, and an identity with fewer than K tracklets repeats them (each time another clip is drawn
    from them). Batches take one group from each of P identities until fewer than P identities have one left.

    Args:
        tracklets: the training tracklets.
        num_identities: P.
        clips_per_identity: K.
        seed: of the run.

    Raises:
        SettingsError: no tracklet, P below 2, K below 1, or fewer identities than P.
    """

    def __init__(
        self, tracklets: Sequence[Tracklet], *, num_identities: int, clips_per_identity: int, seed: int
    ) -> None:
        by_identity: dict[int, list[int]] = defaultdict(list)
        for tracklet in tracklets:
            by_identity[tracklet.identity].append(tracklet.tracklet_id)
        if not by_identity:
            raise SettingsError(
                "no training tracklets", "a train split", "index the dataset with training identities first"
            )
        if num_identities < 2 or clips_per_identity < 1:
            raise SettingsError(
                f"batches of {num_identities} identities x {clips_per_identity} clips",
                "at least 2 identities (the triplet loss needs a stranger) and 1 clip of each",
            )
        if len(by_identity) < num_identities:
            remedy = f"lower it with --set training.identities_per_batch={len(by_identity)}"
            raise SettingsError(
                f"{len(by_identity)} training identities",
                f"at least {num_identities}, the identities of one batch",
                remedy if len(by_identity) > 1 else "add training identities",
            )
        self._tracklets = {identity: np.array(ids) for identity, ids in sorted(by_identity.items())}
        self._num_identities, self._clips, self._seed = num_identities, clips_per_identity, seed

    @property
    def batch_size(self) -> int:
        return self._num_identities * self._clips

    def batches(self, epoch: int) -> list[list[int]]:
        """The batches of one epoch: lists of P * K tracklet ids."""
        generator = numpy_generator("sampler", self._seed, epoch)
        groups = {identity: self._groups(ids, generator) for identity, ids in self._tracklets.items()}
        left = list(groups)
        batches = []
        while len(left) >= self._num_identities:
            chosen = [left[place] for place in generator.permutation(len(left))[: self._num_identities]]
            batches.append([int(tracklet) for identity in chosen for tracklet in groups[identity].pop()])
            left = [identity for identity in left if groups[identity]]
        return batches

    def _groups(self, ids: np.ndarray, generator: np.random.Generator) -> list[np.ndarray]:
        if len(ids) < self._clips:
            repeats = generator.choice(ids, self._clips - len(ids))
            return [generator.permutation(np.concatenate([ids, repeats]))]
        whole = len(ids) // self._clips
        return list(generator.permutation(ids)[: whole * self._clips].reshape(whole, self._clips))


def check_shares(num_identities: int, world_size: int) -> None:
    """Refuse a number of identities that `world_size` ranks cannot share equally.

    Raises:
        SettingsError: with the factor that makes it a number that they can.
    """
    if num_identities % world_size:
        factor = world_size // gcd(num_identities, world_size)
        raise SettingsError(
            f"batches of {num_identities} identities for {world_size} processes",
            f"a multiple of {world_size}: each process takes whole identities",
            f"multiply training.batch_scale by {factor} (--set training.batch_scale={factor} if it is not set yet) for "
            f"batches of {factor * num_identities} at {factor} times the learning rates, or use another number of processes",
        )
