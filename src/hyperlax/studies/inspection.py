"""The circuits of a recipe before training: a table of diagnostics, their chart, and a diagram."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import polars as pl

from hyperlax.hyperparams import assign
from hyperlax.lanes.keys import seeded
from hyperlax.networks.diagnostics import bytes_needed, inspect
from hyperlax.networks.pqc import PQC, PQCHyperparams
from hyperlax.registry.limits import within

COLUMNS = {
    "qubits": "qubits",
    "layers": "layers",
    "parameters": "weights",
    "rotations": "gates",
    "cz_gates": "CZ",
    "shift_rule_executions": "circuits",
    "gradient_variance": "gradient",
    "entangling_capability": "entangling",
    "expressibility": "expressib.",
}
"""Column → shorter heading, for the columns of the table printed on the terminal."""

LEGEND = """\
weights: trained angles, scales and output factors. gates: rotations of one wire. CZ: entangling gates.
circuits: executions on hardware for one gradient of one observation (parameter-shift rule).
gradient: variance of the derivative of the first wire's <Z>, averaged over the trained angles; where it falls
  exponentially with the qubits is a barren plateau (McClean et al. 2018).
entangling: entangling capability, the mean Meyer-Wallach measure of the states, 0 to 1
  (Meyer and Wallach 2002).
expressib.: expressibility, the divergence of the fidelities of pairs of states from those of random states
  (Sim et al. 2019); 0 is the most expressible."""
"""What the columns of the table on the terminal mean."""


def chart(table: pl.DataFrame, title: str) -> Any:
    """An Altair chart of the measured properties against the number of layers, one line per qubit count."""
    import altair as alt

    def panel(column: str, words: str, log: bool) -> Any:
        scale = alt.Scale(type="log") if log else alt.Scale(zero=True)
        return (
            alt.Chart(table.with_columns(pl.col("qubits").cast(pl.String)), width=230, height=200)
            .mark_line(point=True)
            .encode(
                x=alt.X("layers:Q", title="layers", axis=alt.Axis(tickMinStep=1, format="d")),
                y=alt.Y(f"{column}:Q", title=words, scale=scale),
                color=alt.Color(
                    "qubits:N",
                    sort=[str(q) for q in sorted(set(table["qubits"]))],
                    scale=alt.Scale(scheme="viridis"),
                ),
                tooltip=["qubits:N", "layers:Q", "parameters:Q", f"{column}:Q"],
            )
        )

    return alt.hconcat(
        panel("gradient_variance", "gradient variance", True),
        panel("entangling_capability", "entangling capability", False),
        panel("expressibility", "expressibility (0: Haar)", True),
    ).properties(title=title)


def of_recipe(
    recipe_name: str,
    env_name: str,
    network: str,
    layers: Sequence[int],
    stacks: Sequence[int],
    draws: int,
    changes: Mapping[str, Any],
    seed: int = 42,
) -> tuple[pl.DataFrame, str, str]:
    """Inspect a network of a recipe on an environment.

    Returns the table of `inspect`, and its smallest circuit as text and as an SVG document. `network` is the
    name of the network (`actor`, `critic`), `changes` replaces hyperparameters and settings of the recipe.
    Raises `ValueError` for a network that is not a circuit, and for circuits that do not fit into memory.
    """
    from hyperlax.experiments.feasible import gigabytes
    from hyperlax.experiments.memory import device_memory
    from hyperlax.sweeps import prepare

    spec = prepare(recipe_name, env_name, set=changes)
    networks = spec.trees[0].networks(spec.env)
    if network not in networks:
        raise ValueError(f'{recipe_name} has no network "{network}"; it has {", ".join(networks)}')
    hp, in_size = networks[network].hp, networks[network].inputs
    if not isinstance(hp, PQCHyperparams):
        raise ValueError(f"the {network} of {recipe_name} is not a circuit; choose a recipe of drpqc")
    for s in stacks:
        if refusal := assign(hp, {"stacks": s}).refusal(in_size, device_memory()):
            raise ValueError(refusal)
    every = [assign(hp, {"layers": n, "stacks": s}) for n in layers for s in stacks]
    draws = within("draws", draws)
    if (needed := max(bytes_needed([one], in_size, draws) for one in every)) > device_memory():
        raise ValueError(
            f"{draws:,} draws of these circuits take {gigabytes(needed)} of memory, and there are "
            f"{gigabytes(device_memory())}: lower --draws, --layers or --stacks"
        )
    least = assign(hp, {"layers": min(layers), "stacks": min(stacks)})
    net = PQC(jax.tree.map(jnp.asarray, least), in_size, least.sizes(), key=seeded(seed))
    title = f"{network} of {recipe_name} on {env_name}"
    return inspect(hp, in_size, layers, stacks, draws, seed), net.draw(), least.picture(in_size, title)


def show(table: pl.DataFrame) -> None:
    """Print the table of `inspect` on the terminal, and what its columns mean."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(title="circuits at initialisation")
    for word in COLUMNS.values():
        shown.add_column(word, justify="right", overflow="fold")
    for row in table.select(list(COLUMNS)).iter_rows():
        shown.add_row(*(f"{v:.3g}" if isinstance(v, float) else f"{v:,}" for v in row))
    Console().print(shown)
    print(LEGEND)


def save_diagram(drawing: str, path: Path) -> None:
    """Write the SVG document `drawing` in the format of the suffix of `path`: .svg, .png or .pdf."""
    from hyperlax.report.export import converted
    from hyperlax.storage.files import write_output

    path.parent.mkdir(parents=True, exist_ok=True)
    write_output(path, converted(drawing, path.suffix[1:]))


def save(table: pl.DataFrame, path: Path, title: str) -> None:
    """Write the table (.csv) or its chart (.png, .svg, .pdf), as the suffix of `path` says."""
    from hyperlax.report.export import image
    from hyperlax.storage.files import write_output

    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        write_output(path, table.write_csv().encode())
    else:
        write_output(path, image(chart(table, title).to_dict(), path.suffix[1:]))
