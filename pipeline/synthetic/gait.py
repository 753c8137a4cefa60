"""A walking body in three dimensions, and its joints as a camera sees them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..skeleton import JOINTS
from .appearance import Appearance

HIP_TO_SHOULDER = 0.30
UPPER_ARM, FOREARM = 0.165, 0.15


@dataclass(frozen=True)
class View:
    """How the body stands before the camera.

    Attributes:
        yaw: radians; 0 faces the camera, pi / 2 walks to the right of the picture, pi turns the back.
        elevation: radians; how far the camera looks down.
        height: body height in pixels.
        x, y: pixel of the point on the ground between the feet.
    """

    yaw: float
    elevation: float
    height: float
    x: float
    y: float


@dataclass(frozen=True)
class ProjectedBody:
    """Joints and helper points in the picture.

    Attributes:
        points: name -> float (3,): x, y in pixels, and depth, larger nearer to the camera, in body heights.
        view: the view that it was projected with.
    """

    points: dict[str, np.ndarray]
    view: View

    def keypoints(self) -> np.ndarray:
        """float (17, 2): x, y of the COCO joints."""
        return np.stack([self.points[name][:2] for name in JOINTS])


def walk(appearance: Appearance, phase: float) -> dict[str, np.ndarray]:
    """Joints of the body at a gait phase (radians), as name -> (forward, left, up) in body heights."""
    points: dict[str, np.ndarray] = {}
    thigh, shin = appearance.leg_length * 0.5, appearance.leg_length * 0.5 - 0.04
    hip_height = appearance.leg_length + 0.01
    shoulder_height = hip_height + HIP_TO_SHOULDER
    for side, sign in (("left", 1.0), ("right", -1.0)):
        swing = sign * np.sin(phase)
        lift = max(0.0, sign * np.cos(phase))  # the leg that moves forward bends its knee
        hip = np.array([0.0, sign * appearance.hip_width, hip_height])
        angle = appearance.stride * swing + 0.15 * lift
        knee = hip + thigh * np.array([np.sin(angle), 0, -np.cos(angle)])
        bend = angle - 0.12 - 0.9 * lift
        ankle = knee + shin * np.array([np.sin(bend), 0, -np.cos(bend)])
        shoulder = np.array([0.0, sign * appearance.shoulder_width, shoulder_height])
        arm = -appearance.arm_swing * swing
        elbow = shoulder + UPPER_ARM * np.array([np.sin(arm), sign * 0.22, -np.cos(arm)])
        fold = arm + 0.25 + 0.3 * max(0.0, -swing)
        wrist = elbow + FOREARM * np.array([np.sin(fold), sign * 0.05, -np.cos(fold)])
        points |= {f"{side}_hip": hip, f"{side}_knee": knee, f"{side}_ankle": ankle}
        points |= {f"{side}_shoulder": shoulder, f"{side}_elbow": elbow, f"{side}_wrist": wrist}
        points[f"{side}_toe"] = ankle + np.array([0.06, 0, -0.025])
    size = appearance.head_size
    head = np.array([0.015, 0.0, shoulder_height + 0.05 + size])
    points["neck"] = np.array([0.0, 0.0, shoulder_height + 0.01])
    points["head"] = head
    points["nose"] = head + size * np.array([0.95, 0, -0.1])
    for side, sign in (("left", 1.0), ("right", -1.0)):
        points[f"{side}_eye"] = head + size * np.array([0.8, 0.38 * sign, 0.18])
        points[f"{side}_ear"] = head + size * np.array([0.0, 0.85 * sign, 0.0])
    ground = min(points["left_ankle"][2], points["right_ankle"][2]) - 0.04
    return {name: point - np.array([0, 0, ground]) for name, point in points.items()}


def project(points: dict[str, np.ndarray], view: View) -> ProjectedBody:
    """See the body from the view: orthographic, the camera looking down by the elevation."""
    sin, cos = np.sin(view.yaw), np.cos(view.yaw)
    projected = {}
    for name, (forward, left, up) in points.items():
        right = forward * sin + left * cos
        near = forward * cos - left * sin
        rise = up * np.cos(view.elevation) - near * np.sin(view.elevation)
        projected[name] = np.array([view.x + view.height * right, view.y - view.height * rise, near])
    return ProjectedBody(projected, view)
