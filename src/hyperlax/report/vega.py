"""vl-convert: the Vega scripts of the report, and images without a browser."""

from __future__ import annotations

from functools import cache
from types import ModuleType


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
    bundle = vl_convert().javascript_bundle(vl_version=vegalite_version())
    return bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")
