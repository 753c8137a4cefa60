"""The page: page.html filled in, with its style and its script inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from keyreid.model.html import STYLE, table
from keyreid.pipeline.environment import package_versions
from keyreid.pipeline.skeleton import PARTS

from ..camera_pairs import CameraPairs
from ..contributions import FEATURES
from ..tables import table_rows, threshold_rows
from .clip_maps import LEAST_PEAK
from .evaluation import PACKAGES, Evaluation
from .explanations import Answer, Explanation
from .rankings import NUM_STRIPS, Strip
from .thumbnails import webp_uri

PART_NAMES = tuple(name.replace("_", " ") for name in PARTS)


@dataclass(frozen=True)
class Contents:
    """What a page is made of.

    Attributes:
        evaluation: the numbers.
        figures: name -> <svg> element.
        cameras: Rank-1 between cameras.
        strips: in the order in which they are first shown.
        explanations: of some of the strips' queries.
    """

    evaluation: Evaluation
    figures: Mapping[str, str]
    cameras: CameraPairs
    strips: Sequence[Strip]
    explanations: Sequence[Explanation]


def render_page(contents: Contents) -> str:
    """HTML that loads nothing."""
    evaluation = contents.evaluation
    trained = evaluation.measurements[0]
    results = [one.to_dict() for one in evaluation.measurements]
    thresholds = threshold_rows(results)
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_resource), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters.update(percent=_percent, fine_percent=_fine_percent, number=_number, webp=webp_uri)
    return environment.get_template("page.html").render(
        style=Markup(STYLE + _resource("page.css")),
        script=Markup(_resource("page.js")),
        evaluation=evaluation,
        stamp=evaluation.stamp(),
        trained=trained,
        metrics=trained.metrics,
        results=Markup(table(table_rows(evaluation.measurements))),
        thresholds=Markup(table(thresholds)) if thresholds else "",
        figures={name: Markup(figure) for name, figure in contents.figures.items()},
        cameras=_camera_cells(contents.cameras),
        strips=contents.strips,
        num_strips=NUM_STRIPS,
        query_cameras=sorted({strip.row.query.camera for strip in contents.strips}),
        explanations=contents.explanations,
        contribution_bars=_contribution_bars,
        parts=PART_NAMES,
        least_peak=LEAST_PEAK,
        variant=evaluation.model["variant"],
        pooling=evaluation.model["part_pooling"],
        guidance=evaluation.model["guidance"],
        counts=Markup(table(_count_rows(evaluation.dataset))),
        facts=Markup(table([["", ""], *_facts(evaluation)])),
        model=Markup(table([["setting", "value"], *([key, str(value)] for key, value in evaluation.model.items())])),
    )


def _resource(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _fine_percent(share: float) -> str:
    return f"{100 * abs(share):.1f} %"  # a share of 0 may be -1e-8 after rounding


def _number(value: float) -> str:
    return f"{value:.4g}"


def _camera_cells(cameras: CameraPairs) -> dict[str, Any]:
    """Rows of cells: share and counts, or None where no query counts."""
    rank1 = cameras.rank1
    rows = [
        {
            "camera": int(camera),
            "cells": [
                {"share": share, "found": int(found), "queries": int(queries)} if np.isfinite(share) else None
                for share, found, queries in zip(rank1[row], cameras.found[row], cameras.queries[row], strict=True)
            ],
        }
        for row, camera in enumerate(cameras.query_cameras)
    ]
    return {"columns": cameras.gallery_cameras.tolist(), "rows": rows}


def _contribution_bars(answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """For each feature a bar for each answer, as shares of the longest one."""
    longest = max(float(answer.contributions.values.max()) for answer in answers) or 1.0
    return [
        {
            "feature": feature,
            "bars": [
                {
                    "is_match": answer.is_match,
                    "value": float(answer.contributions.values[place]),
                    "length": 100 * float(answer.contributions.values[place]) / longest,
                    "seen": float(answer.contributions.seen[place]),
                }
                for answer in answers
            ],
        }
        for place, feature in enumerate(FEATURES)
    ]


def _count_rows(dataset: Mapping[str, Any]) -> list[list[str]]:
    counts = dataset["counts"]
    columns = list(next(iter(counts.values())))
    return [["split", *columns], *([split, *(str(row[name]) for name in columns)] for split, row in counts.items())]


def _facts(evaluation: Evaluation) -> list[list[str]]:
    facts = {
        "checkpoint": evaluation.checkpoint,
        "weights and configuration": f"fingerprint {evaluation.fingerprint}",
        "data": f"fingerprint {evaluation.dataset['fingerprint']}",
        **package_versions(*PACKAGES),
    }
    return [[key, str(value)] for key, value in facts.items()]
