"""Are these numbers pixels of these frames? A wrong unit would not fail anywhere: it would train on nonsense."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import SourceError
from ..skeleton import JOINTS, NUM_JOINTS

FAR_OUTSIDE = 0.10  # of the frame's width or height; networks do place joints a little outside
TOLERATED = 0.03  # share of the joints that may be farther
NORMALISED = 2.0  # pixels; a person is larger
EXPECTED = "pixels of the frame, origin at its top left, x before y"


def check_units(keypoints: np.ndarray, sizes: np.ndarray, claimed: np.ndarray, names: Sequence[str]) -> None:
    """Refuse coordinates that cannot be pixels of their frames.

    Args:
        keypoints: float32 (F, 17, 3); joints of confidence 0 do not count.
        sizes: int (F, 2), width and height in pixels, none of them 0.
        claimed: int (F, 2), the sizes that the source names; 0 where it is silent.
        names: of the F frames, for errors.

    Raises:
        SourceError: the source names another size; the joints of all frames together lie within two pixels of the
            corner; or more than 3 % of them lie farther outside than a tenth of the frame's size.
    """
    other = (claimed != sizes).any(1) & claimed.any(1)
    if other.any():
        frame = int(other.argmax())
        raise SourceError(
            f"the source says that {names[frame]} is {_text(claimed[frame])}",
            f"{_text(sizes[frame])}, the frame's size",
            "scale the coordinates and the sizes beside them to the frames",
        )
    used = keypoints[..., 2] > 0
    positions = keypoints[..., :2]
    if used.sum() >= NUM_JOINTS and np.abs(positions[used]).max() <= NORMALISED < sizes.min() / 4:
        raise SourceError(
            f"all coordinates lie between {positions[used].min():.3g} and {positions[used].max():.3g}",
            EXPECTED,
            "they are probably normalised to 0..1: multiply x by the frame's width and y by its height",
        )
    relative = positions / sizes[:, None]
    far = used & ((relative < -FAR_OUTSIDE) | (relative > 1 + FAR_OUTSIDE)).any(-1)
    if far.sum() > TOLERATED * used.sum():
        frame, joint = np.argwhere(far)[0]
        x, y = positions[frame, joint]
        raise SourceError(
            f"{far.sum():,} of {used.sum():,} joints lie far outside their frames, such as {JOINTS[joint]} at "
            f"({x:.1f}, {y:.1f}) of {names[frame]}, which is {_text(sizes[frame])}",
            EXPECTED,
            "shift or scale them: they may be pixels of the whole picture that the frame was cut from, of a frame of "
            "another size, or y before x",
        )


def _text(size: np.ndarray) -> str:
    return f"{size[0]}x{size[1]}"
