"""Command lines that nobody meant: mutations of right ones, drawn by a seed."""

from __future__ import annotations

import random
from pathlib import Path

# ruff: noqa: E501
RIGHT: tuple[str, ...] = (
    "run-single-hp --env-config gymnax.cartpole --seeds 2 --total-timesteps 1e4 --set actor.width=32 --seed 7",
    "run-single-hp --algo-and-network-config ppo+nets.py:Net --env-config envs.py:Env[speed=2] --resume",
    "sweep-hp-samples --algo-and-network-config ppo_mlp --num-samples 4 --sampling-method grid --confirm 2",
    "sweep-hp-samples --load-hyperparams samples.csv --scheduler asha --set scheduler.minimum=100 --device cpu",
    "sweep-hp-samples --experiment-type sobol_matrices_A_B_AB --omit-ab --output-root ~/out --save-policies all",
    "optuna-hp-search --n-trials 3 --objective-names peak_performance --sampler tpe --pruner asha --storage s.db",
    "run-benchmark --algos ppo_mlp dqn_mlp --envs gymnax.cartpole --num-samples-per-run 2 --sweep-modes batched",
    "plot-benchmark --results-dir-to-plot out --format html,png --top-n 3 --compare published.csv",
    "export --results-dir out --to tensorboard --top-k 3 --destination runs",
    "check out",
    "play out/lane.policy --episodes 3 --seed 1 --output-file it.gif --evaluation sampled",
    "export-policy out/lane.policy --output-file it.npz --network nets.py:Net",
    "inspect-circuit --env-config gymnax.cartpole --layers 1 5 --stacks 1 --draws 5 --output-file c.png",
    "generate-hp-samples --algo-and-network-config ppo_mlp --num-samples 4 --output-file s.csv --seed 1",
    "new agent A2C",
    "list",
)
"""A line of every command that writes or reads something, with most of its flags."""
VALUES: tuple[str, ...] = (
    *(
        "",
        " ",
        "-1",
        "0",
        "2.5",
        "1e5",
        "1e400",
        "nan",
        "inf",
        "9" * 30,
        "1_000",
        "0x10",
        "١٢",
        "true",
        "None",
    ),
    *("~", "~nobody/x", ".", "..", "/dev/null", "/proc/self/mem", "a\0b", "\udc80", "x" * 300, "a/" * 400),
    *(
        "nets.py",
        "nets.py:",
        "nets.py:Nothing",
        "broken.py:Net",
        "raises.py:Net",
        "nothing.py:X",
        "os:system",
    ),
    *("samples.csv", "broken.csv", "binary.csv", "empty.csv", "samples.txt", "file/inside", "broken.policy"),
    *(
        "=",
        "a=",
        "=1",
        "a=b=c",
        "actor.width=",
        "actor.width=nan",
        "gamma=2",
        "env.x=1",
        "scheduler.x=1",
        "[",
        "]",
    ),
    *(
        "gymnax.",
        ".cartpole",
        "gymnax.cartpole[",
        "gymnax.cartpole[a=1]",
        "brax.ant[backend=x]",
        "ppo_",
        "ppo+mlp",
    ),
    *(
        "--",
        "-",
        "---",
        "--help=1",
        "--seed",
        "-h",
        "--no-resume",
        "--set",
        "😀",
        "\x1b[2J",
        "%s{0}",
        "a,b",
        "$(x)",
    ),
)
"""What is typed in place of a word, or besides."""
FILES = {
    "broken.py": "class Net(:\n",
    "raises.py": "import nothing_of_that_name\n",
    "nets.py": "x = 1\n",
    "samples.csv": "sample,gamma\n0,0.9\n",
    "samples.txt": "gamma\n0.9\n",
    "broken.csv": 'gamma\n0.9,3,4\n"',
    "empty.csv": "",
    "binary.csv": "\x00\x01PNG",
    "file": "a file where a folder is meant",
    "broken.policy": "no policy",
}
"""What lies in the folder in which they are typed."""


def prepare(folder: Path) -> None:
    """Write `FILES` into the folder."""
    for name, text in FILES.items():
        (folder / name).write_text(text)


def mutated(draw: random.Random) -> list[str]:
    """The words of a right line after one to three changes."""
    words = draw.choice(RIGHT).split()
    for _ in range(draw.randint(1, 3)):
        place = draw.randrange(len(words))
        change = draw.randrange(6)
        if change == 0:
            words[place] = draw.choice(VALUES)
        elif change == 1:
            words.insert(place + 1, draw.choice(VALUES))
        elif change == 2 and len(words) > 1:
            del words[place]
        elif change == 3:
            words.insert(place, words[place])
        elif change == 4:
            other = draw.choice(RIGHT).split()
            words[place + 1 : place + 1] = other[1:3]
        else:
            word = words[place]
            at = draw.randrange(len(word) + 1)
            words[place] = word[:at] + draw.choice("=-.x0 \0é~") + word[at + draw.randrange(2) :]
    return words
