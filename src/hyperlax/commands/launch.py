"""What happens before a command runs: the platform, the compilation cache, the display."""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from hyperlax.storage.files import cache_folder

if TYPE_CHECKING:
    from hyperlax.run.terminal import Lines


def display(folder: Path, log_level: str, save_logs: bool) -> Lines:
    """The display that fits the terminal, and the log file."""
    from rich.console import Console

    from hyperlax.run.terminal import Lines, Live, plain_lines

    logger = logging.getLogger("hyperlax")
    end_logging()
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    if save_logs:
        folder.mkdir(parents=True, exist_ok=True)
        file = LogFile(folder / "hyperlax.log", encoding="utf-8", errors="backslashreplace")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(file)
    console = Console(highlight=False, markup=False)  # an environment may be called x[speed=2]
    if console.is_terminal and not console.is_dumb_terminal and log_level in ("DEBUG", "INFO"):
        return Live(console)
    plain = plain_lines()
    plain.setLevel(log_level)
    logger.addHandler(plain)
    return Lines()


class LogFile(logging.FileHandler):
    """The log of a run; lines that the disk refuses are dropped, because the run matters more."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass


def end_logging() -> None:
    """Undo what `display` has set up for the log."""
    logger = logging.getLogger("hyperlax")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.propagate = True


def start_jax(device: str) -> None:
    """Choose the platform and the compilation cache, and set up one CPU device per core."""
    if device != "auto":
        os.environ["JAX_PLATFORMS"] = {"cpu": "cpu", "gpu": "cuda"}[device]
    import jax

    from hyperlax.experiments.machine import set_up_jax

    set_up_jax()
    try:
        platform_name, problem = jax.default_backend(), ""
    except (RuntimeError, AssertionError) as error:
        platform_name, problem = "none", f" ({error})" if str(error) else ""
    if platform_name not in {"auto": (platform_name,), "cpu": ("cpu",), "gpu": ("gpu", "cuda")}[device]:
        raise ValueError(
            f"--device {device}: jax finds no such device{problem}; "
            'for an NVIDIA GPU, pip install ".[cuda13]" in the checkout of hyperlax; '
            "otherwise use --device cpu"
        )
    if platform_name == "cpu" and device == "auto" and shutil.which("nvidia-smi"):
        print(
            "WARNING: this machine has an NVIDIA GPU but jax sees none; "
            'let it find one with pip install ".[cuda13]" in the checkout of hyperlax. '
            "Continuing on the CPU.",
            file=sys.stderr,
        )
    keep_compiled_programs()


def keep_compiled_programs() -> None:
    """Let jax keep compiled programs in the folder of `compilation_cache`, which starts jax."""
    import jax

    if (cache := compilation_cache()) is None:
        return
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
    # with XLA's own caches, programs are found again only while the folder keeps its path
    if jax.default_backend() == "cpu":
        jax.config.update("jax_persistent_cache_enable_xla_caches", "none")


def compilation_cache() -> Path | None:
    """The folder of compiled programs: one per version of jaxlib and kind of device, below a common one.

    None if the user has already configured jax' own cache, or if no folder can be written.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ or (base := cache_folder()) is None:
        return None
    from hyperlax.experiments.machine import instruction_set

    kind = re.sub(r"[^a-z0-9]+", "-", instruction_set().lower())
    return base / f"compiled-{version('jaxlib')}-{kind}"
