"""Export to Weights & Biases: offline runs, which `wandb sync` uploads later."""

from __future__ import annotations

import os
import shlex
import uuid
from collections.abc import Sequence
from pathlib import Path

from hyperlax.exporters.runs import Run, package

PROJECT = "hyperlax"


def write(runs: Sequence[Run], destination: Path) -> str:
    """Write every run below `<destination>/wandb`, without network access.

    A background process of wandb writes the files; they are complete by the end of this process or shortly
    after. Returns the shell command that uploads the runs.
    """
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # wandb reads this on import
    wandb = package("wandb")
    settings = wandb.Settings(
        silent=True,
        console="off",
        disable_code=True,
        disable_git=True,
        disable_job_creation=True,
        x_disable_machine_info=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )
    destination.mkdir(parents=True, exist_ok=True)
    for run in runs:
        env, name = run.group
        group = f"{name} on {env}"
        started = wandb.init(
            project=PROJECT,
            dir=str(destination),
            id=uuid.uuid4().hex[:8],
            name=group if run.sample is None else f"{group}, sample {run.sample}",
            group=group,
            job_type="experiment" if run.sample is None else "sample",
            config=run.config,
            mode="offline",
            reinit="create_new",
            settings=settings,
        )
        started.define_metric("*", step_metric="env_steps")
        for point in run.points:
            started.log({"env_steps": point.env_steps, "seconds": point.time - run.began, **point.values})
        started.summary.update(run.summary)
        started.finish()
    return f"wandb sync {shlex.quote(str(destination / 'wandb'))}/offline-run-*"
