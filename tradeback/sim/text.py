"""Decimals as the exchange writes them: integers in units of 1e-8, shown with eight decimals. Pure."""

SCALE = 100_000_000
"""Integer units in 1.0."""


def decimal8(units: int) -> str:
    """`units` of 1e-8 with eight decimals: 17124000000 -> "171.24000000"."""
    if units < 0:
        return "-" + decimal8(-units)
    whole, fraction = divmod(units, SCALE)
    return f"{whole}.{fraction:08d}"


def units8(text: str | bytes) -> int:
    """Integer units of 1e-8 of a decimal string; digits beyond the eighth are cut. ValueError if none."""
    if isinstance(text, bytes):
        text = text.decode("ascii")
    whole, _, fraction = text.partition(".")
    if len(fraction) != 8:
        fraction = (fraction + "00000000")[:8]
    return int(whole + fraction)


def quote8(price: int, quantity: int) -> int:
    """price x quantity in units of 1e-8, cut (never rounded) to eight decimals as the exchange does."""
    return price * quantity // SCALE
