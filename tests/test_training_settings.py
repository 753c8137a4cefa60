import json

import pytest

from keyreid.model.data.labels import LabelTables
from keyreid.model.data.sampler import check_shares
from keyreid.model.presets import preset_summaries, read_preset
from keyreid.model.training.config import check_keys, config_text, resolve_config
from keyreid.pipeline.errors import SettingsError


def test_the_default_preset_is_the_papers_recipe_but_for_the_balance():
    training, authors = resolve_config("vit-base").training, resolve_config("authors")
    assert (training.epochs, training.learning_rate, training.ema_decay) == (120, 0.008, 0.995)
    assert (training.global_share, authors.training.global_share, authors.model.variant) == (0.25, 0.75, "reference")
    assert training.identities_per_batch * training.clips_per_identity == 16


def test_file_wins_over_preset_and_set_over_file(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("training: {epochs: 7, weight_decay: 1e-3}\nmodel: {depth: 2}\n")
    config = resolve_config("demo", file=file, assignments=["training.epochs=9", "augment.erase_area=[0.1, 0.2]"])
    assert config.training.epochs == 9 and config.training.weight_decay == 1e-3
    assert config.training.optimizer == "adamw" and config.model.depth == 2
    assert config.augment.erase_area == (0.1, 0.2)


def test_what_is_written_reads_back_the_same(tmp_path):
    config = resolve_config("demo", variant="reference", assignments=["training.seed=3"])
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config.to_dict()))
    assert resolve_config(file=file) == config
    assert config.model_config(LabelTables((4, 7), (1, 2, 5))).camera_numbers == (1, 2, 5)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("training.epoch=3", "unknown key training.epoch; .*did you mean epochs"),
        ("trainin.epochs=3", "unknown section 'trainin'; .*did you mean training"),
        ("epochs=3", "names no section; .*did you mean training.epochs"),
        ("training.epochs", "--set training.epochs; expected section.key=value"),
        ("training.epochs=many", "training.epochs is 'many'; expected a value of type int"),
        ("training.epochs=1.5", "training.epochs is 1.5; expected a value of type int"),
        ("training.epochs=0", "training.epochs is 0; expected 1 or more"),
        ("training.epochs=true", "training.epochs is True; expected a value of type int"),
        ("training.mixed_precision=1", "training.mixed_precision is 1; expected a value of type bool"),
        ("training.optimizer=adam", "training.optimizer is 'adam'; expected one of sgd, adamw"),
        ("training.compile=off", "training.compile is False; expected one of auto, none, default, reduce-overhead"),
        ("training.checkpoint_blocks=-1", "training.checkpoint_blocks is -1; expected true, false or a number"),
        ("training.learning_rate=.inf", "training.learning_rate is inf; expected a finite number"),
        ("training.learning_rate=-1", "training.learning_rate is -1; expected 0 or more"),
        ("training.global_share=2", "training.global_share is 2; expected between 0 and 1"),
        ("augment.flip=2", "augment.flip is 2; expected between 0 and 1"),
        ("augment.erase_area=0.4", "augment.erase_area is 0.4; expected a list of 2 numbers"),
        ("augment.erase_area=[0.4, 0.1]", r"augment.erase_area is \(0.4, 0.1\); expected two shares, low first"),
        ("model.num_cameras=6", "model.num_cameras is set by hand; expected nothing: it is counted in the dataset"),
        ("model.depht=6", "unknown key model.depht; .*did you mean depth"),
        ("model.depth=six", "depth is 'six'"),
        ("training.epochs=[", "the value cannot be read"),
    ],
)
def test_wrong_assignments_say_what_is_right(assignment, message):
    with pytest.raises(SettingsError, match=message):
        resolve_config("demo", assignments=[assignment])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training: {epoch: 3}", "unknown key training.epoch; .*did you mean epochs"),
        ("training: 3", "is not a valid config; expected the sections model, training, augment"),
        ("- 3", "is not a valid config"),
        ("a: [", "cannot be read as a config"),
        ("[" * 100_000, "cannot be read as a config"),
        ("\x00", "cannot be read as a config"),
    ],
)
def test_wrong_files_say_what_is_right(tmp_path, text, message):
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=message):
        resolve_config("demo", file=file)


def bomb(depth):
    """A list of a few letters that stands for 2^depth numbers."""
    text = "&a0 [1, 1]"
    for level in range(1, depth):
        text = f"&a{level} [{text}, *a{level - 1}]"
    return text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training: {epochs: " + bomb(40) + "}", r"training.epochs is \(\[\[.*; expected a value of type int"),
        ("augment: {erase_area: " + bomb(40) + "}", r"augment.erase_area is \[\[.*; expected a list of 2 numbers"),
        (bomb(40), "is not a valid config"),
        ("training: {epochs: " + "9" * 5000 + "}", "cannot be read as a config"),
        ("training: {epochs: " + "9" * 400 + "}", r"training.epochs is 9+\.\.\.9+; expected a number below 2\^63"),
        ("training: {learning_rate: .nan}", "training.learning_rate is nan; expected a finite number"),
        ("training: {learning_rate: 1e999}", "training.learning_rate is inf; expected a finite number"),
        ("training: {1: 2}", "unknown key training.1"),
        ("training: {? [a] : 2}", "cannot be read as a config"),
        ("model: {frame_size: {a: 1}}", r"model.frame_size is \{'a': 1\}; expected height and width"),
        ("model: {backbone: [[[]]]}", r"model.backbone is \(\[\[\]\],\); expected a value of type str"),
    ],
)
def test_hostile_files_are_one_error(tmp_path, text, message):
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=message) as caught:
        resolve_config("demo", file=file)
    assert len(str(caught.value)) < 2000


def test_unknown_preset():
    with pytest.raises(
        SettingsError, match="preset is 'vit-huge'; expected one of authors, demo, vit-base, vit-base-8gpu, vit-small"
    ):
        resolve_config("vit-huge")


def test_the_preset_for_eight_devices_has_an_identity_for_each():
    check_shares(resolve_config("vit-base-8gpu").training.scaled_identities, 8)
    assert resolve_config("vit-base-8gpu").model == resolve_config("vit-base").model


@pytest.mark.parametrize("name", preset_summaries())
def test_presets_have_known_keys_and_good_values_and_say_what_they_are_for(name):
    for section, entries in read_preset(name).items():
        check_keys(section, entries)
    assert resolve_config(name).preset == name and preset_summaries()[name].endswith(".")


def test_the_demos_preset_learns_from_scratch():
    config = resolve_config("demo")
    assert (config.model.pretrained, config.model.frame_size, config.model.stem) == ("", (128, 64), "conv")
    assert (config.training.optimizer, config.training.learning_rate, config.training.global_share) == (
        "adamw",
        1e-3,
        0.25,
    )


def test_the_printed_config_reads_back_the_same_and_names_its_preset(tmp_path):
    config = resolve_config("demo", variant="reference", assignments=["training.learning_rate=8e-5"])
    file = tmp_path / "config.yaml"
    file.write_text(config_text(config.to_dict()))
    assert resolve_config(file=file) == config and config.preset == "demo"
    assert resolve_config("vit-small", file=file).model == config.model  # --preset wins, but the file has every value
    assert resolve_config().preset == "vit-base"


def test_a_file_that_names_an_unknown_preset(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("preset: dmo\n")
    with pytest.raises(SettingsError, match=r"preset is 'dmo'; expected one of authors, demo, .*did you mean demo"):
        resolve_config(file=file)
    file.write_text("preset: [demo]\n")
    with pytest.raises(SettingsError, match=r"has preset \['demo'\]; expected the name of a preset"):
        resolve_config(file=file)
