"""keyreid-prep: from a dataset's frames to shards that training streams."""

from __future__ import annotations

import click

from .build_shards import build_shards
from .describe import describe
from .export_keypoints import export_keypoints
from .extract_keypoints import extract_keypoints
from .find_bad_frames import find_bad_frames
from .import_keypoints import import_keypoints
from .index import index
from .synthesize import synthesize
from .verify import verify


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Prepare video tracklets for person re-identification.

    \b
    The usual order, each command resumes where it stopped:
      keyreid-prep index mars /data/MARS prepared/
      keyreid-prep extract-keypoints prepared/ --checkpoint shufflenetv2k16 --workers 8
      keyreid-prep build-shards prepared/
    Then train with keyreid-train and measure with keyreid-eval.
    """


for command in (
    synthesize, index, extract_keypoints, find_bad_frames, import_keypoints, build_shards, verify, describe,
    export_keypoints,
):  # fmt: skip
    main.add_command(command)
