"""vl-convert: the Vega scripts of the report, and images without a browser."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

from hyperlax.storage.files import cache_folder, write_atomically


@cache
def vl_convert() -> ModuleType:
    """The module, imported when first used: it is large."""
    import vl_convert

    return vl_convert


def vegalite_version() -> str:
    """Vega-Lite `<major>.<minor>` that altair writes, as vl-convert names it."""
    import altair as alt

    return ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])


@cache
def javascript_bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script that defines `vegaEmbed`, safe inside a script element."""
    kept = _kept_bundle()
    if kept is not None and kept.exists():
        return kept.read_text()
    bundle = vl_convert().javascript_bundle(vl_version=vegalite_version())
    bundle = bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")
    if kept is not None:
        write_atomically(kept, bundle)
    return bundle


def _kept_bundle() -> Path | None:
    """Where the bundle of these versions is kept: making it takes longer than drawing every chart."""
    folder = cache_folder()
    name = f"vega-{vegalite_version()}-{version('vl-convert-python')}.js"
    return folder / name if folder is not None else None
