#!/usr/bin/env python3
"""Stands for sbatch, squeue, scontrol, scancel and srun by its name; jobs are files in $FAKE_SLURM.

$FAKE_ARRAY is one more than the tasks that an array may have, $FAKE_LIMIT how many may be in the queue.
Nothing runs by itself: a test starts the tasks of an array, in whatever order it likes.
"""

import json
import os
import re
import sys
from pathlib import Path

home, name, words = Path(os.environ["FAKE_SLURM"]), Path(sys.argv[0]).name, sys.argv[1:]


def saved(number):
    path = home / f"{number}.json"
    return json.loads(path.read_text())


if name == "sbatch":
    if (home / "refuses").exists():
        sys.exit("sbatch: error: invalid partition specified")
    number = 1 + len(list(home.glob("*.json")))
    text = Path(words[-1]).read_text()
    (last,) = re.findall(r"--array=0-(\d+)", text)
    count = int(last) + 1
    queued = sum(len(json.loads(path.read_text())["tasks"]) for path in home.glob("*.json"))
    if queued + count > int(os.environ.get("FAKE_LIMIT", "1000000")):
        sys.exit("sbatch: error: AssocMaxSubmitJobLimit")
    job = {"script": os.path.abspath(words[-1]), "tasks": {str(i): "PENDING" for i in range(count)}}
    (home / f"{number}.json").write_text(json.dumps(job))
    print(number)
elif name == "squeue":
    for path in sorted(home.glob("*.json")):
        job = json.loads(path.read_text())
        for index, state in job["tasks"].items():
            held = "JobHeldUser" if state == "HELD" else ""
            print(
                path.stem,
                index,
                "PENDING" if held else state,
                "n1" if state == "RUNNING" else "",
                held,
                job["script"],
                sep="|",
            )
elif name == "scontrol" and words[0] == "show":
    print(f"MaxArraySize            = {os.environ.get('FAKE_ARRAY', '1001')}")
elif name == "scontrol" and words[0] == "requeue":
    number, index = words[1].split("_")
    job = saved(number)
    job["tasks"][index] = "PENDING"
    (home / f"{number}.json").write_text(json.dumps(job))
    (home / "requeued").open("a").write(f"{words[1]}\n")
elif name == "scancel":
    for number in words:
        (home / f"{number}.json").write_text(json.dumps({**saved(number), "tasks": {}}))
elif name == "srun":
    os.execvp(words[0], words)
