"""keyreid-train: from a prepared dataset to trained weights."""

from __future__ import annotations

from pathlib import Path

import click

from keyreid.model.presets import preset_summaries

from .command import FriendlyCommand

PRESETS = preset_summaries()


@click.command(
    cls=FriendlyCommand,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\nPresets:\n" + "\n".join(f"  {name:10} {summary}" for name, summary in PRESETS.items()),
)
@click.argument("prepared", type=click.Path(path_type=Path), required=False, metavar="PREPARED")
@click.option("--out", "run", type=click.Path(path_type=Path), metavar="RUN", help="A new folder for the run.")
@click.option(
    "--preset",
    metavar="|".join(PRESETS),
    help="Where values start from; see below.  [default: what --config names, or else vit-base]",
)
@click.option(
    "--variant",
    type=click.Choice(["aligned", "reference"]),
    help="The network that the paper describes, or what the authors' code computes.  [default: aligned]",
)
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="YAML or JSON with sections model, training and augment, such as another run's config.yaml.",
)
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="SECTION.KEY=VALUE",
    help="One value; wins over --config. Repeatable.",
)
@click.option(
    "--from",
    "start",
    type=click.Path(path_type=Path, exists=True),
    metavar="RUN",
    help="Start from this trained network (a run, or a folder of weights) and its config: for cameras or people of "
    "your own. Classifiers are new; cameras of the same name keep their embedding.",
)
@click.option(
    "--same-cameras",
    is_flag=True,
    help="With --from: equal camera numbers are the same cameras, in another dataset too.",
)
@click.option("--print-config", is_flag=True, help="Print every value as YAML for --config, and do nothing else.")
@click.option(
    "--dry-run", is_flag=True, help="Train a few steps, tell time and memory, and write nothing; needs no --out."
)
@click.option("--profile", is_flag=True, help="Profile a few steps into RUN/profile, and do not train.")
@click.option("--resume", is_flag=True, help="Resume the run in RUN from its last checkpoint.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option(
    "--workers", type=click.IntRange(min=0), help="Processes that decode frames.  [default: 8 for CUDA, 0 for CPU]"
)
@click.option("--seed", type=click.IntRange(min=0), help="Of everything random; short for --set training.seed=N.")
@click.option(
    "--validate-on",
    type=click.Choice(["none", "holdout", "test"]),
    help="Measure every few epochs, and keep the best: on training identities that are held out, or on the test set; "
    "short for --set training.validate_on=...  [default: none, as the paper has it]",
)
@click.option(
    "--identity-split",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Which division of the identities (iLIDS-VID and PRID2011 have ten).",
)
@click.option(
    "--tensorboard", is_flag=True, help="Write RUN/tensorboard, too.  [needs pip install 'keyreid[tensorboard]']"
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@click.pass_context
def main(
    context: click.Context,
    prepared: Path | None,
    run: Path | None,
    preset: str | None,
    variant: str | None,
    file: Path | None,
    assignments: tuple[str, ...],
    start: Path | None,
    same_cameras: bool,
    print_config: bool,
    dry_run: bool,
    profile: bool,
    resume: bool,
    device: str,
    workers: int | None,
    seed: int | None,
    validate_on: str | None,
    identity_split: int,
    tensorboard: bool,
    as_json: bool,
) -> None:
    """Train on the training split of PREPARED, the folder that keyreid-prep filled.

    \b
    The paper's recipe on MARS, and the same for fewer epochs at a lower rate:
      keyreid-train prepared/ --out runs/mars --preset vit-base
      keyreid-train prepared/ --out runs/short --set training.epochs=60 --set training.learning_rate=0.004
    A few minutes on a CPU, from scratch:
      keyreid-train prepared/ --out runs/demo --preset demo
    From a network that was trained on other people, for cameras of your own:
      keyreid-train prepared/ --out runs/mine --from runs/mars --set training.epochs=20
    A run that was stopped, at whatever step, resumes with the same command and --resume.
    All values of a preset, to change and give to --config:
      keyreid-train --preset vit-small --print-config > mine.yaml
    How long it will take and whether it fits into memory:
      keyreid-train prepared/ --config mine.yaml --dry-run

    \b
    RUN/weights              the trained network: give it to keyreid-eval
    RUN/training.html        curves of the run so far, written at every checkpoint; the pictures are in RUN/curves
    RUN/metrics.jsonl        loss terms and learning rate of every few steps and of each epoch
    RUN/config.json          every value that was used, and the versions of the packages; config.yaml is for --config
    RUN/checkpoints          what --resume needs
    RUN/best-map, best-rank1  the best networks so far, with --validate-on

    \b
    SIGTERM and SIGUSR1 finish the step, save, and end the run with exit code 75.
    Several GPUs share one batch, whose identities must be a multiple of them:
      torchrun --no-python --nproc-per-node 8 keyreid-train prepared/ --out runs/mars --preset vit-base-8gpu
    """
    from keyreid.model.training.config import resolve_config

    if seed is not None:
        assignments = (*assignments, f"training.seed={seed}")
    if validate_on is not None:
        assignments = (*assignments, f"training.validate_on={validate_on}")
    if same_cameras and start is None:
        raise click.UsageError("--same-cameras says something about --from, which is not given")
    model = None
    if start is not None:
        from keyreid.model.training.start import start_values

        model, recipe = start_values(start)
        file = file or (recipe if preset is None else None)
    config = resolve_config(preset, file=file, assignments=assignments, variant=variant, model=model)
    if print_config:
        from keyreid.model.training.config import config_text

        click.echo(config_text(config.to_dict()), nl=False)
        return
    from keyreid.model.data.reading import default_workers
    from keyreid.model.device import choose_device
    from keyreid.model.distributed import EndedElsewhere, is_first_process
    from keyreid.model.training.failures import EXIT_CODE, TrainingStopped
    from keyreid.model.training.trainer import train

    prepared = _required(context, "prepared", prepared)
    chosen = choose_device(device)
    workers = default_workers(chosen) if workers is None else workers
    if dry_run or profile:
        from keyreid.model.training.inputs import open_inputs

        from .train_output import print_dry_run, print_profile

        folder = None if dry_run else _required(context, "run", run)
        inputs = open_inputs(prepared, config, device=chosen, num_workers=workers, identity_split=identity_split)
        if folder is None:
            print_dry_run(inputs, config, chosen, as_json=as_json)
        else:
            print_profile(inputs, config, chosen, folder)
        return
    run = _required(context, "run", run)
    try:
        summary = train(
            prepared,
            run,
            config,
            device=chosen,
            num_workers=workers,
            identity_split=identity_split,
            resume=resume,
            tensorboard=tensorboard,
            start=start,
            same_cameras=same_cameras,
        )
    except TrainingStopped as stopped:
        if is_first_process():
            click.echo(f"Stopped: {stopped}", err=True)
        context.exit(EXIT_CODE)
    except EndedElsewhere:
        context.exit(1)
    if is_first_process():
        from .train_output import print_summary

        print_summary(summary, as_json=as_json)


def _required(context: click.Context, name: str, value: Path | None) -> Path:
    """What click's own check would say; --print-config does without."""
    if value is None:
        parameter = next(parameter for parameter in context.command.params if parameter.name == name)
        raise click.MissingParameter(ctx=context, param=parameter)
    return value
