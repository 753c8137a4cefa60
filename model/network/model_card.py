"""README.md of a folder of weights: what the network is, what it was trained on, and what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from string import Template
from typing import Any

from keyreid.pipeline.commit import commit_file

from .config import ModelConfig
from .weights import read_config

CARD_FILE = "README.md"

CARD = Template("""---
library_name: keyreid
tags: [person-re-identification, video, keypoints]
---
# KeyRe-ID, variant $variant, trained on $dataset

Embeds a video tracklet of a person as one vector, so that the same person can be found in other cameras.

| | |
| --- | --- |
$facts

A dataset has the name of its layout: the numbers of identities and cameras tell a whole copy from a part of one, or
from synthetic people in its layout.

## Figures

$figures

## Use

```python
from keyreid.model import load_model

model = load_model("FOLDER")  # this folder, wherever it lies
```

    keyreid-eval FOLDER PREPARED --protocol standard
    keyreid export FOLDER network.onnx

Frames are $height x $width pixels normalised with mean 0.5 and standard deviation 0.5; part weights come from
keypoints, prepared by keyreid-prep. $cameras

Whoever recognises people needs a lawful reason to. Nothing is known of how results differ between groups of people.
""")

NOT_MEASURED = """Not measured. `keyreid-eval FOLDER PREPARED --report REPORT` measures, and
`keyreid card FOLDER --metrics REPORT/metrics.json` writes this page again with what was found."""

FIGURES_NOTE = """In percent, means over the queries that have a match. Numbers of different protocols, distances or
datasets cannot be compared."""


def write_model_card(folder: Path, metrics: Sequence[Mapping[str, Any]] = ()) -> Path:
    """Write README.md next to config.json, from it and from what was measured.

    Args:
        folder: of `save_model`.
        metrics: contents of metrics.json (keyreid-eval --report), of these weights; what they hold of other methods
            is left out.

    Returns:
        The path of README.md; an older one is replaced.

    Raises:
        CheckpointError: there is no readable config.json.
    """
    config, extra = read_config(folder)
    text = model_card(config, extra, metrics)
    commit_file(folder / CARD_FILE, lambda partial: _write(partial, text))
    return folder / CARD_FILE


def model_card(config: ModelConfig, extra: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]] = ()) -> str:
    """The text; arguments as `read_config` and `write_model_card` have them."""
    height, width = config.frame_size
    return CARD.substitute(
        variant=config.variant,
        dataset=_dataset_name(extra),
        facts="\n".join(f"| {name} | {value} |" for name, value in _facts(config, extra)),
        figures=_figures(metrics) if metrics else NOT_MEASURED,
        height=height,
        width=width,
        cameras=(
            f"It knows the cameras {', '.join(map(str, config.camera_table))} and refuses others."
            if config.camera_scale
            else "It does not look at which camera a frame is from."
        ),
    )


def _dataset_name(extra: Mapping[str, Any]) -> str:
    return str(extra.get("dataset", {}).get("name", "a dataset that was not recorded"))


def _facts(config: ModelConfig, extra: Mapping[str, Any]) -> list[tuple[str, str]]:
    start = PurePath(config.pretrained).name  # where it lay says something of a machine and nothing of the network
    starts = {"": "random weights", "hub": "timm's pretrained weights"}
    if "origin" in extra:
        origin = extra["origin"]
        starts[""] = f"a network trained on {_dataset_name(origin)}, weights {origin['weights'][:16]}"
    dataset, counts = extra.get("dataset", {}), f"{config.num_identities} identities, {config.num_cameras} cameras"
    facts = [
        ("variant", config.variant),
        ("backbone", f"{config.backbone}, started from {starts.get(start, start)}"),
        ("clip", f"{config.clip_length} frames of {config.frame_size[0]}x{config.frame_size[1]}"),
        ("camera embedding", f"times {config.camera_scale:g}" if config.camera_scale else "none"),
        (
            "trained on",
            f"{_dataset_name(extra)}: {counts} in training, identity split {dataset.get('identity_split', 0)}",
        ),
    ]
    if config.variant == "aligned":
        facts.insert(1, ("parts", f"pooled by {config.part_pooling}, guided by {config.guidance}"))
    if "epochs" in extra:
        facts.append(("training", f"{extra['epochs']} epochs, {extra.get('steps', '?')} steps"))
    if "shards" in dataset:
        facts.append(("data", f"fingerprint of the shards {dataset['shards']}"))
    return facts


def _figures(metrics: Sequence[Mapping[str, Any]]) -> str:
    header = [
        "dataset",
        "identity split",
        "protocol",
        "distance",
        "re-ranking",
        "Rank-1",
        "Rank-5",
        "mAP",
        "mINP",
        "queries",
        "gallery",
    ]
    rows = [header, ["---"] * 5 + ["---:"] * 6]
    for measured in metrics:
        dataset, result = measured["dataset"], measured["results"][0]  # the trained network comes first
        shares = (result[name] for name in ("rank1", "rank5", "mAP", "mINP"))
        rows.append([
            dataset["name"], dataset["identity_split"], result["protocol"], result["distance"],
            result["reranking"],
            *(f"{100 * share:.1f}" for share in shares),
            f"{result['num_valid_queries']:,} of {result['num_queries']:,}", f"{result['num_gallery']:,}",
        ])  # fmt: skip
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n\n" + FIGURES_NOTE


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
