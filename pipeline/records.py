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
    """One person seen by one camera over consecutive frames; its frames' paths are in SourceFrames.

    Attributes:
        tracklet_id: row in the manifest, from 0; the name of the tracklet everywhere.
        split: "train", "query" or "gallery".
        identity: number of the person; 0 stands for distractors. Junk (negative) never gets here.
        camera: number of the camera (MARS: 1 to 6).
        shard: number of the shard that holds its keypoints and frames.
        num_frames: frames in the source; those that could not be read included.
        name, identity_name, camera_name: as in the source, such as "0001C1T0001", "0001" and "1".
    """

    tracklet_id: int
    split: str
    identity: int
    camera: int
    shard: int
    num_frames: int
    name: str = ""
    identity_name: str = ""
    camera_name: str = ""


@dataclass(frozen=True)
class SourceFrames:
    """Where the frames of one tracklet lie; F frames in time order.

    Attributes:
        tracklet_id: the tracklet.
        paths: (F,) image files relative to the generation's root, "/" between folders.
        numbers: int64 (F,), frame numbers of the recording, rising; 0 to F - 1 where the source has none.
        times: float64 (F,), seconds, of the frames whose source has time stamps; NaN elsewhere.
    """

    tracklet_id: int
    paths: tuple[str, ...]
    numbers: np.ndarray
    times: np.ndarray


@dataclass(frozen=True)
class FramePose:
    """What pose estimation says of one frame.

    Attributes:
        tracklet_id: the tracklet.
        frame_index: position among the tracklet's frames, from 0.
        width, height: size of the frame in pixels; 0 where its status is one of FRAMES_LEFT_OUT.
        status: one of FRAME_STATUSES.
        score: score of the chosen person, 0 to 1; 0 where there is none.
        keypoints: float32 (17, 3): x, y in pixels of the frame, origin at the top left, x before y, and confidence
            0 to 1; rows in the order of skeleton.JOINTS; all zero where a joint was not found.
    """

    tracklet_id: int
    frame_index: int
    width: int
    height: int
    status: str
    score: float
    keypoints: np.ndarray


@dataclass(frozen=True)
class ShardReceipt:
    """Written last: a shard with a receipt is complete.

    Attributes:
        stage: "keypoints" or "shards".
        shard: number of the shard.
        generation: number of the index run that added it, from 0.
        file: path of the artefact relative to the prepared dataset.
        sha256: hash of the artefact's bytes.
        num_bytes: size of the artefact.
        rows: frames in it.
        settings: hash of the settings that made it.
        inputs: hash of what it was made from.
        notes: counts and file names worth telling at the end, such as unreadable frames.
        made_with: versions of packages and kind of device: what the bytes depend on besides settings and inputs.
    """

    stage: str
    shard: int
    generation: int
    file: str
    sha256: str
    num_bytes: int
    rows: int
    settings: str
    inputs: str
    notes: dict[str, Any]
    made_with: dict[str, str]
