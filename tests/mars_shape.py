"""Test tracklets with the counts of MARS's published tables; benchmarks rank them too."""

from __future__ import annotations

NUM_JUNK, NUM_DISTRACTORS, NUM_PERSONS, NUM_QUERIES, NUM_GALLERY = 870, 3248, 626, 1980, 9330
ONE_CAMERA = 140  # persons whom the gallery saw under camera 1 alone: their query of camera 1 has no match in it


def mars_rows() -> list[tuple[int, int, bool]]:
    """Identity, camera and whether it is a query, of the 12,180 test tracklets: junk and distractors first, as there.

    Of the persons, 140 have queries under cameras 1 and 2, so that those without a match in the gallery have one among
    the queries; the others have queries under cameras 1 to 3 or 4, and a dozen gallery tracklets under all six.
    """
    several = range(ONE_CAMERA + 1, NUM_PERSONS + 1)
    extra = NUM_QUERIES - 2 * ONE_CAMERA - 3 * len(several)  # persons with a fourth query
    left = NUM_GALLERY - NUM_DISTRACTORS - ONE_CAMERA
    rows = [(-1, 1, False)] * NUM_JUNK + [(0, 1 + row % 6, False) for row in range(NUM_DISTRACTORS)]
    for person in range(1, ONE_CAMERA + 1):
        rows += [(person, 1, True), (person, 2, True), (person, 1, False)]
    for place, person in enumerate(several):
        rows += [(person, camera, True) for camera in range(1, 5 if place < extra else 4)]
        count = left // len(several) + (place < left % len(several))
        rows += [(person, 1 + number % 6, False) for number in range(count)]
    return rows
