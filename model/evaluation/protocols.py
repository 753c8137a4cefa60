"""Which tracklets are queries and which are gallery: protocols by name, so that no number stands without one."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from keyreid.pipeline.errors import SettingsError, SourceError
from keyreid.pipeline.manifest import Manifest
from keyreid.pipeline.records import Tracklet

from ..data.sampler import evaluation_clips

ALL = "all"
NOT_COMPARABLE = "not comparable"
AUTHORS_CLIP_LENGTH = 4


@dataclass(frozen=True)
class Selection:
    """The two sides of a ranking.

    Attributes:
        queries, gallery: tracklets in order of tracklet_id; a tracklet may be on both sides.
        query_cameras, gallery_cameras: the camera that each is filtered with: its own, but under `authors-code`.
    """

    queries: tuple[Tracklet, ...]
    gallery: tuple[Tracklet, ...]
    query_cameras: tuple[int, ...]
    gallery_cameras: tuple[int, ...]

    @property
    def tracklets(self) -> tuple[Tracklet, ...]:
        """Both sides together, each tracklet once, in order of tracklet_id: what has to be embedded."""
        unique = {tracklet.tracklet_id: tracklet for tracklet in (*self.queries, *self.gallery)}
        return tuple(unique[tracklet_id] for tracklet_id in sorted(unique))


@dataclass(frozen=True)
class Protocol:
    """A named way to choose queries and gallery.

    Gallery entries with the query's identity and camera are always removed.

    Attributes:
        name: what it is asked for by.
        summary: one sentence for the report.
        gallery_splits: the manifest's splits that make the gallery.
        misaligned_cameras: filter with the camera of another tracklet, as `authors_cameras` says.
        num_splits: divisions of the identities whose mean is the result; 0 where any single one is.
        own_splits: these divisions are not those of published results.
        trapezoid: average precision as in the published MATLAB code; see rank_metrics.
    """

    name: str
    summary: str
    gallery_splits: tuple[str, ...] = ("gallery",)
    misaligned_cameras: bool = False
    num_splits: int = 0
    own_splits: bool = False
    trapezoid: bool = False

    @property
    def comparable(self) -> bool:
        """Whether its figures may be compared with published ones."""
        return not self.misaligned_cameras

    def label(self, splits: Collection[int] = ()) -> str:
        """What stands next to every figure: the name, what it is a mean of, and whether it may be compared.

        Args:
            splits: the identity splits that the figure is from.
        """
        if not self.comparable:
            return f"{self.name} ({NOT_COMPARABLE})"
        if not self.num_splits:
            return self.name
        found, own = sorted(set(splits)), "own " * self.own_splits
        if len(found) == self.num_splits:
            return f"{self.name} (mean of {self.num_splits} {own}splits)"
        if len(found) == 1:
            return f"{self.name} ({own}split {found[0]} alone)"
        return f"{self.name} ({len(found)} of {self.num_splits} {own}splits)"

    def on(self, manifest: Manifest) -> Protocol:
        """The same, knowing whether the dataset's divisions are its own."""
        return replace(self, own_splits=bool(self.num_splits and manifest.notes.get("own_splits")))

    def require(self, manifest: Manifest) -> None:
        """Whether it may be used on a dataset.

        Raises:
            SettingsError: it is the protocol of another dataset, or the dataset lacks the divisions.
        """
        if self.num_splits and (manifest.name, len(manifest.identity_splits)) != (self.name, self.num_splits):
            raise SettingsError(
                f"protocol {self.name} for {manifest.name}, which has {len(manifest.identity_splits) or 'no'} "
                "identity splits",
                f"the dataset {self.name} with its {self.num_splits} identity splits",
                "use protocol standard",
            )

    def select(self, tracklets: Sequence[Tracklet]) -> Selection:
        """Choose from the tracklets of a dataset, such as manifest.tracklets or store.tracklets("query", "gallery").

        Raises:
            SourceError: there is no query, or no gallery.
        """
        in_order = sorted(tracklets, key=lambda t: t.tracklet_id)
        queries = tuple(t for t in in_order if t.split == "query")
        gallery = tuple(t for t in in_order if t.split in self.gallery_splits)
        for side, chosen in (("query", queries), ("gallery", gallery)):
            if not chosen:
                raise SourceError(
                    f"the dataset has no {side} tracklets with readable frames",
                    f"at least one (protocol {self.name})",
                    f"give it tracklets of split {side!r}: see docs/data-format.md",
                )
        cameras = authors_cameras if self.misaligned_cameras else own_cameras
        return Selection(queries, gallery, cameras(queries), cameras(gallery))


def own_cameras(tracklets: Sequence[Tracklet]) -> tuple[int, ...]:
    """Each tracklet's camera."""
    return tuple(tracklet.camera for tracklet in tracklets)


def authors_cameras(tracklets: Sequence[Tracklet]) -> tuple[int, ...]:
    """The camera that the public code of KeyRe-ID and VID-Trans-ReID takes for each tracklet (finding M6).

    It lists a camera once for each frame that it samples (clips of four, the last one filled up, at most 41 clips) and
    reads the list as if there were one per tracklet: tracklet i gets the i-th frame's camera, which is an earlier
    tracklet's.
    """
    clips = [len(evaluation_clips(t.num_frames, AUTHORS_CLIP_LENGTH, "reference")) for t in tracklets]
    cameras = np.repeat(own_cameras(tracklets), AUTHORS_CLIP_LENGTH * np.array(clips))
    return tuple(cameras[: len(tracklets)].tolist())


def _ten_splits(name: str) -> Protocol:
    return Protocol(
        name,
        "Queries are of one camera and the gallery of the other. The result is the mean over the dataset's ten "
        "divisions of the identities, each measured with a network that was trained on that division.",
        num_splits=10,
    )


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "standard",
            "Each query is ranked against the gallery tracklets, without those of its own identity and camera; "
            "queries without a match in another camera are skipped.",
        ),
        Protocol(
            "mars-official",
            "As standard, but the queries themselves are part of the gallery, as in the evaluation published with "
            "MARS: a query may be matched by another camera's query of the same person. Average precision is the plain "
            "one of public Python code, not the trapezoid one of that evaluation (mars-matlab).",
            ("query", "gallery"),
        ),
        Protocol(
            "mars-matlab",
            "As mars-official, with the average precision of the MATLAB code published with MARS: the area of "
            "trapezoids under the curve of precision and recall, which is never larger than the plain one.",
            ("query", "gallery"),
            trapezoid=True,
        ),
        _ten_splits("ilids-vid"),
        _ten_splits("prid2011"),
        Protocol(
            "authors-code",
            "Not comparable with any other: as standard, but tracklets are filtered with the cameras of other "
            "tracklets, as the public code of KeyRe-ID and VID-Trans-ReID does.",
            misaligned_cameras=True,
        ),
    )
}


def find_protocol(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
        SettingsError: there is none; the message names the nearest.
    """
    if name not in PROTOCOLS:
        near = difflib.get_close_matches(name, [*PROTOCOLS, ALL], n=1)
        raise SettingsError(
            f"unknown protocol {name!r}",
            "one of " + ", ".join(PROTOCOLS) + f", or {ALL}",
            f"did you mean {near[0]}?" if near else "",
        )
    return PROTOCOLS[name]


def find_protocols(name: str, manifest: Manifest) -> tuple[Protocol, ...]:
    """The protocol of that name, or with "all" every protocol that the dataset has, `standard` first.

    Raises:
        SettingsError: there is none of that name, or not for this dataset.
    """
    if name == ALL:
        return tuple(p.on(manifest) for p in PROTOCOLS.values() if not p.num_splits or p.name == manifest.name)
    protocol = find_protocol(name)
    protocol.require(manifest)
    return (protocol.on(manifest),)
