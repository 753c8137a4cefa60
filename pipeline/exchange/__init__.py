"""Keypoints of other programs: into a prepared dataset, and out of it."""
