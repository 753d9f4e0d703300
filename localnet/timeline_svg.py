"""The time-line of a subnet as one self-contained SVG: no script, no font and no picture from elsewhere.

Five panels over the same axis of epochs: a map of the weight that each uid received, lines of consensus, incentive and
dividends of the uids that ever had most of it, and the price. Colours follow the uid through all panels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

WIDTH, LEFT, RIGHT, TOP = 960, 70, 150, 64
PANEL, GAP = 150, 46
MOST = 10  # uids with a colour of their own; the others are grey
GREY, INK, FAINT = "#b8bec6", "#1f2933", "#dfe3e8"
COLOURS = (
    "#1f6fb4", "#d9731a", "#2a8f4a", "#b8323a", "#7d55b0", "#7c5a45", "#d165a8", "#5f7d1f", "#1796a5", "#a98b00",
)  # fmt: skip

Epoch = Mapping[str, Any]


def received(epoch: Epoch) -> list[float]:
    """Per uid the weight it received: validators' rows, each counting by its stake among those that set weights; all
    alike where the chain does not store their stake's weight."""
    n = len(epoch["incentive"])
    rows = {int(uid): row for uid, row in epoch["weights"].items() if row}
    stakes = {uid: _at(epoch["stake"] or (), uid) for uid in rows}
    total = sum(stakes.values())
    sums = [0.0] * n
    for uid, row in rows.items():
        part = stakes[uid] / total if total else 1 / len(rows)
        for to, weight in row.items():
            if int(to) < n:
                sums[int(to)] += part * weight
    return sums


def _at(values: Sequence[float], uid: int) -> float:
    return values[uid] if uid < len(values) else 0.0


def leading(epochs: Sequence[Epoch]) -> list[int]:
    """The uids that had most consensus, incentive or dividends in any epoch, ascending."""
    n = max((len(epoch["incentive"]) for epoch in epochs), default=0)
    names = ("consensus", "incentive", "dividends")
    peak = {uid: max(_at(epoch[name], uid) for epoch in epochs for name in names) for uid in range(n)}
    return sorted(sorted((uid for uid in peak if peak[uid] > 0), key=lambda uid: (-peak[uid], uid))[:MOST])


def draw(line: Mapping[str, Any]) -> str:
    """The picture of what `localnet.timeline.timeline` gave."""
    epochs: list[Epoch] = line["epochs"]
    height = TOP + 5 * (PANEL + GAP) + 20
    head = f"Subnet {line['netuid']}: {len(epochs)} epochs"
    if epochs:
        head += f", blocks {epochs[0]['block']} to {epochs[-1]['block']}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'font-family="system-ui, sans-serif" font-size="12" fill="{INK}">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        _text(LEFT, 28, head, 'font-size="18" font-weight="600"'),
    ]
    parts += _panels(epochs) if epochs else [_text(LEFT, TOP, "No epoch whose state is kept has run on this subnet.")]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panels(epochs: Sequence[Epoch]) -> Iterator[str]:
    uids = leading(epochs)
    colours = {uid: COLOURS[place % len(COLOURS)] for place, uid in enumerate(uids)}
    n = max(len(epoch["incentive"]) for epoch in epochs)
    xs = _positions(len(epochs))
    tops = [TOP + place * (PANEL + GAP) for place in range(5)]
    yield from _legend(colours, n)
    yield from _heat(tops[0], xs, epochs, n, colours)
    for top, name in zip(tops[1:4], ("consensus", "incentive", "dividends"), strict=True):
        rows = [([_at(e[name], uid) for e in epochs], colours.get(uid)) for uid in range(n)]
        series = [row for row in rows if any(row[0])]
        yield from _lines(top, xs, name.capitalize(), series, lambda value: f"{value:.2f}")
    colour_of = {"price": INK, "moving_price": COLOURS[1]}
    known = [name for name in colour_of if all(e[name] is not None for e in epochs)]  # old runtimes store no price
    prices = [([e[name] for e in epochs], colour_of[name]) for name in known]
    title = "Price, TAO per alpha (orange: moving average)"
    yield from _lines(tops[4], xs, title, prices, lambda value: f"{value:.3g}")
    yield from _axis(tops[4] + PANEL, xs, epochs)


def _positions(count: int) -> list[float]:
    """Where each epoch stands: the middle of its column."""
    step = (WIDTH - LEFT - RIGHT) / count
    return [LEFT + step * (place + 0.5) for place in range(count)]


def _text(x: float, y: float, text: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {more}>{escape(text)}</text>'


def _legend(colours: Mapping[int, str], n: int) -> Iterator[str]:
    x = WIDTH - RIGHT + 24
    for place, (uid, colour) in enumerate(colours.items()):
        y = TOP + PANEL + GAP + 10 + 18 * place
        yield f'<rect x="{x}" y="{y - 8}" width="14" height="4" fill="{colour}"/>' + _text(x + 22, y, f"uid {uid}")
    if n > len(colours):
        y = TOP + PANEL + GAP + 10 + 18 * len(colours)
        yield f'<rect x="{x}" y="{y - 8}" width="14" height="4" fill="{GREY}"/>' + _text(x + 22, y, "others")


def _heat(
    top: float, xs: Sequence[float], epochs: Sequence[Epoch], n: int, colours: Mapping[int, str]
) -> Iterator[str]:
    """Weight received, a cell per uid and epoch; the darkest is the largest there is."""
    maps = [received(epoch) for epoch in epochs]
    darkest = max((value for column in maps for value in column), default=0.0) or 1.0
    step, row = xs[0] - LEFT, PANEL / max(n, 1)
    by = "by validators' stake" if all(epoch["stake"] is not None for epoch in epochs) else "all validators alike"
    yield _text(LEFT, top - 8, f"Weight received, {by} (darkest: {darkest:.2f})", 'font-weight="600"')
    for x, column in zip(xs, maps, strict=True):
        for uid, value in enumerate(column):
            if value > 0:
                yield (
                    f'<rect x="{x - step:.1f}" y="{top + uid * row:.1f}" width="{2 * step:.1f}" height="{row:.2f}" '
                    f'fill="#12507b" fill-opacity="{value / darkest:.3f}"/>'
                )
    yield (f'<rect x="{LEFT}" y="{top}" width="{WIDTH - LEFT - RIGHT}" height="{PANEL}" fill="none" stroke="{FAINT}"/>')
    every = max(1, -(-n // 10))
    for uid in range(0, n, every):
        colour = colours.get(uid, INK)
        yield _text(LEFT - 8, top + (uid + 0.5) * row + 4, str(uid), f'text-anchor="end" fill="{colour}"')


def _lines(
    top: float,
    xs: Sequence[float],
    title: str,
    series: Sequence[tuple[Sequence[float], str | None]],
    label: Callable[[float], str],
) -> Iterator[str]:
    """A panel of lines from 0 to the largest value; a series without a colour is grey and behind the others."""
    largest = max((value for values, _ in series for value in values), default=0.0)
    scale = largest or 1.0
    yield _text(LEFT, top - 8, title, 'font-weight="600"')
    for part in (0.0, 0.5, 1.0):
        y = top + PANEL * (1 - part)
        yield f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{FAINT}"/>'
        yield _text(LEFT - 8, y + 4, label(scale * part), 'text-anchor="end"')
    for values, colour in sorted(series, key=lambda one: one[1] is not None):
        points = [(x, top + PANEL * (1 - value / scale)) for x, value in zip(xs, values, strict=True)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        paint, width = colour or GREY, 2 if colour else 1
        yield f'<polyline points="{path}" fill="none" stroke="{paint}" stroke-width="{width}"/>'
        if colour:
            yield from (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{paint}"/>' for x, y in points)


def _axis(y: float, xs: Sequence[float], epochs: Sequence[Epoch]) -> Iterator[str]:
    every = max(1, -(-len(xs) // 12))
    for x, epoch in list(zip(xs, epochs, strict=True))[::every]:
        yield _text(x, y + 18, str(epoch["block"]), 'text-anchor="middle"')
    yield _text(LEFT, y + 34, "block of the epoch", f'fill="{INK}"')
