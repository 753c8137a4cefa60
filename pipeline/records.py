"""The nouns that cross modules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

SPLITS = ("train", "query", "gallery")

FRAME_OK = "ok"  # read, and a person was found
FRAME_INTERPOLATED = "interpolated"  # read, no person found, keypoints put between those of frames before and after
FRAME_NO_POSE = "no_pose"  # read, but no person was found: keypoints are all zero
FRAME_UNREADABLE = "unreadable"  # the file is there and its content is no image: left out of the shards
FRAME_SKIPPED = "skipped"  # the user listed it in --skip-frames: left out of the shards
FRAMES_LEFT_OUT = (FRAME_UNREADABLE, FRAME_SKIPPED)
FRAME_STATUSES = (FRAME_OK, FRAME_INTERPOLATED, FRAME_NO_POSE, *FRAMES_LEFT_OUT)


@dataclass(frozen=True, slots=True)
class Tracklet:
    """One person seen by one camera over consecutive frames; its frames' paths are in SourceFrames."""

    tracklet_id: int  # row in the manifest, from 0; the name of the tracklet everywhere
    split: str  # "train", "query" or "gallery"
    identity: int  # number of the person; 0 stands for distractors; junk (negative) never gets here
    camera: int  # number of the camera (MARS: 1 to 6)
    shard: int  # number of the shard that holds its keypoints and frames
    num_frames: int  # in the source; those that could not be read included
    name: str = ""  # as in the source, such as "0001C1T0001"; identity and camera likewise, such as "0001" and "1"
    identity_name: str = ""
    camera_name: str = ""


@dataclass(frozen=True)
class SourceFrames:
    """Where the frames of one tracklet lie; F frames in time order."""

    tracklet_id: int
    paths: tuple[str, ...]  # (F,) image files relative to the generation's root, "/" between folders
    numbers: np.ndarray  # int64 (F,), frame numbers of the recording, rising; 0 to F - 1 where the source has none
    times: np.ndarray  # float64 (F,), seconds; NaN where the source has no time stamp


@dataclass(frozen=True)
class ShardReceipt:
    """Written last: a shard with a receipt is complete."""

    stage: str  # "keypoints" or "shards"
    shard: int
    generation: int  # number of the index run that added it, from 0
    file: str  # path of the artefact relative to the prepared dataset
    sha256: str  # of the artefact's bytes
    num_bytes: int  # size of the artefact
    rows: int  # frames in it
    settings: str  # hash of the settings that made it
    inputs: str  # hash of what it was made from
    notes: dict[str, Any]  # counts and file names worth telling at the end, such as unreadable frames
    made_with: dict[str, str]  # package versions and kind of device: what the bytes depend on besides those two
