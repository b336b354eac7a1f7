"""The body of exchangeInfo. Pure; section 7.2 of the fact sheet."""

from collections.abc import Iterable
from typing import Any

from tradeback.sim.instrument import Instrument
from tradeback.sim.text import SCALE, decimal8

_BIG = 9_000_000 * SCALE


def rate_limits(weight_per_minute: int) -> list[dict[str, Any]]:
    """The `rateLimits` array."""
    return [
        {
            "rateLimitType": "REQUEST_WEIGHT",
            "interval": "MINUTE",
            "intervalNum": 1,
            "limit": weight_per_minute,
        },
        {"rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": 100},
        {"rateLimitType": "ORDERS", "interval": "DAY", "intervalNum": 1, "limit": 200_000},
        {"rateLimitType": "RAW_REQUESTS", "interval": "MINUTE", "intervalNum": 5, "limit": 300_000},
    ]


def filters(instrument: Instrument) -> list[dict[str, Any]]:
    """The filters of one symbol, all numbers as strings where the exchange does so."""
    largest = max(instrument.step, instrument.lot * 100_000 // instrument.step * instrument.step)
    return [
        {
            "filterType": "PRICE_FILTER",
            "minPrice": instrument.tick_size,
            "maxPrice": decimal8(max(instrument.price // SCALE + 1, 1) * 1_000 * SCALE),
            "tickSize": instrument.tick_size,
        },
        {
            "filterType": "LOT_SIZE",
            "minQty": instrument.step_size,
            "maxQty": decimal8(largest),
            "stepSize": instrument.step_size,
        },
        {"filterType": "ICEBERG_PARTS", "limit": 100},
        {
            "filterType": "MARKET_LOT_SIZE",
            "minQty": "0.00000000",
            "maxQty": decimal8(largest),
            "stepSize": "0.00000000",
        },
        {
            "filterType": "TRAILING_DELTA",
            "minTrailingAboveDelta": 10,
            "maxTrailingAboveDelta": 2_000,
            "minTrailingBelowDelta": 10,
            "maxTrailingBelowDelta": 2_000,
        },
        {
            "filterType": "PERCENT_PRICE_BY_SIDE",
            "bidMultiplierUp": "5",
            "bidMultiplierDown": "0.2",
            "askMultiplierUp": "5",
            "askMultiplierDown": "0.2",
            "avgPriceMins": 5,
        },
        {
            "filterType": "NOTIONAL",
            "minNotional": "5.00000000",
            "applyMinToMarket": True,
            "maxNotional": decimal8(_BIG),
            "applyMaxToMarket": False,
            "avgPriceMins": 5,
        },
        {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": 200},
        {"filterType": "MAX_NUM_ORDER_LISTS", "maxNumOrderLists": 20},
        {"filterType": "MAX_NUM_ALGO_ORDERS", "maxNumAlgoOrders": 5},
        {"filterType": "MAX_NUM_ORDER_AMENDS", "maxNumOrderAmends": 10},
    ]


def describe(instrument: Instrument, permission_sets: bool) -> dict[str, Any]:
    """One entry of `symbols`."""
    entry: dict[str, Any] = {
        "symbol": instrument.symbol,
        "status": "TRADING",
        "baseAsset": instrument.base,
        "baseAssetPrecision": 8,
        "quoteAsset": instrument.quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": [
            "LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS", "STOP_LOSS_LIMIT", "TAKE_PROFIT",
            "TAKE_PROFIT_LIMIT",
        ],
        "icebergAllowed": True,
        "ocoAllowed": True,
        "otoAllowed": True,
        "opoAllowed": False,
        "quoteOrderQtyMarketAllowed": True,
        "allowTrailingStop": True,
        "cancelReplaceAllowed": True,
        "amendAllowed": True,
        "pegInstructionsAllowed": True,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "filters": filters(instrument),
        "permissions": [],
        "permissionSets": [["SPOT"]] if permission_sets else [],
        "defaultSelfTradePreventionMode": "EXPIRE_MAKER",
        "allowedSelfTradePreventionModes": ["EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH", "DECREMENT"],
    }  # fmt: skip
    return entry


def exchange_info(
    instruments: Iterable[Instrument], server_time: int, weight_per_minute: int, permission_sets: bool
) -> dict[str, Any]:
    """The whole body."""
    return {
        "timezone": "UTC",
        "serverTime": server_time,
        "rateLimits": rate_limits(weight_per_minute),
        "exchangeFilters": [],
        "symbols": [describe(instrument, permission_sets) for instrument in instruments],
    }
