"""`gcattn eval compare`: models trained on the same rows and measured on the same documents."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gcattn.cli.paths import RESULTS


def compare(
    suite: Annotated[Path, typer.Argument(metavar="SUITE", help="YAML file; see examples/.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Overrides, such as base.training.steps=100."),
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("runs/compare"),
    out: Annotated[
        Path | None, typer.Option(help="Result file (default: runs/results/compare-<name>.json).")
    ] = None,
    models: Annotated[
        str | None,
        typer.Option(help="Train only these models, separated by commas; the report covers all."),
    ] = None,
    devices: Annotated[int | None, typer.Option(min=1, help="GPUs to use (default: all).")] = None,
    runs_per_device: Annotated[
        int,
        typer.Option(
            min=1,
            help="Runs that share a GPU: more finish, each is slower, and times mean little.",
        ),
    ] = 1,
    devices_per_run: Annotated[
        int,
        typer.Option(
            min=1, help="GPUs that train a run together, with the same rows per step (torchrun)."
        ),
    ] = 1,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Train nothing; report the finished runs.")
    ] = False,
    # not --run, which torchrun takes for an option of its own
    one: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Train every model of SUITE on the same tokens and compare their losses by position.

    Finished runs are kept; the same command resumes an interrupted one.
    """
    from gcattn.cli.compare_tables import print_tables
    from gcattn.compare.comparison import choose_runs, write_comparison
    from gcattn.compare.runs import run_all, train_and_evaluate
    from gcattn.compare.suite import load_suite, suite_runs

    wanted = load_suite(suite, overrides or [])
    everything = suite_runs(wanted)
    if one is not None:
        train_and_evaluate(wanted, {r.name: r for r in everything}[one], runs)
        return
    chosen = choose_runs(wanted, everything, models)
    numbers = list(range(devices or _num_devices()))
    if len(numbers) < devices_per_run:
        raise ValueError(
            f"--devices-per-run {devices_per_run} needs as many GPUs; there are {len(numbers)}."
        )
    groups = [
        numbers[start : start + devices_per_run]
        for start in range(0, len(numbers) - devices_per_run + 1, devices_per_run)
    ]
    command = ["eval", "compare", str(suite), *(overrides or []), "--runs", str(runs), "--one"]
    failed = run_all(
        [] if report_only else chosen,
        runs,
        command,
        devices=groups * runs_per_device,
        say=lambda line: typer.echo(line, err=True),
    )
    file = out or RESULTS / f"compare-{wanted.name}.json"
    config = {
        "overrides": overrides or [],
        "runs_per_device": runs_per_device,
        "devices_per_run": devices_per_run,
    }
    print_tables(write_comparison(wanted, everything, runs, file, config), file)
    if failed:
        raise typer.Exit(1)


def _num_devices() -> int:
    import torch

    return max(1, torch.cuda.device_count())
