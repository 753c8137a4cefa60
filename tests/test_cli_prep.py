"""The commands of keyreid-prep as a person types them."""

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from conftest import TinyDataset

from keyreid.cli.prep import main


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.mark.parametrize(
    ("arguments", "taught"),
    [
        ([], "extract-keypoints"),
        (["synthesize"], "--layout mars"),
        (["index"], "keyreid-prep index mars"),
        (["extract-keypoints"], "--checkpoint shufflenetv2k16 --workers 8"),
        (["build-shards"], "keyreid-prep build-shards prepared/"),
    ],
)
def test_help_teaches_with_an_example(arguments: list[str], taught: str) -> None:
    result = run(*arguments, "--help")
    assert result.exit_code == 0
    assert taught in result.output


def test_unreadable_frames_are_named_at_the_end(tiny_mars: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(tiny_mars, tmp_path / "mars"))
    assert run("index", "mars", root, tmp_path / "prepared").exit_code == 0
    frames = sorted((root / "bbox_train").rglob("*.jpg"))[:12]
    for frame in frames:
        frame.write_bytes(b"not an image")
    result = run(
        "extract-keypoints", tmp_path / "prepared", "--checkpoint", "synthetic", "--serial", "--max-left-out", 20
    )
    assert result.exit_code == 0
    assert "12 frames are left out: their content is no image" in result.stderr
    assert str(frames[0].relative_to(root)) in result.stderr
    assert "and 2 more (--json names all)" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--checkpoint", "nosuch", "--serial"], "checkpoint 'nosuch' is neither a file nor a known name"),
        (["--checkpoint", "synthetic", "--serial", "--workers", "2"], "--workers and --serial were given together"),
        (["--checkpoint", "synthetic", "--serial", "--input-height", "64"], "other settings of keypoints"),
    ],
)
def test_errors_are_one_line_without_a_traceback(tiny_dataset: TinyDataset, arguments: list[str], message: str) -> None:
    result = run("extract-keypoints", tiny_dataset.prepared, *arguments)
    assert result.exit_code == 1
    assert result.stderr.strip().count("\n") == 0 and result.stderr.startswith("Error: ")
    assert message in result.stderr


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    result = run("build-shards", tmp_path, "--serial", "--debug")
    assert result.exit_code == 1
    assert type(result.exception).__name__ == "FormatError" and "run keyreid-prep index first" in str(result.exception)


def test_what_nobody_foresaw_still_gets_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("keyreid.pipeline.build_shards.build_shards", fail)
    result = run("build-shards", tmp_path, "--serial")
    assert result.exit_code == 1
    assert "unexpected error: ZeroDivisionError: a bug (--debug shows where it happened)" in result.stderr
