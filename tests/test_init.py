"""The public names."""

from __future__ import annotations

import subprocess
import sys

import pytest

import hyperlax


def test_every_public_name_exists_and_is_documented():
    for name in hyperlax.__all__:
        thing = getattr(hyperlax, name)
        assert thing is not None
        if name != "__version__":
            assert thing.__doc__, name


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="no attribute 'swep'"):
        _ = hyperlax.swep


def test_importing_the_package_starts_nothing_heavy():
    code = "import sys, hyperlax, hyperlax.commands.main as _; heavy = {'jax', 'gymnax', 'altair'}"
    code += "; assert not heavy & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PATH": "/usr/bin"})
