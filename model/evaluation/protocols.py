"""Which tracklets are queries and which are gallery: protocols by name, so that no number stands without one."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from keyreid.pipeline.errors import SettingsError, SourceError
from keyreid.pipeline.records import Tracklet


@dataclass(frozen=True)
class Selection:
    """The two sides of a ranking.

    Attributes:
        queries, gallery: tracklets in order of tracklet_id; a tracklet may be on both sides.
    """

    queries: tuple[Tracklet, ...]
    gallery: tuple[Tracklet, ...]

    @property
    def tracklets(self) -> tuple[Tracklet, ...]:
        """Both sides together, each tracklet once, in order of tracklet_id: what has to be described."""
        unique = {tracklet.tracklet_id: tracklet for tracklet in (*self.queries, *self.gallery)}
        return tuple(unique[tracklet_id] for tracklet_id in sorted(unique))


@dataclass(frozen=True)
class Protocol:
    """A named way to choose queries and gallery.

    Identity and camera are always one number a tracklet, and rank_metrics always removes the gallery entries with
    the query's identity and camera.

    Attributes:
        name: stands beside every number measured under it.
        summary: one sentence for the report.
        gallery_splits: the manifest's splits that make the gallery.
    """

    name: str
    summary: str
    gallery_splits: tuple[str, ...]

    def select(self, tracklets: Sequence[Tracklet]) -> Selection:
        """Choose from the tracklets of a dataset, such as manifest.tracklets or store.tracklets("query", "gallery").

        Raises:
            SourceError: there is no query, or no gallery.
        """
        queries = tuple(t for t in tracklets if t.split == "query")
        gallery = tuple(t for t in tracklets if t.split in self.gallery_splits)
        for side, chosen in (("query", queries), ("gallery", gallery)):
            if not chosen:
                raise SourceError(
                    f"the dataset has no {side} tracklets with readable frames",
                    f"at least one (protocol {self.name})",
                    f"give it tracklets of split {side!r}: see docs/data-format.md",
                )
        return Selection(*(tuple(sorted(side, key=lambda t: t.tracklet_id)) for side in (queries, gallery)))


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "standard",
            "Each query is ranked against the gallery tracklets, without those of its own identity and camera; "
            "queries without a match under another camera are skipped.",
            ("gallery",),
        ),
        Protocol(
            "mars-official",
            "As standard, but the queries themselves are part of the gallery, as in the evaluation published with "
            "MARS: a query may be matched by another camera's query of the same person.",
            ("query", "gallery"),
        ),
    )
}


def find_protocol(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
        SettingsError: there is none; the message names the nearest.
    """
    if name not in PROTOCOLS:
        near = difflib.get_close_matches(name, PROTOCOLS, n=1)
        raise SettingsError(
            f"unknown protocol {name!r}",
            "one of " + ", ".join(PROTOCOLS),
            f"did you mean {near[0]}?" if near else "",
        )
    return PROTOCOLS[name]
