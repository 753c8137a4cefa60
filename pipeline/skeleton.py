"""The 17 COCO joints, the 6 body parts made of them, and the pairs that a flip swaps."""

from __future__ import annotations

JOINTS = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear",
    "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
    "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle",
)  # fmt: skip

# Parts in descriptor order (paper, section 3.2).
PARTS: dict[str, tuple[str, ...]] = {
    "head": ("nose", "left_eye", "right_eye", "left_ear", "right_ear"),
    "torso": ("left_shoulder", "right_shoulder", "left_hip", "right_hip"),
    "left_arm": ("left_elbow", "left_wrist"),
    "right_arm": ("right_elbow", "right_wrist"),
    "left_leg": ("left_knee", "left_ankle"),
    "right_leg": ("right_knee", "right_ankle"),
}

NUM_JOINTS = len(JOINTS)
NUM_PARTS = len(PARTS)

JOINT_INDEX = {name: index for index, name in enumerate(JOINTS)}
PART_JOINT_INDICES = tuple(tuple(JOINT_INDEX[joint] for joint in joints) for joints in PARTS.values())

# Lines drawn between joints in pictures.
BONES = tuple(
    (JOINT_INDEX[a], JOINT_INDEX[b])
    for a, b in (
        ("left_ear", "left_eye"), ("left_eye", "nose"), ("nose", "right_eye"), ("right_eye", "right_ear"),
        ("left_shoulder", "right_shoulder"), ("left_hip", "right_hip"),
        ("left_shoulder", "left_hip"), ("right_shoulder", "right_hip"),
        ("left_shoulder", "left_elbow"), ("left_elbow", "left_wrist"),
        ("right_shoulder", "right_elbow"), ("right_elbow", "right_wrist"),
        ("left_hip", "left_knee"), ("left_knee", "left_ankle"),
        ("right_hip", "right_knee"), ("right_knee", "right_ankle"),
    )
)  # fmt: skip


def _mirrored(name: str) -> str:
    if name.startswith("left_"):
        return "right_" + name.removeprefix("left_")
    if name.startswith("right_"):
        return "left_" + name.removeprefix("right_")
    return name


# Index i of a flipped array is index FLIP[i] of the original one.
JOINT_FLIP = tuple(JOINT_INDEX[_mirrored(name)] for name in JOINTS)
PART_FLIP = tuple(list(PARTS).index(_mirrored(name)) for name in PARTS)
