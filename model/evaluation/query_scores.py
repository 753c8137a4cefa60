"""Per-query results of keyreid-eval read back: one side of a comparison, of one network or of several seeds.

Letters: N queries, S seeds, M metrics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from keyreid.pipeline.errors import FormatError, SettingsError

from .per_query import PER_QUERY_FILE

METRICS = ("mAP", "Rank-1", "mINP")
CONTEXT = ("dataset", "manifest", "protocol")  # what both sides must share
MADE_BY = ("run", "method", "distance", "reranking")  # what may differ
COLUMNS = (
    *CONTEXT, *MADE_BY, "identity_split", "tracklet_id", "identity", "num_matches",
    "average_precision", "inverse_negative_penalty", "first_match",
)  # fmt: skip


@dataclass(frozen=True)
class QueryScores:
    """What one side reached for each valid query.

    Attributes:
        paths: the files.
        made_by: run, method, distance and re-ranking of each seed, for reading.
        contexts: identity split -> the values of CONTEXT.
        queries: int64 (N, 2), identity split and tracklet_id, ascending.
        identities: int64 (N,).
        values: float64 (S, N, M), shares from 0 to 1, whose means over N are METRICS.
    """

    paths: tuple[Path, ...]
    made_by: tuple[str, ...]
    contexts: dict[int, tuple[str, ...]]
    queries: np.ndarray
    identities: np.ndarray
    values: np.ndarray

    @property
    def num_seeds(self) -> int:
        return len(self.values)


def read_scores(paths: Sequence[Path], method: str = "trained", protocol: str | None = None) -> QueryScores:
    """The results of one method under one protocol.

    Args:
        paths: Parquet files of keyreid-eval --per-query, or folders of --report; several are seeds, as are several runs
            in one file. Runs on different identity splits complete each other.
        method: such as "trained".
        protocol: as the files name it; may be left out where they hold one.

    Raises:
        FormatError: not such a file.
        SettingsError: no rows of the method or protocol, several protocols to choose from, or not as many seeds on
            every identity split.
    """
    table = pd.concat([_read(path) for path in paths], ignore_index=True)
    table = _only(table, "method", method)
    # An identity split stands in the protocol's label; without it the runs of a protocol have one name.
    names = sorted({_plain(label) for label in table["protocol"]})
    if protocol is None and len(names) > 1:
        raise SettingsError(
            f"{paths[0]} holds protocols {', '.join(names)}", "one", f"choose with --protocol, such as {names[0]!r}"
        )
    table = table[table["protocol"].map(_plain) == (protocol or names[0])]
    if not len(table):
        raise SettingsError(f"{paths[0]} holds nothing of protocol {protocol!r}", f"one of {', '.join(names)}")
    runs = _runs(table)
    first = pd.concat([found[0] for found in runs.values()])
    num_seeds = len(next(iter(runs.values())))
    return QueryScores(
        tuple(paths),
        tuple(", ".join(str(rows[name].iloc[0]) for name in MADE_BY) for found in runs.values() for rows in found),
        {split: tuple(str(found[0][name].iloc[0]) for name in CONTEXT) for split, found in runs.items()},
        first[["identity_split", "tracklet_id"]].to_numpy(np.int64),
        first["identity"].to_numpy(np.int64),
        np.stack([np.concatenate([_values(found[seed]) for found in runs.values()]) for seed in range(num_seeds)]),
    )


def _runs(table: pd.DataFrame) -> dict[int, list[pd.DataFrame]]:
    """Identity split -> the valid queries of each seed."""
    runs: dict[int, list[pd.DataFrame]] = {}
    for (split, *_), rows in table.groupby(["identity_split", "path", *MADE_BY], sort=True):
        valid = rows[rows["num_matches"] > 0].sort_values("tracklet_id")
        if not valid["tracklet_id"].is_unique:
            raise SettingsError(f"{rows['path'].iloc[0]} is named twice", "each run once")
        runs.setdefault(int(split), []).append(valid)
    counts = {split: len(found) for split, found in runs.items()}
    if len(set(counts.values())) > 1:
        raise SettingsError(
            f"runs on identity splits: {', '.join(f'{count} on {split}' for split, count in counts.items())}",
            "as many on each",
            "leave some out, or measure the missing ones",
        )
    for found in runs.values():
        for other in found[1:]:
            check_alike(_facts(found[0]), _facts(other), ("the first run", "another one"))
    return runs


def _facts(rows: pd.DataFrame) -> dict[str, object]:
    return {**{name: rows[name].iloc[0] for name in CONTEXT}, "queries": rows["tracklet_id"].tolist()}


def check_alike(one: Mapping[str, object], other: Mapping[str, object], names: tuple[str, str]) -> None:
    """Refuse to compare what was not measured on the same queries and gallery.

    Raises:
        SettingsError: names the first difference.
    """
    for what, value in one.items():
        theirs = other[what]
        if value == theirs:
            continue
        found = f"{names[0]} has {what} {value} and {names[1]} {theirs}"
        if what == "queries" and isinstance(value, list) and isinstance(theirs, list):
            alone = sorted(set(value) ^ set(theirs), key=str)
            found = f"{names[0]} has {len(value):,} {what} and {names[1]} {len(theirs):,} (in one alone: {alone[0]})"
        raise SettingsError(found, f"the same {what}", "measure both alike with keyreid-eval")


def _plain(label: str) -> str:
    """A protocol's label without the identity splits that it speaks of."""
    return label.split(" (")[0]


def _read(path: Path) -> pd.DataFrame:
    path = path / PER_QUERY_FILE if path.is_dir() else path
    if not path.is_file():
        raise FormatError(f"there is no file {path}", "per-query results, as keyreid-eval --per-query writes them")
    try:
        table = pq.read_table(path, columns=list(COLUMNS)).to_pandas()
    except (pa.ArrowInvalid, pa.ArrowKeyError, KeyError, ValueError) as error:
        raise FormatError(
            f"{path} holds no per-query results of this version ({str(error).splitlines()[0]})",
            f"a Parquet table with the columns {', '.join(COLUMNS)}",
            "measure again with keyreid-eval --per-query",
        ) from error
    return table.astype({name: str for name in (*CONTEXT, *MADE_BY)}).assign(path=str(path))


def _only(table: pd.DataFrame, column: str, wanted: str) -> pd.DataFrame:
    found = table[table[column] == wanted]
    if not len(found):
        known = ", ".join(sorted(set(table[column])))
        raise SettingsError(f"nothing of {column} {wanted!r}", f"one of {known}")
    return found


def _values(rows: pd.DataFrame) -> np.ndarray:
    """float64 (N, M)."""
    first = (rows["first_match"] == 1).to_numpy(float)
    return np.column_stack([rows["average_precision"], first, rows["inverse_negative_penalty"]]).astype(float)
