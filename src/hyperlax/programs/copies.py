"""Copies of a compiled function for further devices, which need no further compilation."""

from __future__ import annotations

import io
import logging
import pickle
from typing import Any

import jax
import numpy as np
from jax.experimental.serialize_executable import serialize

log = logging.getLogger("hyperlax")


def copy_to(device: Any, compiled: jax.stages.Compiled) -> jax.stages.Compiled | None:
    """The function, which was compiled for one device, for another `device` of the same kind.

    The machine code is the same, and so are all results, bit for bit. None if this version of JAX does not
    support that: then the function has to be compiled again.
    """
    try:
        data, inputs, outputs = serialize(compiled)
        executable, arguments, no_keywords = _Loader(data, device).load()
        about = inputs.unflatten(arguments)
        return jax.stages.Compiled(executable.load(), [], about, outputs, no_kwargs=no_keywords)
    except (AttributeError, ImportError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        log.debug("a program is compiled again for %s: %s", device, error)
        return None


class _Loader(pickle.Unpickler):
    """Loads what `serialize` has written, with `device` in the place of the device it was compiled for.

    `jax.experimental.serialize_executable.deserialize_and_load` does the same, but keeps the device. The
    data never leaves this process.
    """

    def __init__(self, data: bytes, device: Any):
        super().__init__(io.BytesIO(data))
        self.device = device

    def persistent_load(self, pid: Any) -> Any:
        """The object that is referred to: an executable, its device or its client."""
        client = self.device.client
        if pid[0] == "exec":
            from jax._src.compiler import get_compile_options
            from jax._src.lib import xla_client  # pyright: ignore[reportPrivateImportUsage]

            there = get_compile_options(1, 1, device_assignment=np.array([[self.device.id]]))
            return client.deserialize_executable(pid[1], xla_client.DeviceList((self.device,)), there)
        return self.device if pid[0] == "device" else client
