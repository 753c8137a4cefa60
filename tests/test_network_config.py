"""Configs: what is refused and with which words, and the way to JSON and back."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

import keyreid.model
from keyreid.model.network.config import ModelConfig
from keyreid.pipeline.errors import SettingsError

COUNTS = {"num_identities": 10, "num_cameras": 2}


def test_json_gives_the_same_config() -> None:
    config = ModelConfig(**COUNTS, camera_numbers=(1, 4), frame_size=(128, 64), drop_path=0.0)
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_camera_table_is_what_the_source_calls_them() -> None:
    assert ModelConfig(**COUNTS).camera_table == (0, 1)
    assert ModelConfig(**COUNTS, camera_numbers=(1, 4)).camera_table == (1, 4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"variant": "fast"}, "variant is 'fast'; expected one of aligned, reference"),
        ({"part_pooling": "max"}, "part_pooling is 'max'; expected one of attention, average"),
        ({"guidance": "add"}, "guidance is 'add'; expected one of bias, multiply, none"),
        ({"stem": "mlp"}, "stem is 'mlp'; expected one of patch, conv"),
        ({"clip_length": 0}, "clip_length is 0; expected 1 or more"),
        ({"part_weight": -1.0}, "part_weight is -1.0; expected 0 or more"),
        ({"weight_floor": 0.0}, "weight_floor is 0.0; expected more than 0"),
        ({"shift_share": 1.5}, "shift_share is 1.5; expected between 0 and 1"),
        ({"shift_share": 0.7, "shuffle_share": 0.7}, "is 1.4; expected at most 1"),
        ({"drop_path": 1.0}, "drop_path is 1.0; expected 0 or more and less than 1"),
        ({"frame_size": [256]}, r"frame_size is \(256,\); expected height and width in pixels"),
        ({"camera_numbers": [1, 2, 3]}, "camera_numbers has 3 entries and num_cameras is 2"),
        ({"variant": "reference", "part_pooling": "average"}, "'average' with variant 'reference'; expected 'attenti"),
        ({"clip_lenght": 4}, "unknown key model.clip_lenght.*did you mean clip_length?"),
        ({"clip_length": "4"}, "clip_length is '4'; expected a value of type int"),
        ({"clip_length": True}, "clip_length is True; expected a value of type int"),
        ({"normalise_descriptor": 1}, "normalise_descriptor is 1; expected a value of type bool"),
        ({"frame_size": "256x128"}, "frame_size is '256x128'; expected height and width in pixels"),
    ],
)
def test_what_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        ModelConfig.from_dict(COUNTS | fields)


def test_counts_are_needed() -> None:
    with pytest.raises(SettingsError, match=r"model\.num_cameras is missing; expected a value of type int"):
        ModelConfig.from_dict({"num_identities": 3})


def test_importing_the_package_loads_no_torch() -> None:
    code = "import sys, keyreid.model; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_public_names() -> None:
    for name in keyreid.model.__all__:
        assert getattr(keyreid.model, name).__name__ == name
    with pytest.raises(AttributeError, match=r"'keyreid\.model' has no attribute 'KeyRe_ID'"):
        _ = keyreid.model.KeyRe_ID
