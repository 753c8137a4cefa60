"""keyreid: what a trained network is used for."""

from __future__ import annotations

import click

from .calibrate import calibrate
from .card import card
from .compare import compare
from .embed import embed
from .export import export
from .search import search


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Use a trained KeyRe-ID network.

    \b
    It comes from keyreid-train; keyreid-eval says what it is worth.
      keyreid embed runs/mars prepared/ --out mars.h5
      keyreid calibrate labelled.h5 --false-match-rate 0.001 --out threshold.json
      keyreid search new.h5 mars.h5 --calibration threshold.json
      keyreid compare report/ours report/baseline
      keyreid card runs/mars --metrics report/metrics.json
      keyreid export runs/mars mars.onnx
    """


for command in (calibrate, card, compare, embed, export, search):
    main.add_command(command)
