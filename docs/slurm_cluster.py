"""keyreid-prep on a Slurm cluster: start workers as jobs, run a command on them, and let them go.

    python docs/slurm_cluster.py --jobs 20 --cores 16 --memory 48GB --queue standard -- \\
        extract-keypoints /shared/prepared --checkpoint shufflenetv2k16

Needs `pip install 'keyreid[clusters]'`. PREPARED, the frames and the Python environment must have the same paths on all
machines. Stop it and start it again as you like: finished shards are kept. With --show it prints the job script alone.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from dask_jobqueue import SLURMCluster


def make_cluster(cores: int, memory: str, queue: str | None, walltime: str, gpus: int) -> SLURMCluster:
    """Jobs of one machine each, with single-threaded workers: one per core, or one per GPU where there are GPUs."""
    return SLURMCluster(
        queue=queue,
        cores=gpus or cores,
        processes=gpus or cores,
        job_cpu=cores,
        memory=memory,
        walltime=walltime,
        job_extra_directives=[f"--gres=gpu:{gpus}"] if gpus else [],
        job_script_prologue=["export OMP_NUM_THREADS=1", "export OMP_WAIT_POLICY=passive"],
        python=sys.executable,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--cores", type=int, default=16, help="of each job")
    parser.add_argument("--memory", default="48GB", help="of each job; about 2 GB per worker")
    parser.add_argument("--queue", help="Slurm's partition")
    parser.add_argument("--walltime", default="04:00:00")
    parser.add_argument("--gpus", type=int, default=0, help="of each job; one per worker")
    parser.add_argument("--show", action="store_true", help="print the job script and stop")
    parser.add_argument("command", nargs="*", help="of keyreid-prep, after --")
    options = parser.parse_args()
    with make_cluster(options.cores, options.memory, options.queue, options.walltime, options.gpus) as cluster:
        if options.show:
            print(cluster.job_script())
            return
        cluster.scale(jobs=options.jobs)
        prep = str(Path(sys.executable).with_name("keyreid-prep"))
        done = subprocess.run([prep, *options.command, "--scheduler-address", cluster.scheduler_address])
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
