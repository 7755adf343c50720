"""Access to vl-convert, which bundles the Vega scripts of the report and renders images without a browser."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

from hyperlax.storage.files import cache_folder, write_output


@cache
def vl_convert() -> ModuleType:
    """Import and return the module `vl_convert`; the import is lazy because the module is large."""
    import vl_convert

    return vl_convert


def vegalite_version() -> str:
    """Return the version `<major>.<minor>` of Vega-Lite that altair writes, in the format of vl-convert."""
    import altair as alt

    return ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])


@cache
def javascript_bundle() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script that can be placed inside a script element.

    The script defines `vegaEmbed`. It is cached on disk, because bundling takes longer than drawing all
    charts of a report.
    """
    cached = _bundle_path()
    if cached is not None and cached.exists():
        return cached.read_text("utf-8")
    bundle = vl_convert().javascript_bundle(vl_version=vegalite_version())
    bundle = bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")
    if cached is not None:
        write_output(cached, bundle)
    return bundle


def _bundle_path() -> Path | None:
    """Return the path of the cached bundle for the installed versions; None without a cache folder."""
    folder = cache_folder()
    name = f"vega-{vegalite_version()}-{version('vl-convert-python')}.js"
    return folder / name if folder is not None else None
