"""The direction of imports: cli -> model -> pipeline, and one importer for each heavy or foreign library."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALLOWED = {
    "pipeline": {"pipeline"},
    "model": {"model", "pipeline"},
    "cli": {"cli", "model", "pipeline"},
    "data_manifests": {"data_manifests"},
}
# library -> files that may import it
OWNERS = {
    "openpifpaf": {"pipeline/pose/pifpaf.py"},
    "dask": {"pipeline/executor.py"},
    "distributed": {"pipeline/executor.py"},
}
FILES = [path for folder in ALLOWED for path in sorted((ROOT / folder).rglob("*.py"))]


def imported_modules(path: Path) -> Iterator[str]:
    """Absolute names of everything that a file imports, at the top or inside functions."""
    package = ["keyreid", *path.relative_to(ROOT).with_suffix("").parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    folder = path.relative_to(ROOT).parts[0]
    for module in imported_modules(path):
        words = module.split(".")
        if words[0] == "keyreid" and len(words) > 1:
            assert words[1] in ALLOWED[folder], f"{path} imports {module}"
        if words[0] in OWNERS:
            assert str(path.relative_to(ROOT)) in OWNERS[words[0]], f"{path} imports {module}"
        if words[0] == "click":
            assert folder == "cli", f"{path} imports {module}"


def test_the_walk_sees_imports_of_every_form() -> None:
    assert "keyreid.pipeline.pose.pifpaf" in set(imported_modules(ROOT / "pipeline/pose/checkpoints.py"))
    assert "openpifpaf" in set(imported_modules(ROOT / "pipeline/pose/pifpaf.py"))
    assert "distributed" in set(imported_modules(ROOT / "pipeline/executor.py"))


@pytest.mark.parametrize("module", ["keyreid.model.training.trainer", "keyreid.model.evaluation.evaluate"])
def test_training_and_evaluation_load_neither_openpifpaf_nor_dask(module: str) -> None:
    code = f"""
import sys
sys.modules['openpifpaf'] = sys.modules['dask'] = sys.modules['distributed'] = None  # an import raises
import {module}
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd="/")


@pytest.mark.parametrize("entry", ["keyreid", "prep", "train", "evaluate"])
def test_help_loads_no_heavy_library(entry: str) -> None:
    """What keeps `--help` under half a second; a bound on seconds would fail on a busy machine."""
    code = f"""
import sys
from keyreid.cli.{entry} import main
try:
    main(['--help'])
except SystemExit:
    pass
heavy = {{'torch', 'numpy', 'pandas', 'pyarrow', 'h5py', 'scipy', 'timm', 'matplotlib', 'dask', 'openpifpaf'}}
sys.exit(', '.join(heavy & set(sys.modules)) or None)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd="/", stdout=subprocess.DEVNULL)
