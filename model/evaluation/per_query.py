"""What was found for each query, as a Parquet table: written here, and read back as one side of a comparison.

Reading loads neither torch nor pandas: keyreid compare is to start at once.

Letters: N queries, S seeds, M metrics.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from keyreid.pipeline.commit import commit_file
from keyreid.pipeline.errors import FormatError, SettingsError

if TYPE_CHECKING:
    from keyreid.pipeline.manifest import Manifest

    from .measurement import Measurement
    from .results import RunResults

PER_QUERY_FILE = "per-query.parquet"  # in the folder of a report
NUM_NEAREST = 10
METRICS = ("mAP", "Rank-1", "mINP")
SCORES = ("average_precision", "first_match", "inverse_negative_penalty")  # null where a query is skipped
CONTEXT = ("dataset", "manifest", "protocol")  # what both sides must share
MADE_BY = ("method", "distance", "reranking", "clips")  # what may differ between sides, and not between seeds

SCHEMA = pa.schema(
    [
        ("run", pa.dictionary(pa.int32(), pa.string())),
        ("weights", pa.dictionary(pa.int32(), pa.string())),  # fingerprint; empty of a method without a network
        ("dataset", pa.dictionary(pa.int32(), pa.string())),
        ("manifest", pa.dictionary(pa.int32(), pa.string())),  # fingerprint: who is query and gallery
        ("identity_split", pa.int32()),
        ("method", pa.dictionary(pa.int32(), pa.string())),
        ("protocol", pa.dictionary(pa.int32(), pa.string())),
        ("distance", pa.dictionary(pa.int32(), pa.string())),
        ("reranking", pa.dictionary(pa.int32(), pa.string())),
        ("clips", pa.dictionary(pa.int32(), pa.string())),  # JSON of how they were taken; empty: as published
        ("tracklet_id", pa.int64()),
        ("identity", pa.int64()),
        ("camera", pa.int32()),
        ("num_matches", pa.int64()),  # 0: the query is skipped, and the next three are null
        ("average_precision", pa.float64()),
        ("inverse_negative_penalty", pa.float64()),
        ("first_match", pa.int64()),  # rank of the nearest match, from 1
        ("nearest", pa.list_(pa.int64())),  # tracklet_id of up to ten, from near to far, as the protocol ranks them
        ("nearest_distances", pa.list_(pa.float32())),
        ("nearest_match", pa.list_(pa.bool_())),  # whether they are the query's person
    ]
)
READ = tuple(field.name for field in SCHEMA if field.name != "camera" and not field.name.startswith("nearest"))


def per_query_table(run: RunResults, measurement: Measurement, manifest: Manifest) -> pa.Table:
    """One row per query, in order of tracklet_id; columns as SCHEMA has them.

    Args:
        run: that the measurement is of.
        measurement: its rows.
        manifest: of the dataset, under the identity split.
    """
    metrics, ranking, selection = measurement.metrics, measurement.ranking, measurement.selection
    count = len(selection.queries)
    numbers = np.array([t.tracklet_id for t in selection.gallery])
    nearest = [measurement.nearest(query, NUM_NEAREST) for query in range(count)]
    skipped = metrics.num_matches == 0
    constants = {
        "run": run.checkpoint,
        "weights": measurement.weights,
        "dataset": manifest.name,
        "manifest": manifest.fingerprint,
        "identity_split": measurement.split,
        "method": measurement.method,
        "protocol": measurement.protocol.name,
        "distance": measurement.comparison.distance,
        "reranking": measurement.comparison.reranking_name,
        "clips": json.dumps(run.description, sort_keys=True) if run.description else "",
    }
    columns: dict[str, Any] = {
        **{name: [value] * count for name, value in constants.items()},
        **{name: [getattr(t, name) for t in selection.queries] for name in ("tracklet_id", "identity", "camera")},
        "num_matches": metrics.num_matches,
        "average_precision": metrics.average_precision,
        "inverse_negative_penalty": metrics.inverse_negative_penalty,
        "first_match": metrics.first_match,
        "nearest": [numbers[entries] for entries in nearest],
        "nearest_distances": [ranking.distances[query, entries] for query, entries in enumerate(nearest)],
        "nearest_match": [
            ranking.gallery_ids[entries] == ranking.query_ids[query] for query, entries in enumerate(nearest)
        ],
    }
    masks = dict.fromkeys(SCORES, skipped)
    arrays = [_array(columns[field.name], field.type, masks.get(field.name)) for field in SCHEMA]
    return pa.table(arrays, schema=SCHEMA)


def write_per_query(path: Path, tables: Sequence[pa.Table]) -> None:
    """Write all of it, or nothing."""
    table = pa.concat_tables(tables).unify_dictionaries()
    commit_file(path, lambda partial: pq.write_table(table, partial, compression="zstd"))


@dataclass(frozen=True)
class QueryScores:
    """What one side reached for each valid query.

    Attributes:
        paths: the files.
        made_by: the values of MADE_BY, the same of all seeds.
        runs: of each seed, on each identity split, for reading.
        contexts: identity split -> the values of CONTEXT.
        queries: int64 (N, 2), identity split and tracklet_id, ascending.
        identities: int64 (N,).
        values: float64 (S, N, M), shares from 0 to 1, whose means over N are METRICS.
    """

    paths: tuple[Path, ...]
    made_by: dict[str, str]
    runs: tuple[str, ...]
    contexts: dict[int, dict[str, str]]
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
        protocol: by name; may be left out where the files hold one.

    Raises:
        FormatError: not such a file.
        SettingsError: no rows of the method or protocol, several protocols to choose from, runs that are not seeds of
            each other, or not as many seeds on every identity split.
    """
    twice = [path for path in paths if list(paths).count(path) > 1]
    if twice:
        raise SettingsError(f"{twice[0]} is named twice", "each run once")
    tables = [_read(path) for path in paths]
    columns = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
    columns = _only(columns, "method", method)
    names = np.unique(columns["protocol"]).tolist()
    if protocol is None and len(names) > 1:
        raise SettingsError(
            f"{paths[0]} holds protocols {', '.join(names)}", "one", f"choose with --protocol, such as {names[0]!r}"
        )
    columns = _only(columns, "protocol", protocol or names[0])
    splits = _seeds(columns)
    first = [seeds[0] for seeds in splits.values()]
    num_seeds = len(next(iter(splits.values())))
    return QueryScores(
        tuple(paths),
        {name: str(columns[name][0]) for name in MADE_BY},
        tuple(str(rows["run"][0]) for seeds in splits.values() for rows in seeds),
        {split: {name: str(seeds[0][name][0]) for name in CONTEXT} for split, seeds in splits.items()},
        np.concatenate([np.stack([rows["identity_split"], rows["tracklet_id"]], axis=1) for rows in first]),
        np.concatenate([rows["identity"] for rows in first]),
        np.stack([np.concatenate([_values(seeds[seed]) for seeds in splits.values()]) for seed in range(num_seeds)]),
    )


def require_same(one: Mapping[str, object], other: Mapping[str, object], names: tuple[str, str], remedy: str) -> None:
    """Refuse what differs in any of some facts, which both name alike.

    Raises:
        SettingsError: names the first difference.
    """
    for what, value in one.items():
        theirs = other[what]
        if value == theirs:
            continue
        found = f"{names[0]} has {what} {value} and {names[1]} {theirs}"
        if isinstance(value, list) and isinstance(theirs, list):
            alone = sorted(set(value) ^ set(theirs), key=str)
            found = f"{names[0]} has {len(value):,} {what} and {names[1]} {len(theirs):,} (in one alone: {alone[0]})"
        raise SettingsError(found, f"the same {what}", remedy)


def _seeds(columns: dict[str, np.ndarray]) -> dict[int, list[dict[str, np.ndarray]]]:
    """Identity split -> the valid queries of each seed, in order of tracklet_id.

    Runs are seeds where nothing differs but the weights. The same weights twice in one file are a baseline that does
    not depend on the run, and count once; in two files they are a copy.
    """
    found: dict[int, list[dict[str, np.ndarray]]] = {}
    for split in np.unique(columns["identity_split"]).tolist():
        on_split = _where(columns, columns["identity_split"] == split)
        for weights in np.unique(on_split["weights"]).tolist():
            same = _where(on_split, on_split["weights"] == weights)
            files = np.unique(same["path"]).tolist()
            if len(files) > 1:
                raise SettingsError(
                    f"{files[0]} and {files[1]} hold the same weights ({weights or 'none'})",
                    "seeds: runs of different weights",
                    "name each run once",
                )
            rows = _where(same, (same["run"] == same["run"][0]) & (same["num_matches"] > 0))
            found.setdefault(split, []).append(_where(rows, np.argsort(rows["tracklet_id"], kind="stable")))
    counts = {split: len(seeds) for split, seeds in found.items()}
    if len(set(counts.values())) > 1:
        raise SettingsError(
            f"runs on identity splits: {', '.join(f'{count} on {split}' for split, count in counts.items())}",
            "as many on each",
            "leave some out, or measure the missing ones",
        )
    every = [rows for seeds in found.values() for rows in seeds]
    for rows in every[1:]:
        ours, theirs = ({name: one[name][0] for name in (*MADE_BY, "dataset", "protocol")} for one in (every[0], rows))
        require_same(ours, theirs, ("the first run", "another one"), "compare what differs: name it as the other side")
    for seeds in found.values():
        for rows in seeds[1:]:
            ours, theirs = (
                {"manifest": one["manifest"][0], "queries": one["tracklet_id"].tolist()} for one in (seeds[0], rows)
            )
            require_same(ours, theirs, ("the first run", "another one"), "measure both alike with keyreid-eval")
    return found


def _read(path: Path) -> dict[str, np.ndarray]:
    path = path / PER_QUERY_FILE if path.is_dir() else path
    if not path.is_file():
        raise FormatError(f"there is no file {path}", "per-query results, as keyreid-eval --per-query writes them")
    try:
        with pq.ParquetFile(path) as file:  # read_table would load pandas
            table = file.read(list(READ)).select(list(READ))
    except (pa.ArrowInvalid, pa.ArrowKeyError, KeyError, ValueError) as error:
        raise FormatError(
            f"{path} holds no per-query results of this version ({str(error).splitlines()[0]})",
            f"a Parquet table with the columns {', '.join(READ)}",
            "measure again with keyreid-eval --per-query",
        ) from error
    whole = ("identity_split", "tracklet_id", "identity", "num_matches")
    kinds = {name: float if name in SCORES else np.int64 if name in whole else np.str_ for name in READ}
    columns = {name: np.array(table[name].to_pylist(), kind) for name, kind in kinds.items()}  # null becomes NaN
    return {**columns, "path": np.full(len(table), str(path))}


def _only(columns: dict[str, np.ndarray], column: str, wanted: str) -> dict[str, np.ndarray]:
    chosen = columns[column] == wanted
    if not chosen.any():
        known = ", ".join(np.unique(columns[column]).tolist())
        raise SettingsError(f"nothing of {column} {wanted!r}", f"one of {known}")
    return _where(columns, chosen)


def _where(columns: dict[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
    return {name: values[rows] for name, values in columns.items()}


def _values(rows: dict[str, np.ndarray]) -> np.ndarray:
    """float64 (N, M)."""
    precision, first, penalty = (rows[name] for name in SCORES)
    return np.stack([precision, first == 1, penalty], axis=1)


def _array(values: list | np.ndarray, kind: pa.DataType, mask: np.ndarray | None) -> pa.Array:
    if pa.types.is_dictionary(kind):
        return pa.array(values, pa.string()).dictionary_encode()
    return pa.array(values, kind, mask=mask)
