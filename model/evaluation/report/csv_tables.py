"""The report's numbers as CSV; every table names dataset, protocol, distance and re-ranking in each row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from keyreid.pipeline.commit import commit_file
from keyreid.pipeline.skeleton import PARTS

from ..camera_pairs import CameraPairs, DistanceHistogram
from ..contributions import FEATURES
from ..measure import Measurement
from .evaluation import Evaluation
from .explanations import Explanation


def cmc_rows(measurements: Sequence[Measurement]) -> list[dict[str, Any]]:
    """A row for each method and rank."""
    return [
        {
            "method": one.method,
            "distance": one.comparison.distance,
            "reranking": one.comparison.reranking_name,
            "rank": rank,
            "share": share,
        }
        for one in measurements
        for rank, share in enumerate(one.metrics.cmc, start=1)
    ]


def histogram_rows(counts: DistanceHistogram) -> list[dict[str, Any]]:
    """A row for each bin."""
    return [
        {
            "from": counts.edges[place],
            "to": counts.edges[place + 1],
            "one_person_two_cameras": counts.matches[place],
            "two_persons_two_cameras": counts.others[place],
            "two_persons_one_camera": counts.same_camera[place],
        }
        for place in range(len(counts.matches))
    ]


def camera_rows(pairs: CameraPairs) -> list[dict[str, Any]]:
    """A row for each pair of cameras that has queries."""
    return [
        {
            "query_camera": camera,
            "gallery_camera": other,
            "queries": pairs.queries[row, column],
            "found": pairs.found[row, column],
            "rank1": pairs.rank1[row, column],
        }
        for row, camera in enumerate(pairs.query_cameras)
        for column, other in enumerate(pairs.gallery_cameras)
        if pairs.queries[row, column]
    ]


def contribution_rows(explanations: Sequence[Explanation]) -> list[dict[str, Any]]:
    """A row for each explained query, answer and feature."""
    return [
        {
            "query_tracklet": one.query.tracklet_id,
            "gallery_tracklet": answer.tracklet.tracklet_id,
            "is_match": answer.is_match,
            "rank": answer.rank,
            "ranked_distance": answer.distance,
            "feature": feature,
            "contribution": value,
            "seen_by_both": seen,
        }
        for one in explanations
        for answer in one.answers
        for feature, value, seen in zip(FEATURES, answer.contributions.values, answer.contributions.seen, strict=True)
    ]


def attention_rows(explanations: Sequence[Explanation]) -> list[dict[str, Any]]:
    """A row for each explained tracklet and frame of the clip that is shown."""
    maps = {one.query.tracklet_id: one.maps for one in explanations}
    maps |= {answer.tracklet.tracklet_id: answer.maps for one in explanations for answer in one.answers}
    return [
        {"tracklet": tracklet, "frame": frame, "share": share}
        for tracklet, found in sorted(maps.items(), key=lambda item: item[0])
        for frame, share in zip(found.frames, found.frame_shares, strict=True)
    ]


def class_share_rows(explanations: Sequence[Explanation]) -> list[dict[str, Any]]:
    """A row for each explained query and part."""
    return [
        {"query_tracklet": one.query.tracklet_id, "part": part, "class_tokens": share, "largest_patch": largest}
        for one in explanations
        for part, share, largest in zip(PARTS, one.maps.class_shares, one.maps.largest_shares, strict=True)
    ]


def write_csv(path: Path, rows: Sequence[dict[str, Any]], evaluation: Evaluation) -> None:
    """Write all of it, or nothing."""
    first = evaluation.measurements[0]
    names = {
        "dataset": evaluation.dataset["name"],
        "identity_split": evaluation.dataset["identity_split"],
        "protocol": first.protocol,
        "distance": first.comparison.distance,
        "reranking": first.comparison.reranking_name,
        **evaluation.description,
    }
    table = pd.DataFrame([{**names, **row} for row in rows])
    commit_file(path, lambda partial: table.to_csv(partial, index=False, float_format="%.6g"))
