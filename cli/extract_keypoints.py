"""keyreid-prep extract-keypoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .command import FriendlyCommand, device_option, keypoint_options, pop_executor
from .keypoint_summary import print_keypoints, read_frame_list

THRESHOLD = click.FloatRange(0, 1)


@click.command("extract-keypoints", cls=FriendlyCommand)
@click.argument("prepared", type=click.Path(path_type=Path))
@click.option(
    "--checkpoint",
    required=True,
    help="PifPaf weights: an openpifpaf name (shufflenetv2k16), a file, or 'synthetic' for synthetic people.",
)
@click.option(
    "--trust-checkpoint",
    is_flag=True,
    help="Load a pickle that holds more than openpifpaf's networks: it can run any code.",
)
@click.option(
    "--select",
    type=click.Choice(["tracklet", "best-score"]),
    default="tracklet",
    show_default=True,
    help="Whose keypoints are kept: who fits the whole tracklet, short gaps filled; or the best score of each frame, "
    "which is the authors' rule.",
)
@click.option(
    "--input-height",
    type=click.IntRange(min=32),
    help="Pixels that frames are resized to before PifPaf.  [default: the checkpoint's, 256 for openpifpaf's own]",
)
@click.option("--scale", type=click.FloatRange(1, 3), help="Or enlarge every frame so many times.")
@click.option("--cif-threshold", default=0.3, show_default=True, type=THRESHOLD, help="Evidence for a joint.")
@click.option("--seed-threshold", default=0.2, show_default=True, type=THRESHOLD, help="Seed joint of a person.")
@click.option("--keypoint-threshold", default=0.15, show_default=True, type=THRESHOLD, help="Joint that is kept.")
@click.option("--instance-threshold", default=0.15, show_default=True, type=THRESHOLD, help="Person that is kept.")
@click.option("--force-complete", is_flag=True, help="Find every joint of a person, however doubtful.")
@click.option(
    "--batch-size", type=click.IntRange(min=1), help="Frames in a forward pass.  [default: what suits the device]"
)
@device_option
@keypoint_options
def extract_keypoints(
    prepared: Path,
    checkpoint: str,
    trust_checkpoint: bool,
    select: str,
    input_height: int | None,
    scale: float | None,
    cif_threshold: float,
    seed_threshold: float,
    keypoint_threshold: float,
    instance_threshold: float,
    force_complete: bool,
    batch_size: int | None,
    device: str,
    skip_frames: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Find the person in every frame with PifPaf, once and in parallel.

    Resumes where an earlier run stopped; a second run does nothing. Frames whose content is no image are counted and
    named at the end. A frame that is missing, or anything else that fails, fails its shard: the others are made, and
    the command ends with exit code 1.

    \b
    Examples:
      keyreid-prep extract-keypoints prepared/ --checkpoint shufflenetv2k16 --workers 8
      keyreid-prep extract-keypoints prepared/ --checkpoint synthetic --serial
      keyreid-prep extract-keypoints prepared/ --checkpoint resnet50 --scheduler-address tcp://head:8786
    """
    from keyreid.pipeline.errors import SettingsError
    from keyreid.pipeline.extract_keypoints import extract_keypoints as extract
    from keyreid.pipeline.pose.checkpoints import resolve_checkpoint
    from keyreid.pipeline.pose.forward import DecoderSettings, PoseSettings

    if input_height and scale:
        raise SettingsError("--input-height and --scale were given together", "at most one of them")
    skipped = read_frame_list(skip_frames) if skip_frames else frozenset()
    executor = pop_executor(options)
    resolved = resolve_checkpoint(checkpoint, trust=trust_checkpoint)
    decoder = DecoderSettings(cif_threshold, seed_threshold, keypoint_threshold, instance_threshold, force_complete)
    height = None if scale else input_height or resolved.input_height
    summary = extract(
        prepared,
        resolved,
        executor,
        pose=PoseSettings(height, scale, batch_size, decoder),
        select=select,
        device=device,
        skip_frames=skipped,
        **options,
    )
    print_keypoints(f"{prepared}: keypoints", summary, as_json, unmatched_skips=skipped)
