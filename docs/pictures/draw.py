"""Draws a picture from its text: `python docs/pictures/draw.py` writes NAME.svg for each NAME.txt beside it.

title: TEXT
lanes: NAME, NAME, ...            a column each
LANE | FUNCTION: TEXT             a box in a lane; boxes follow each other downwards
strip: TEXT                       below the lanes, bytes side by side
BYTES | NAME | TEXT               a part of the strip; without a name it is empty
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
LANE_PX, BOX_PX, STEP_PX, TOP_PX, MARGIN_PX, STRIP_PX = 190, 170, 66, 96, 14, 64
COLORS = ("#dbe9f6", "#e2f0d9", "#fff2cc", "#fbe5d6", "#e6e0ec")
WRAP = 27  # characters of a line in a box


@dataclass
class Picture:
    """What a text says."""

    title: str = ""
    lanes: list[str] = field(default_factory=list)
    steps: list[tuple[str, str, str]] = field(default_factory=list)  # lane, function, text
    strip: str = ""
    parts: list[tuple[str, str, str]] = field(default_factory=list)  # bytes, name, text

    @classmethod
    def read(cls, text: str) -> Picture:
        """Takes it line by line."""
        picture = cls()
        for line in text.splitlines():
            if not line or line.startswith("#"):
                continue
            cells = [cell.strip() for cell in line.split("|")]
            key, _, value = line.partition(": ")
            if key in ("title", "strip"):
                setattr(picture, key, value)
            elif key == "lanes":
                picture.lanes = value.split(", ")
            elif len(cells) == 2:
                function, _, said = cells[1].partition(": ")
                picture.steps.append((cells[0], function, said))
            else:
                size, name, said = cells
                picture.parts.append((size, name, said))
        return picture


def _text(x: float, y: float, text: str, size: int = 12, style: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="middle"{style}>{escape(text)}</text>'


def _box(x: float, y: float, width: float, height: float, fill: str) -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="4" fill="{fill}" stroke="#555"/>'


def _strip(picture: Picture, y: float, width: float) -> list[str]:
    """Parts as wide as what is said of them, as the largest would leave no room for the others."""
    lines = [_text(MARGIN_PX, y - 10, picture.strip, 13, ' font-weight="bold"').replace("middle", "start")]
    widths = [max(len(name), len(said) + 2, 8) for _, name, said in picture.parts]
    scale = (width - 2 * MARGIN_PX) / sum(widths)
    x = float(MARGIN_PX)
    for (size, name, said), share in zip(picture.parts, widths, strict=True):
        part = share * scale
        lines.append(_box(x, y, part, 34, COLORS[len(picture.lanes) % len(COLORS) - 1] if name else "#fff"))
        lines.append(_text(x + part / 2, y + 21, name))
        lines.append(_text(x + part / 2, y + 50, f"{size} B" if name else size, 11))
        lines.append(_text(x + part / 2, y + 66, said, 11))
        x += part
    return lines


def draw(picture: Picture) -> str:
    """The SVG."""
    width = len(picture.lanes) * LANE_PX + 2 * MARGIN_PX
    bottom = TOP_PX + len(picture.steps) * STEP_PX
    height = bottom + STRIP_PX + 80
    centre = {lane: MARGIN_PX + LANE_PX * (number + 0.5) for number, lane in enumerate(picture.lanes)}
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">',
        f"<title>{escape(picture.title)}</title>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        '<defs><marker id="arrow" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto">'
        '<path d="M0,0 L8,4 L0,8 z" fill="#555"/></marker></defs>',
        _text(width / 2, 30, picture.title, 18, ' font-weight="bold"'),
    ]
    for number, (lane, x) in enumerate(centre.items()):
        lines.append(
            f'<rect x="{x - LANE_PX / 2 + 3:g}" y="46" width="{LANE_PX - 6}" height="{bottom - 46}" '
            f'fill="{COLORS[number % len(COLORS)]}" opacity="0.35"/>'
        )
        lines.append(_text(x, 68, lane, 14, ' font-weight="bold"'))
    for number, (lane, function, said) in enumerate(picture.steps):
        x, y = centre[lane], TOP_PX + number * STEP_PX - 14
        if number:
            before = centre[picture.steps[number - 1][0]]
            from_y = y - STEP_PX + 52
            path = f"M{before:g},{from_y} L{before:g},{y - 7} L{x:g},{y - 7} L{x:g},{y - 1}"
            lines.append(f'<path d="{path}" fill="none" stroke="#555" marker-end="url(#arrow)"/>')
        lines.append(_box(x - BOX_PX / 2, y, BOX_PX, 52, COLORS[picture.lanes.index(lane) % len(COLORS)]))
        lines.append(_text(x, y + 15, function, 12, ' font-family="monospace" font-weight="bold"'))
        for row, text in enumerate(textwrap.wrap(said, WRAP)):
            lines.append(_text(x, y + 30 + 14 * row, text, 11))
    if picture.parts:
        lines += _strip(picture, bottom + 40, width)
    return "\n".join([*lines, "</svg>", ""])


def drawn() -> dict[Path, str]:
    """Each picture's file, and what belongs into it."""
    return {
        source.with_suffix(".svg"): draw(Picture.read(source.read_text())) for source in sorted(FOLDER.glob("*.txt"))
    }


if __name__ == "__main__":
    for path, svg in drawn().items():
        path.write_text(svg)
