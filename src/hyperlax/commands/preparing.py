"""Commands that prepare training: names, samples, circuits."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from hyperlax.commands.flags import Place, Ranges, assignments, limited, new_file, spaces

_MEANINGS = {
    "tmlp": "tensor-network MLP: hidden layers are matrix product operators",
    "drpqc": "data re-uploading parametrised quantum circuit",
    "asha": "asynchronous successive halving",
    "pbt": "population-based training",
}
"""Built-in names that abbreviate, in full."""


def inspect_circuit(
    *,
    algo_and_network_config: str = "ppo_drpqc",
    env_config: str = "gymnax.pendulum",
    network: str = "actor",
    layers: Annotated[list[int] | None, limited("layers", consume_multiple=True, negative="")] = None,
    stacks: Annotated[list[int] | None, limited("stacks", consume_multiple=True, negative="")] = None,
    draws: Annotated[int, limited("draws")] = 200,
    set_: Annotated[list[str] | None, Parameter(name="--set", negative="")] = None,
    output_file: Place | None = None,
    diagram_file: Place | None = None,
    seed: Annotated[int, limited("seed")] = 42,
) -> int:
    """Describe a circuit before training: diagram, gates, gradient variance, entanglement, expressibility.

    Parameters
    ----------
    network
        Which of the algorithm's networks: actor or critic.
    layers
        Depths to compare. [default: 1 5 10 15]
    stacks
        Copies of the encoding wires to compare. [default: 1 2 3]
    draws
        Number of random initial weights and observations to measure over.
    set_
        path=value: fixes a hyperparameter; repeatable.
    output_file
        Also write the table (.csv) or the chart (.png, .svg, .pdf).
    diagram_file
        Also write a drawing of the smallest circuit (.svg, .png, .pdf).
    """
    from hyperlax.studies import inspection

    new_file("--output-file", output_file, ".csv", ".png", ".svg", ".pdf")
    new_file("--diagram-file", diagram_file, ".svg", ".png", ".pdf")
    table, diagram, drawing = inspection.of_recipe(
        algo_and_network_config,
        env_config,
        network,
        layers or [1, 5, 10, 15],
        stacks or [1, 2, 3],
        draws,
        assignments(set_ or []),
        seed,
    )
    print(diagram)
    inspection.show(table)
    if output_file is not None:
        inspection.save(table, output_file, f"{algo_and_network_config} {network} on {env_config}")
        print(f"written to {output_file}")
    if diagram_file is not None:
        inspection.save_diagram(drawing, diagram_file)
        print(f"written to {diagram_file}")
    return 0


def generate_hp_samples(
    *,
    algo_and_network_config: str = "ppo_mlp",
    num_samples: Annotated[int, limited("num_samples")] = 256,
    output_file: Place = Path("hyperparam_samples.csv"),
    sampling_method: str = "qmc_sobol",
    range_: Ranges = None,
    experiment_type: str = "independent_samples",
    omit_ab: bool = False,
    seed: Annotated[int, limited("seed")] = 42,
) -> int:
    """Write hyperparameter samples to a csv, json or parquet file; trains nothing."""
    import polars as pl

    from hyperlax.experiments.ranges import ranged
    from hyperlax.experiments.recipes import resolve
    from hyperlax.hyperparams import samplers
    from hyperlax.storage.files import write_output

    new_file("--output-file", output_file, ".csv", ".json", ".parquet")
    recipe = resolve(algo_and_network_config)
    space = recipe.with_space(ranged(recipe, spaces(range_), {}, None, None)).search_space()
    rows = samplers.draw(
        space,
        num_samples,
        method=sampling_method,
        experiment_type=experiment_type,
        omit_ab=omit_ab,
        seed=seed,
    )
    frame = pl.DataFrame([{"sample": i, **row} for i, row in enumerate(rows)], infer_schema_length=None)
    content = io.BytesIO()
    {".csv": frame.write_csv, ".json": frame.write_json, ".parquet": frame.write_parquet}[output_file.suffix](
        content
    )
    write_output(output_file, content.getvalue())
    print(f"{len(rows)} samples of {len(frame.columns) - 1} columns written to {output_file}")
    return 0


def list_names() -> int:
    """List everything that has a name: algorithms, networks, environments, recipes, and more.

    Names from installed packages are followed by the package.
    """
    from hyperlax import envs
    from hyperlax.experiments import recipes
    from hyperlax.hyperparams import samplers
    from hyperlax.registry import built_in
    from hyperlax.studies import suites

    kinds = {
        "algorithms": (built_in.AGENTS, list(built_in.AGENTS)),
        "networks": (built_in.NETWORKS, list(built_in.NETWORKS)),
        "environments (also by gymnax id: gymnax.CartPole-v1; brax with --set env.backend=...)": (
            built_in.ENVS,
            envs.names(),
        ),
        "sampling methods": (
            built_in.SAMPLERS,
            [n for n in built_in.SAMPLERS if n in samplers.METHODS or n not in built_in.SAMPLERS.built_in],
        ),
        "schedulers": (built_in.SCHEDULES, list(built_in.SCHEDULES)),
        "trackers": (built_in.EXPORTERS, list(built_in.EXPORTERS)),
        "recipes (begin with tuned.*, which learn well on the environment in their name)": (
            built_in.RECIPES,
            recipes.names(),
        ),
        "suites": (built_in.SUITES, suites.names()),
    }
    for title, (registry, names) in kinds.items():
        print(title)
        brought: dict[str, list[str]] = {}
        for name, origin in registry.sources():
            if origin != "built in":
                brought.setdefault(name, []).append(origin)
        for name in names:
            about = brought.get(name) or ([_MEANINGS[name]] if name in _MEANINGS else [])
            print(f"  {name}" + (f"  ({', '.join(about)})" if about else ""))
        for problem in registry.unusable():
            print(f"  note: {problem}")
    print("and your own: file.py:Name or package.module:Name")
    return 0
