"""Which tracklets make a batch and which frames a clip: pure functions of where training stands."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Sequence
from math import gcd
from typing import NamedTuple

import numpy as np
import torch

from keyreid.pipeline.errors import SettingsError
from keyreid.pipeline.records import Tracklet

MAX_CLIPS = 41  # the authors' limit of 40 lets 41 through (finding M12)


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
        self.num_identities, self._clips, self._seed = num_identities, clips_per_identity, seed

    @property
    def batch_size(self) -> int:
        return self.num_identities * self._clips

    def batches(self, epoch: int) -> list[list[int]]:
        """The batches of one epoch: lists of P * K tracklet ids."""
        generator = numpy_generator("sampler", self._seed, epoch)
        groups = {identity: self._groups(ids, generator) for identity, ids in self._tracklets.items()}
        left = list(groups)
        batches = []
        while len(left) >= self.num_identities:
            chosen = [left[place] for place in generator.permutation(len(left))[: self.num_identities]]
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
            f"batches of {factor * num_identities} at {factor} times the learning rates, or use another number of "
            "processes",
        )


class Clip(NamedTuple):
    """Frames of one evaluation clip.

    Attributes:
        frames: indices of the tracklet's frames, one for each of the clip's T places.
        padding: how many of the last places repeat earlier frames of this clip. The authors' code gives those the
            weight 0 (finding M8), which the reference variant keeps.
    """

    frames: tuple[int, ...]
    padding: int


def training_clip(num_frames: int, clip_length: int, generator: np.random.Generator) -> tuple[int, ...]:
    """One random frame from each of `clip_length` equal chunks of the tracklet, in time order.

    A tracklet shorter than the clip repeats frames, still in time order.
    """
    edges = np.arange(clip_length + 1) * num_frames // clip_length
    ends = np.maximum(edges[1:], edges[:-1] + 1)  # a chunk of a short tracklet may be empty: take its first frame
    return tuple(int(frame) for frame in generator.integers(edges[:-1], ends))


def evaluation_clips(
    num_frames: int, clip_length: int, variant: str, max_clips: int | None = MAX_CLIPS, shifts: int = 1
) -> list[Clip]:
    """Consecutive groups of frames that cover the tracklet; the last one is padded by cycling through its own frames.

    With `shifts` S, whole groups that begin clip_length / S, 2 clip_length / S, ... frames later come between them, so
    that each frame is in up to S clips. Of more than `max_clips` groups, "aligned" takes groups spread evenly over the
    whole tracklet and "reference" the first ones (finding M12); None takes all.
    """
    starts = sorted({
        start
        for shift in range(shifts)
        for start in range(shift * clip_length // shifts, num_frames, clip_length)
        if shift == 0 or start + clip_length <= num_frames
    })  # fmt: skip
    chosen: np.ndarray = np.arange(len(starts))
    if max_clips is not None and len(starts) > max_clips:
        spread: np.ndarray = np.linspace(0, len(starts) - 1, max_clips).round().astype(int)
        chosen = chosen[:max_clips] if variant == "reference" else spread
    return [_group(starts[group], num_frames, clip_length) for group in chosen]


def _group(start: int, num_frames: int, clip_length: int) -> Clip:
    present = min(clip_length, num_frames - start)
    return Clip(tuple(start + place % present for place in range(clip_length)), clip_length - present)


def numpy_generator(purpose: str, *place: int) -> np.random.Generator:
    """A generator for one purpose at (seed, epoch, ...); other purposes and places give unrelated draws."""
    return np.random.default_rng(_sequence(purpose, place))


def torch_seed(purpose: str, *place: int) -> int:
    """A 63-bit seed for one purpose at (seed, epoch, ...)."""
    return int(_sequence(purpose, place).generate_state(1, np.uint64)[0] >> 1)


def torch_generator(purpose: str, *place: int) -> torch.Generator:
    """A CPU generator for one purpose at (seed, epoch, ...)."""
    return torch.Generator().manual_seed(torch_seed(purpose, *place))


def _sequence(purpose: str, place: tuple[int, ...]) -> np.random.SeedSequence:
    return np.random.SeedSequence([zlib.crc32(purpose.encode()), len(place), *place])
