"""What the protocols say of the same distances, on a gallery of MARS's shape.

    .venv/bin/python benchmarks/protocols.py
    .venv/bin/python benchmarks/protocols.py --tables MARS/info

Features are made: 1.2 times a person's own vector, 0.5 times the camera's, --bias times that of this person under this
camera (light, pose, background: what makes tracklets of one camera alike), and 0.8 times noise; vectors are of 64
standard normal numbers. So a match under the query's own camera is easier to find than one under another, as with real
features. --tables takes identities, cameras and lengths of MARS's published tables instead of made ones; features are
made either way, so that the shares say what a protocol does and nothing of a network.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from mars_tracklets import made_tracklets, published_tracklets

from keyreid.model.embedding.descriptors import TrackletDescriptors
from keyreid.model.evaluation.measurement import measure
from keyreid.model.evaluation.protocols import Selection, find_protocol, own_cameras
from keyreid.model.evaluation.tables import rank_table
from keyreid.pipeline.records import Tracklet

PROTOCOLS = ("standard", "mars-official", "authors-code")
PERSON, CAMERA, NOISE = 1.2, 0.5, 0.8
BIASES = (0.0, 0.8, 1.2, 1.6)
WIDTH = 64


def make_features(tracklets: list[Tracklet], bias: float, seed: int) -> np.ndarray:
    """float32 (K, WIDTH); a distractor is a person of its own."""
    rng = np.random.default_rng(seed)
    people = np.array([t.identity or -1 - t.tracklet_id for t in tracklets])
    cameras = np.array([t.camera for t in tracklets])
    groups = (people, cameras, people * 100 + cameras, np.arange(len(tracklets)))
    total = np.zeros((len(tracklets), WIDTH))
    for group, weight in zip(groups, (PERSON, CAMERA, bias, NOISE), strict=True):
        _, member = np.unique(group, return_inverse=True)
        total += weight * rng.normal(size=(member.max() + 1, WIDTH))[member]
    return total.astype(np.float32)


def misalignment(selection: Selection) -> tuple[float, float, int, int]:
    """Shares of query and gallery cameras that are another tracklet's; same-camera matches that stay, and all."""
    wrong, own = [], []
    for side, cameras in ((selection.queries, selection.query_cameras), (selection.gallery, selection.gallery_cameras)):
        own.append(np.array(own_cameras(side)))
        wrong.append(float((own[-1] != cameras).mean()))
    stay = every = 0
    gallery_ids = np.array([t.identity for t in selection.gallery])
    for query, camera, used in zip(selection.queries, own[0], selection.query_cameras, strict=True):
        same = (gallery_ids == query.identity) & (own[1] == camera)
        every += int(same.sum())
        stay += int((same & (np.array(selection.gallery_cameras) != used)).sum())
    return wrong[0], wrong[1], stay, every


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=Path, help="MARS's info folder")
    parser.add_argument("--bias", type=float, nargs="+", default=BIASES)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    tracklets = published_tracklets(options.tables) if options.tables else made_tracklets()
    selections = {name: find_protocol(name).select(tracklets) for name in PROTOCOLS}
    measured = []
    for bias in options.bias:
        descriptors = TrackletDescriptors.of(tracklets, make_features(tracklets, bias, options.seed), "made")
        for name, selection in selections.items():
            measured.append(measure(f"bias {bias:g}", descriptors, find_protocol(name), selection))
    print(rank_table(measured).text())
    for name, selection in selections.items():
        queries, gallery, stay, every = misalignment(selection)
        print(
            f"{name}: {100 * queries:.1f} % of the query and {100 * gallery:.1f} % of the gallery cameras are another "
            f"tracklet's; {stay:,} of {every:,} same-camera matches stay"
        )


if __name__ == "__main__":
    main()
