"""A wheel built from this checkout works outside it."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty environment with the wheel in it; the libraries are borrowed from this one, but not this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "wheel", ROOT, "--no-deps", "--no-build-isolation", "-w", folder], check=True)
    (wheel,) = folder.glob("keyreid-*.whl")
    environment = folder / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    target = next((environment / "lib").glob("python*")) / "site-packages"
    subprocess.run([*pip, "--python", environment / "bin" / "python", "install", "--no-deps", wheel], check=True)
    # Only .pth files of a site folder itself are read, so the editable install beside the libraries stays out.
    (target / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return environment


def call(environment: Path, *command: str) -> str:
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    program, *arguments = command
    done = subprocess.run(
        [environment / "bin" / program, *arguments], cwd=environment, env=clean, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_modules_come_from_the_wheel(environment: Path) -> None:
    code = "import keyreid.pipeline, keyreid.model.data.sampler as clips; print(clips.__file__)"
    assert str(environment) in call(environment, "python", "-c", code)


@pytest.mark.parametrize("command", ["keyreid", "keyreid-prep", "keyreid-train", "keyreid-eval"])
def test_commands_run(environment: Path, command: str) -> None:
    assert "Usage:" in call(environment, command, "--help")


def test_the_wheel_brings_manifests_and_the_demos_weights(environment: Path) -> None:
    people = environment / "people"
    call(environment, "keyreid-prep", "synthesize", str(people), "--identities", "4", "--frames", "2", "2")
    prepared = str(environment / "prepared")
    call(environment, "keyreid-prep", "index", "mars", str(people), prepared)
    options = ["--checkpoint", "synthetic", "--serial"]
    assert "keypoints of" in call(environment, "keyreid-prep", "extract-keypoints", prepared, *options)


def test_the_wheel_brings_the_presets(environment: Path) -> None:
    assert "vit-base" in call(environment, "keyreid-train", "--help").partition("Presets:")[2]


def test_the_wheel_brings_every_file_that_is_read(environment: Path) -> None:
    installed = next((environment / "lib").glob("python*")) / "site-packages" / "keyreid"
    kinds = {".html", ".css", ".js", ".yaml", ".json", ".safetensors"}
    folders = [ROOT / name for name in ("pipeline", "model", "data_manifests")]
    read = [path.relative_to(ROOT) for folder in folders for path in folder.rglob("*") if path.suffix in kinds]
    assert len(read) > 5 and [str(path) for path in read if not (installed / path).is_file()] == []


def test_every_python_folder_is_packaged() -> None:
    """A package that setup.cfg forgets works in the checkout and is missing from the wheel."""
    import configparser

    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    found = {
        "keyreid." + ".".join(path.parent.relative_to(ROOT).parts)
        for folder in ("pipeline", "model", "cli", "data_manifests")
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert found == listed
