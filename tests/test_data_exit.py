"""A process whose loader is in the middle of an epoch must be able to end."""

import subprocess
import sys
from pathlib import Path

import psutil
from prepared_dataset import make_prepared

PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from loader_fixtures import make_loader
from keyreid.pipeline.store import TrackletStore
loader = make_loader(TrackletStore(Path(sys.argv[2])), num_workers=1)
batches = loader.epoch(0)
next(batches)
sys.modules["kept"] = loader, batches  # as an error's traceback keeps them
"""


def command(program, folder):
    return [sys.executable, "-c", program, str(Path(__file__).parent), str(make_prepared(folder))]


def test_workers_that_ignore_signals_end_with_their_process(tmp_path):
    subprocess.run(command(PROGRAM, tmp_path), check=True, timeout=120)


def test_workers_end_at_once_when_their_process_is_killed(tmp_path):
    """They share its lock of RUN, and the run may be resumed by what saw it end."""
    program = PROGRAM + "print('reading', flush=True); sys.stdin.read()"
    with subprocess.Popen(command(program, tmp_path), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"reading\n"
        workers = psutil.Process(process.pid).children()
        process.kill()
        assert workers and not psutil.wait_procs(workers, timeout=2)[1]
