"""What a version 2 client wants: subjects, and their algebra. Pure.

A subject is a channel and a symbol in one number: channel * 65,536 + symbol id. Symbol id 0 stands for every
symbol, also those to come, so `channel * 65,536` alone means the whole channel.
"""

from collections.abc import Iterable
from typing import Final

import numpy as np

from tradeback.feed.interest import Interest
from tradeback.model.record import QUOTE, Rows
from tradeback.wire import control
from tradeback.wire.v2_layout import CHANNEL_GAPS, CHANNEL_QUOTES, CHANNEL_TRADES, SYMBOL_IDS

CHANNEL_NUMBERS: Final = {
    control.TRADES: CHANNEL_TRADES,
    control.QUOTES: CHANNEL_QUOTES,
    control.GAPS: CHANNEL_GAPS,
}
"""Channels that come from the tape, by name."""


def subjects_of(channels: Iterable[str], ids: Interest) -> Interest:
    """Every one of `ids` in every one of `channels` that comes from the tape; id 0 means all."""
    numbers = [CHANNEL_NUMBERS[name] for name in channels if name in CHANNEL_NUMBERS]
    return frozenset(number * SYMBOL_IDS + symbol_id for number in numbers for symbol_id in ids)


def union(first: Interest, more: Interest) -> Interest:
    """Both together; a whole channel swallows its single symbols."""
    joined = first | more
    whole = {subject for subject in joined if not subject % SYMBOL_IDS}
    if not whole:
        return joined
    return frozenset(subject for subject in joined if subject in whole or _channel(subject) not in whole)


def without(first: Interest, gone: Interest, known: Iterable[int]) -> Interest:
    """`first` less `gone`. Taking single symbols from a whole channel leaves the rest of the `known` ones."""
    listed = list(known)
    left: set[int] = set()
    gone_whole = {subject for subject in gone if not subject % SYMBOL_IDS}
    for subject in first:
        channel = _channel(subject)
        if channel in gone_whole or subject in gone:
            continue
        if subject == channel and any(_channel(other) == channel for other in gone):
            left.update(channel + symbol_id for symbol_id in listed if channel + symbol_id not in gone)
        else:
            left.add(subject)
    return frozenset(left)


def news(held: Interest, asked: Interest) -> Interest:
    """What of `asked` is not delivered yet."""
    return frozenset(subject for subject in asked if subject not in held and _channel(subject) not in held)


def _channel(subject: int) -> int:
    """The subject that stands for the whole channel of `subject`."""
    return subject - subject % SYMBOL_IDS


def quotes_left_out(wanted: Interest, rows: Rows) -> int:
    """How many quotes of `wanted` there are in `rows` besides the last one of each symbol."""
    symbol_ids = rows["symbol_id"][rows["kind"] == QUOTE]
    if not len(symbol_ids):
        return 0
    counts = np.bincount(symbol_ids)
    whole = CHANNEL_QUOTES * SYMBOL_IDS
    if whole not in wanted:
        ids = [subject - whole for subject in wanted if whole < subject < whole + len(counts)]
        counts = counts[ids]
    return int(counts.sum() - np.count_nonzero(counts))
