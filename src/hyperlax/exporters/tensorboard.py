"""Export to TensorBoard: event files, in one folder per run as `tensorboard --logdir` expects them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from hyperlax.exporters.runs import Run, file_name, package

MARGIN = {"return": {"return": ["Margin", ["return", "return_low", "return_high"]]}}
"""Layout of TensorBoard's custom scalars that draws the return with its interval as a band."""


def write(runs: Sequence[Run], destination: Path) -> str:
    """Write every run to `<destination>/<environment>/<name>`, with the samples in folders below it.

    Returns the shell command that shows the runs.
    """
    writer_of = package("tensorboardX").SummaryWriter
    for run in runs:
        folder = destination.joinpath(*map(file_name, run.group))
        with writer_of(str(folder if run.sample is None else folder / f"sample-{run.sample}")) as writer:
            for point in run.points:
                for name, value in point.values.items():
                    writer.add_scalar(name, value, point.env_steps, walltime=point.time)
            last = run.points[-1] if run.points else None
            step, time = (last.env_steps, last.time) if last else (0, run.began)
            summary = {f"summary/{name}": value for name, value in run.summary.items()}
            for name, value in summary.items():
                writer.add_scalar(name, value, step, walltime=time)
            if run.points:
                writer.add_custom_scalars(MARGIN)
            if run.sample is None:
                words = json.dumps(run.config, indent=1)
                writer.add_text("manifest", "    " + words.replace("\n", "\n    "), 0, walltime=run.began)
            else:
                for part in package("tensorboardX.summary").hparams(run.config, summary):
                    writer.file_writer.add_summary(part, walltime=run.began)
    return f"tensorboard --logdir {shlex.quote(str(destination))}"
