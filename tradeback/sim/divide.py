"""Divide a bar into bars that add up to it exactly. Pure.

The children's trades are positions 0 .. n-1 of the parent. Position 0 carries the open, n-1 the close;
the high and the low, where they are other prices, are pinned to two positions in between. A child that
holds a pinned position shows that price, the others follow a bridge between the pins. So a parent with
few trades never gets children that claim more prices than they have trades.
"""

import math
import random
from collections.abc import Sequence

from tradeback.sim.bars import Bar


def portions(total: int, weights: Sequence[float]) -> list[int]:
    """`total` split into non-negative integers in proportion to `weights`, which must not all be 0."""
    whole = math.fsum(weights)
    last = max(index for index, weight in enumerate(weights) if weight > 0)
    result, given, running = [], 0, 0.0
    for index, weight in enumerate(weights):
        running += weight
        upto = total if index >= last else min(total, int(total * (running / whole)))
        result.append(upto - given)
        given = upto
    return result


def divide(parent: Bar, weights: Sequence[float], rng: random.Random) -> list[Bar | None]:
    """Children of `parent`, one per weight; None where no trade fell. A weight of 0 gets no trade."""
    counts = portions(parent.trades, weights)
    held = [index for index, count in enumerate(counts) if count]
    children: list[Bar | None] = [None] * len(counts)
    if len(held) == 1:
        children[held[0]] = parent
        return children
    sizes = [counts[index] for index in held]
    prices = _prices(parent, sizes, rng)
    # The inner half of each range: a mean price at the very edge could not be divided any further.
    lows = [low + (high - low) // 4 for _, high, low, _ in prices]
    highs = [high - (high - low) // 4 for _, high, low, _ in prices]
    spare = portions(parent.volume - parent.trades, [size * rng.expovariate(1.0) for size in sizes])
    volumes = [size + more for size, more in zip(sizes, spare, strict=True)]
    quotes = fit(volumes, sizes, None, lows, highs, parent.quote_volume)
    takers = _shares(parent.taker_volume, parent.volume, volumes)
    taker_quotes = fit(takers, [0] * len(held), volumes, lows, highs, parent.taker_quote_volume)
    first_id = parent.first_id
    for place, index in enumerate(held):
        opened, high, low, close = prices[place]
        children[index] = Bar(
            opened,
            high,
            low,
            close,
            volumes[place],
            quotes[place],
            sizes[place],
            takers[place],
            taker_quotes[place],
            first_id,
        )
        first_id += sizes[place]
    return children


def _shares(part: int, whole: int, volumes: Sequence[int]) -> list[int]:
    """`part` of `whole` spread over volumes that sum to `whole`, none above its volume."""
    result, given, running = [], 0, 0
    for volume in volumes:
        running += volume
        upto = part * running // whole
        result.append(upto - given)
        given = upto
    return result


def _pins(parent: Bar, rng: random.Random) -> dict[int, int]:
    """Positions with a fixed price."""
    last = parent.trades - 1
    pins = {0: parent.open, last: parent.close}
    for extreme in (parent.high, parent.low):
        if extreme in (parent.open, parent.close):
            continue
        place = rng.randrange(1, last)
        while place in pins:
            place = place + 1 if place + 1 < last else 1
        pins[place] = extreme
    return pins


def _prices(parent: Bar, sizes: Sequence[int], rng: random.Random) -> list[tuple[int, int, int, int]]:
    """(open, high, low, close) of every child; `sizes` are its trades, at least two children."""
    pins = _pins(parent, rng)
    anchors = sorted(pins.items())
    low, high = parent.low, parent.high
    scale = (high - low) / (2.0 * math.sqrt(len(sizes)))
    result = []
    start, segment, drift, close = 0, 0, 0.0, parent.open
    for size in sizes:
        end = start + size - 1
        inside = {place: price for place, price in anchors if start <= place <= end}
        while segment + 2 < len(anchors) and anchors[segment + 1][0] < end:
            segment += 1
        (left, left_price), (right, right_price) = anchors[segment], anchors[segment + 1]
        bridge = left_price + (right_price - left_price) * (end - left) / (right - left)
        drift = 0.8 * drift + rng.gauss(0.0, scale)
        before = close
        close = inside.get(end, min(high, max(low, round(bridge + drift))))
        opened = close if size == 1 else inside.get(start, before)
        top, bottom = max(opened, close, *inside.values()), min(opened, close, *inside.values())
        free = size - len({start, end, *inside})
        if free >= 1:
            top = min(high, top + int(rng.expovariate(2.0) * scale))
        if free >= 2:
            bottom = max(low, bottom - int(rng.expovariate(2.0) * scale))
        result.append((opened, top, bottom, close))
        start = end + 1
    return result


def fit(
    volumes: list[int],
    least: Sequence[int],
    most: Sequence[int] | None,
    lows: Sequence[int],
    highs: Sequence[int],
    target: int,
) -> list[int]:
    """Quote volumes that sum to `target`, each between low x volume and high x volume of its child.

    `volumes` is changed in place (its sum never) where the target lies outside what they allow, within
    `least` and `most`. What cannot be met even so, less than a lot, goes to the largest child.
    """
    gentle = [max(floor, volume // 4) for floor, volume in zip(least, volumes, strict=True)]
    for floors in (gentle, least):
        top = sum(high * volume for high, volume in zip(highs, volumes, strict=True))
        if target > top:
            _shift(volumes, floors, most, highs, target - top, upwards=True)
        bottom = sum(low * volume for low, volume in zip(lows, volumes, strict=True))
        if target < bottom:
            _shift(volumes, floors, most, lows, bottom - target, upwards=False)
    bases = [low * volume for low, volume in zip(lows, volumes, strict=True)]
    room = [(high - low) * volume for low, high, volume in zip(lows, highs, volumes, strict=True)]
    bottom, space = sum(bases), sum(room)
    extra = min(max(0, target - bottom), space)
    quotes = bases
    if space:
        quotes = [base + more for base, more in zip(bases, _shares(extra, space, room), strict=True)]
    residual = target - bottom - (extra if space else 0)
    if residual:
        quotes[max(range(len(quotes)), key=volumes.__getitem__)] += residual
    return quotes


def _shift(
    volumes: list[int],
    least: Sequence[int],
    most: Sequence[int] | None,
    prices: Sequence[int],
    missing: int,
    *,
    upwards: bool,
) -> None:
    """Move volume towards higher (or lower) prices until their weighted sum has moved by `missing`."""
    order = sorted(range(len(volumes)), key=prices.__getitem__, reverse=not upwards)
    giver, taker = 0, len(order) - 1
    while missing > 0 and giver < taker:
        source, sink = order[giver], order[taker]
        gain = abs(prices[sink] - prices[source])
        if not gain:
            return
        can_give = volumes[source] - least[source]
        can_take = can_give if most is None else most[sink] - volumes[sink]
        moved = min(-(-missing // gain), can_give, can_take)
        volumes[source] -= moved
        volumes[sink] += moved
        missing -= moved * gain
        if volumes[source] <= least[source]:
            giver += 1
        if most is not None and volumes[sink] == most[sink]:
            taker -= 1
