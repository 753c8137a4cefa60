"""The tables of keyreid-eval: every row says protocol, distance and re-ranking.

A result is a Mapping as Measurement.to_dict makes it; of several runs, `deviations` holds the deviation of each figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .measure import RANKS, Measurement

NAMES = ("method", "protocol", "distance", "re-ranking")
FIGURES = (*(f"rank{k}" for k in RANKS), "mAP", "mINP")
HEADERS = (*(f"Rank-{k}" for k in RANKS), "mAP", "mINP")

Result = Mapping[str, Any]


def table_rows(measurements: Sequence[Measurement]) -> list[list[str]]:
    """Cells of the table of rank figures, the header first; shares in percent."""
    return result_rows([one.to_dict() for one in measurements])


def result_rows(results: Sequence[Result]) -> list[list[str]]:
    """As table_rows, of results."""
    rows = [[*NAMES, *HEADERS, "queries"]]
    for result in results:
        deviations = result.get("deviations", {})
        cells = [_percent(result[name], deviations.get(name)) for name in FIGURES]
        rows.append([*_names(result), *cells, f"{result['num_valid_queries']} of {result['num_queries']}"])
    return rows


def threshold_rows(results: Sequence[Result]) -> list[list[str]]:
    """Cells of the table of figures that need a threshold, the header first; shares in percent.

    TMR: true-match rate at a false-match rate, over pairs. DIR: detection and identification rate at a false-alarm
    rate, over queries.
    """
    known = [result for result in results if "verification" in result and "open_set" in result]
    if not known:
        return []
    rates = known[0]["verification"]["false_match_rates"], known[0]["open_set"]["false_alarm_rates"]
    header = [f"TMR @ {100 * rate:g} %" for rate in rates[0]] + [f"DIR @ {100 * rate:g} %" for rate in rates[1]]
    rows = [[*NAMES, *header]]
    for result in known:
        verification, open_set = result["verification"], result["open_set"]
        shares = [*verification["true_match_rates"], *open_set["detection_and_identification_rates"]]
        rows.append([*_names(result), *(_percent(share) for share in shares)])
    return rows


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of the tables above for a terminal: names to the left, numbers to the right, a line under the header."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if column < len(NAMES) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)


def _names(result: Result) -> list[str]:
    return [result["method"], result["protocol"], result["distance"], result["reranking"]]


def _percent(share: float | None, deviation: float | None = None) -> str:
    if share is None:
        return "-"
    return f"{100 * share:.1f}" + (f" ± {100 * deviation:.1f}" if deviation is not None else "")
