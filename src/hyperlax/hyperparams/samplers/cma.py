"""CMA-ES as Optuna has it, whose state is read from a study without running what the study may name."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
from optuna.samplers import CmaEsSampler

_STATE = ("cmaes._cma", "CMA")
"""Module and name of the class whose object is the state of the algorithm."""


class DataOnlyCmaEs(CmaEsSampler):
    """`CmaEsSampler` for studies from anybody.

    Optuna stores the state of CMA-ES as a pickle in the attributes of a trial. A pickle can name any function
    and have it called; of this one only what a state of CMA-ES is made of is followed.
    """

    def _restore_optimizer(self, completed_trials: Any) -> Any:
        """The state that the last of the trials with one holds; None if there is none."""
        for trial in reversed(completed_trials):
            parts = {k: v for k, v in trial.system_attrs.items() if k.startswith(self._attr_key_optimizer)}
            if parts:
                return state(bytes.fromhex(self._concat_optimizer_attrs(parts)), f"trial {trial.number}")
        return None


def state(data: bytes, source: str) -> Any:
    """The state of CMA-ES in the pickle `data`, whose place in the study `source` names in messages.

    Raises `ValueError` if it holds or names anything else.
    """
    from cmaes import CMA

    parts = _Parts(io.BytesIO(data))
    try:
        found = parts.load()
        if type(found) is not parts.kind:
            raise pickle.UnpicklingError(f"it is of type {type(found).__name__}")
        restored = CMA.__new__(CMA)
        restored.__setstate__(vars(found))
    except Exception as error:  # a pickle is a program, which can fail in any way
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{source} of the study holds no state of CMA-ES: {reason}") from error
    return restored


class _Parts(pickle.Unpickler):
    """Reads a state of CMA-ES: numbers, text, containers, arrays, and an object of `kind` that holds them.

    `kind` stands for the class of the algorithm, whose constructor a pickle could call with any sizes.
    """

    def __init__(self, file: io.BytesIO):
        super().__init__(file)
        self.kind = type("State", (), {})

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == _STATE:
            return self.kind
        place = module.replace("numpy.core.", "numpy._core."), name
        if place not in _ARRAYS:
            raise pickle.UnpicklingError(f"{module}.{name} is not part of one")
        return _ARRAYS[place]


def _empty_array(*_: Any) -> np.ndarray:
    """An array that is filled afterwards, when its shape is compared with the bytes that there are."""
    return np.ndarray((0,), np.int8)


def _scalar(dtype: np.dtype, data: bytes) -> Any:
    """The number of type `dtype` in `data`."""
    if dtype.kind not in "biuf" or len(data) != dtype.itemsize:
        raise pickle.UnpicklingError(f"{len(data)} bytes are not a number of type {dtype}")
    return np.frombuffer(data, dtype)[0]


_ARRAYS: dict[tuple[str, str], Callable[..., Any] | None] = {
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "_reconstruct"): _empty_array,
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): None,  # only an argument of `_reconstruct`
}
"""What the pickle of an array names, and what is called instead."""
