"""What each variant takes of a device's memory, as stacked bars against what is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from markupsafe import Markup, escape

from quantgate.hardware.quantities import told_bytes
from quantgate.hardware.roofline import Memory
from quantgate.report.svg import both, open_svg, round_steps, rule, shortened, text, width_of

INKS = {"process": "var(--f)", "weights": "var(--a)", "cache": "var(--e)", "activations": "var(--d)"}
WORDS = {"process": "runtime", "weights": "weights", "cache": "cache", "activations": "activations"}
ROW, FAR = 40, 6.0  # how many times the largest bar the limit may be before it is told instead of drawn


@dataclass(frozen=True)
class Taken:
    """One bar."""

    name: str
    memory: Memory
    chosen: bool = False


def memory_bars(rows: Sequence[Taken]) -> Markup:
    """A bar for each; the red rule is what the runtime may take, or words where that is far beyond all bars."""
    return both(partial(_drawn, rows))


def parts_of(memory: Memory) -> list[tuple[str, int]]:
    """What lies in memory, bytes each; a model that is opened in 16 bits needs that more for a while."""
    while_open = max(0, memory.opening - memory.weights - memory.cache - memory.activations)
    found = [("process", memory.process), ("weights", memory.weights), ("cache", memory.cache)]
    return [*found, ("activations", memory.activations), *([("opening", while_open)] if while_open else [])]


def _drawn(rows: Sequence[Taken], width: int) -> Markup:
    most = max(row.memory.needed for row in rows)
    there = next((row.memory.available for row in rows if row.memory.available is not None), None)
    drawn = there is not None and there <= FAR * most
    edge = 1.04 * max(most, there if there is not None and drawn else 0)
    legend, top = _legend(rows, width)
    height, right = top + ROW * len(rows), width - 10.0
    unit, scale = ("GB", 1e9) if edge >= 1e9 else ("MB", 1e6)

    def x(count: float) -> float:
        return 2 + (right - 2) * count / edge

    limit = "nobody says what is there" if there is None else f"{told_bytes(there)} are there"
    told = f"memory of {len(rows)} variants; {limit}"
    parts = [open_svg(width, height + 40, told), legend]
    for step in round_steps(edge / scale, 4 if width > 500 else 3):
        parts += [rule(x(step * scale), top, x(step * scale), height, "grid")]
        parts += [text(max(x(step * scale), 8), height + 16, f"{step:g}")]
    for at, row in enumerate(rows):
        parts += _bar(row, top + ROW * at, x, width)
    if there is not None and drawn:
        side = "end" if x(there) > width / 2 else "start"
        parts += [rule(x(there), top - 4, x(there), height, "margin")]
        parts += [
            text(x(there) + (-5 if side == "end" else 5), top - 6, f"{told_bytes(there)} are there", "edge", side)
        ]
    parts += [text(width / 2, height + 34, f"memory of each device, {unit}"), "</svg>"]
    return Markup("".join(parts))


def _bar(row: Taken, top: float, x: Callable[[float], float], width: int) -> list[str]:
    start, parts = 0.0, list[str]()
    share = _share(row.memory)
    told = f"{shortened(row.name, 30 if width > 500 else 16)}: {told_bytes(row.memory.needed)}{share}"
    parts.append(text(2, top + 13, told, "label picked" if row.chosen else "label", "start"))
    for part, count in parts_of(row.memory):
        title = f"{row.name}, {WORDS.get(part, 'while it is opened')}: {told_bytes(count)}"
        style = f'fill="{INKS[part]}"' if part in INKS else 'class="opening"'
        wide = x(start + count) - x(start)
        parts.append(
            f'<rect x="{x(start):.1f}" y="{top + 18:.1f}" width="{wide:.2f}" height="13" {style}>'
            f"<title>{escape(title)}</title></rect>"
        )
        start += count
    return parts


def _share(memory: Memory) -> str:
    if memory.available is None:
        return ""
    share = 100 * memory.needed / memory.available
    word = "does not fit, " if share > 100 else ""
    return f" ({word}{f'{share:.0f}' if share >= 1 else 'less than 1'} % of {told_bytes(memory.available)})"


def _legend(rows: Sequence[Taken], width: int) -> tuple[str, float]:
    kinds = [kind for kind in WORDS if any(getattr(row.memory, kind) for row in rows)]
    entries = [(f'fill="{INKS[kind]}"', WORDS[kind]) for kind in kinds]
    if any(part == "opening" for row in rows for part, _ in parts_of(row.memory)):
        entries.append(('class="opening"', "while it is opened"))
    x, y, parts = 2.0, 14.0, list[str]()
    for style, word in entries:
        if x > 2 and x + 30 + width_of(word) > width:
            x, y = 2.0, y + 18
        parts += [f'<rect x="{x:.1f}" y="{y - 10:.1f}" width="11" height="11" {style}/>']
        parts += [text(x + 16, y, word, anchor="start")]
        x += 30 + width_of(word)
    return "".join(parts), y + 26
