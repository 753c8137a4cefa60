"""A process whose loader is in the middle of an epoch must be able to end."""

import subprocess
import sys
from pathlib import Path

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


def test_workers_that_ignore_signals_end_with_their_process(tmp_path):
    command = [sys.executable, "-c", PROGRAM, str(Path(__file__).parent), str(make_prepared(tmp_path))]
    subprocess.run(command, check=True, timeout=120)
