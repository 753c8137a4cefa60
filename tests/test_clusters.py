"""What docs/clusters.md says, tried with Dask's own commands."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TinyDataset, dask_cluster

from keyreid.pipeline.commit import sha256_of
from keyreid.pipeline.executor import worker_number

BIN = Path(sys.executable).parent
SLURM = Path(__file__).parents[1] / "docs" / "slurm_cluster.py"


def rebuild(dataset: TinyDataset, folder: Path, *options: object, **environment: str) -> str:
    """Delete what was prepared, prepare it again on a cluster, and compare; returns what the command printed."""
    copy = Path(shutil.copytree(dataset.prepared, folder / "prepared"))
    for name in ("receipts/shards", "shards"):
        shutil.rmtree(copy / name)
    done = subprocess.run(
        [BIN / "keyreid-prep", "build-shards", copy, *map(str, options)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    for path in sorted((copy / "shards").iterdir()):
        assert sha256_of(path) == sha256_of(dataset.prepared / "shards" / path.name)
    return done.stdout + done.stderr


def test_a_scheduler_file_and_a_performance_report(tiny_dataset: TinyDataset, tmp_path: Path) -> None:
    file, report = tmp_path / "scheduler.json", tmp_path / "report.html"
    where = ["--scheduler-file", str(file)]
    with dask_cluster([*where, "--port", "0"], where, {}):
        printed = rebuild(tiny_dataset, tmp_path, *where, "--performance-report", report)
    assert "Dask's dashboard: http" in printed
    assert "<html" in report.read_text().lower()


def test_encrypted_and_by_environment_alone(tiny_dataset: TinyDataset, tmp_path: Path) -> None:
    """Keys and address come from Dask's own configuration; not one option of ours."""
    request = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -days 2 -keyout key.pem -out cert.pem"
    subprocess.run(request.split(), check=True, capture_output=True, cwd=tmp_path)
    keys = {"cert": str(tmp_path / "cert.pem"), "key": str(tmp_path / "key.pem")}
    tls = {"ca-file": keys["cert"], "scheduler": keys, "worker": keys, "client": keys}
    (tmp_path / "config").mkdir()
    config = {"distributed": {"comm": {"require-encryption": True, "tls": tls}}}
    (tmp_path / "config" / "tls.yaml").write_text(json.dumps(config))  # JSON is YAML
    environment = {"DASK_CONFIG": str(tmp_path / "config")}
    file = tmp_path / "scheduler.json"
    with dask_cluster(
        ["--scheduler-file", str(file), "--protocol", "tls", "--port", "0"],
        ["--scheduler-file", str(file)],
        environment,
    ):
        while not file.exists() or not file.stat().st_size:
            pass
        address = json.loads(file.read_text())["address"]
        assert address.startswith("tls://")
        rebuild(tiny_dataset, tmp_path, **environment, DASK_SCHEDULER_ADDRESS=address)


def test_the_job_script_for_slurm() -> None:
    """Workers are single-threaded, one per GPU, or per core."""
    pytest.importorskip("dask_jobqueue")
    shown = subprocess.run(
        [sys.executable, SLURM, "--show", "--cores", "8", "--memory", "16GB", "--queue", "night", "--gpus", "2"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for line in ("#SBATCH -p night", "#SBATCH --cpus-per-task=8", "#SBATCH --gres=gpu:2", "export OMP_NUM_THREADS=1"):
        assert line in shown.splitlines()
    assert "#SBATCH --mem=15G" in shown
    assert "--nthreads 1" in shown and "--nworkers 2" in shown


@pytest.mark.parametrize(
    ("name", "number"), [(3, "3"), ("SLURMCluster-0-1", "1"), ("node7-0", "0"), ("head", "0"), ("", "0")]
)
def test_workers_take_their_number_from_their_name(name: object, number: str) -> None:
    assert worker_number(name) == number
