"""Animations and sheets of pictures of recorded episodes, drawn with Pillow."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hyperlax.envs.scenes import Disc, Line, Point, Polygon, Scene
from hyperlax.policies.optional import needed

if TYPE_CHECKING:
    from PIL.Image import Image

WIDTH = 400
"""Pixels from the left to the right of a picture."""
FINER = 2
"""Pictures are painted this many times as large and made smaller, for smooth edges."""
MOST_FRAMES = 300
FASTEST, SLOWEST = 0.03, 0.2
"""Seconds that a frame is shown, at least and at most."""
LAST = 1.0
"""How long the last frame is shown, in seconds."""
SHEET = 12
"""The largest number of pictures on a sheet."""
COLOURS = 64
BACKGROUND, INK = "#ffffff", "#5b6070"


def animation(scenes: Sequence[Scene], captions: Sequence[str]) -> bytes:
    """A GIF that shows the scenes one after the other, each with its caption, over and over again.

    It runs at the speed of the scenes, unless that would take more than `MOST_FRAMES` frames.
    """
    stride = max(1, round(FASTEST / scenes[0].seconds), -(-len(scenes) // MOST_FRAMES))
    chosen = [*range(0, len(scenes) - 1, stride), len(scenes) - 1]
    palette = _quantized(_montage(scenes, captions))  # the same in all frames, which makes them small
    frames = [_quantized(picture(scenes[i], captions[i]), palette) for i in chosen]
    seconds = [max(FASTEST, min(stride * scenes[i].seconds, SLOWEST)) for i in chosen]
    shown = [round(100 * s) * 10 for s in [*seconds[:-1], LAST]]  # GIF counts hundredths
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=shown, loop=0)
    return file.getvalue()


def sheet(scenes: Sequence[Scene], captions: Sequence[str]) -> bytes:
    """A PNG with at most `SHEET` of the scenes, at equal distances, from the first to the last."""
    file = io.BytesIO()
    _quantized(_montage(scenes, captions)).save(file, "PNG", optimize=True)
    return file.getvalue()


def _montage(scenes: Sequence[Scene], captions: Sequence[str]) -> Image:
    """Pictures of some of the scenes side by side, four in a row."""
    image, count = needed("PIL.Image", "play"), min(SHEET, len(scenes))
    chosen = [round(i * (len(scenes) - 1) / max(1, count - 1)) for i in range(count)]
    pictures = [picture(scenes[i], captions[i]) for i in chosen]
    (width, height), columns = pictures[0].size, min(4, count)
    whole = image.new("RGB", (columns * width, -(-count // columns) * height), BACKGROUND)
    for place, one in enumerate(pictures):
        whole.paste(one, (place % columns * width, place // columns * height))
    return whole


def _quantized(picture: Image, palette: Image | None = None) -> Image:
    """A picture with the colours of `palette`, or with at most `COLOURS` of its own."""
    dither = needed("PIL.Image", "play").Dither.NONE
    return picture.quantize(COLOURS, palette=palette, dither=dither)


def picture(scene: Scene, caption: str) -> Image:
    """One scene, `WIDTH` pixels wide, with the caption in its upper left corner."""
    image, draw, font = (needed(f"PIL.{name}", "play") for name in ("Image", "ImageDraw", "ImageFont"))
    scale = WIDTH * FINER / (scene.x[1] - scene.x[0])
    height = round((scene.y[1] - scene.y[0]) * scale / FINER) * FINER
    canvas = image.new("RGB", (WIDTH * FINER, height), BACKGROUND)
    pen = draw.Draw(canvas)

    def at(point: Point) -> Point:
        return (point[0] - scene.x[0]) * scale, (scene.y[1] - point[1]) * scale

    for shape in scene.shapes:
        _paint(pen, shape, at, scale)
    canvas = canvas.resize((WIDTH, height // FINER), image.Resampling.LANCZOS)
    draw.Draw(canvas).text((10, 8), caption, INK, font.load_default(15))
    return canvas


def _paint(pen: Any, shape: Line | Disc | Polygon, at: Any, scale: float) -> None:
    """Paint one shape; `at` places a point on the canvas, on which lengths are multiplied by `scale`."""
    if isinstance(shape, Polygon):
        pen.polygon([at(corner) for corner in shape.corners], shape.colour)
    elif isinstance(shape, Disc):
        _disc(pen, at(shape.centre), shape.radius * scale, shape.colour)
    else:
        points = [at(point) for point in shape.points]
        pen.line(points, shape.colour, max(1, round(shape.width * scale)), joint="curve")
        for end in (points[0], points[-1]):
            _disc(pen, end, shape.width * scale / 2, shape.colour)


def _disc(pen: Any, centre: Point, radius: float, colour: str) -> None:
    x, y = centre
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), colour)
