"""The page: page.html filled in, with its style and its script inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup

from keyreid.model.html import STYLE, table
from keyreid.pipeline.environment import package_versions
from keyreid.pipeline.skeleton import PARTS

from ..distances import FEATURES
from ..measurement import Share
from ..pictures import webp_uri
from ..results import PACKAGES, RunResults
from ..tables import few_errors, few_persons, percent, rank_table, span, threshold_table
from .clip_maps import LEAST_PEAK
from .explanations import Answer, Explanation
from .plots import CameraPairs
from .strips import NUM_STRIPS, Strip

PART_NAMES = tuple(name.replace("_", " ") for name in PARTS)


@dataclass(frozen=True)
class Contents:
    """What a page is made of.

    Attributes:
        run: the numbers.
        figures: name -> <svg> element.
        cameras: Rank-1 between cameras.
        strips: in the order in which they are first shown.
        explanations: of some of the strips' queries.
    """

    run: RunResults
    figures: Mapping[str, str]
    cameras: CameraPairs
    strips: Sequence[Strip]
    explanations: Sequence[Explanation]


def render_page(contents: Contents) -> str:
    """A self-contained page."""
    run = contents.run
    trained = run.measurements[0]
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_resource), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters.update(
        percent=_percent,
        fine_percent=_fine_percent,
        number=_number,
        webp=webp_uri,
        share=percent,
        span=span,
        few_errors=few_errors,
    )
    environment.tests["figure"] = lambda cell: isinstance(cell, Share)
    return environment.get_template("page.html").render(
        style=Markup(STYLE + _resource("page.css")),
        script=Markup(_resource("page.js")),
        run=run,
        stamp=run.stamp(),
        trained=trained,
        metrics=trained.metrics,
        few_persons=few_persons(trained.num_persons),
        results=rank_table(run.measurements),
        thresholds=threshold_table(run.measurements),
        figures={name: Markup(figure) for name, figure in contents.figures.items()},
        cameras=_camera_cells(contents.cameras),
        strips=contents.strips,
        num_strips=NUM_STRIPS,
        query_cameras=sorted({strip.query.camera for strip in contents.strips}),
        explanations=contents.explanations,
        contribution_bars=_contribution_bars,
        parts=PART_NAMES,
        least_peak=LEAST_PEAK,
        variant=run.model["variant"],
        pooling=run.model["part_pooling"],
        guidance=run.model["guidance"],
        counts=Markup(table(_count_rows(run.dataset))),
        facts=Markup(table([["", ""], *_facts(run)])),
        model=Markup(table([["setting", "value"], *([key, str(value)] for key, value in run.model.items())])),
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
    """Rows of cells: Rank-1 and counts; no figure where no query counts."""
    rows = [
        {
            "camera": int(camera),
            "cells": [
                {"figure": cameras.figure(row, column), "found": int(found), "queries": int(queries)}
                for column, (found, queries) in enumerate(zip(cameras.found[row], cameras.queries[row], strict=True))
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


def _facts(run: RunResults) -> list[list[str]]:
    facts = {
        "checkpoint": run.checkpoint,
        "weights and configuration": f"fingerprint {run.fingerprint}",
        "data": f"fingerprint {run.dataset['fingerprint']}",
        **package_versions(*PACKAGES),
    }
    return [[key, str(value)] for key, value in facts.items()]
