"""The shapes of answers as JSON Schema (2020-12), for the OpenAPI document. Tests hold answers against
them.
"""

from typing import Any

Json = dict[str, Any]


def fields(required: Json, optional: Json | None = None, *, more: bool = False) -> Json:
    """An object with these members and, unless `more`, no others."""
    found: Json = {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
    }
    if not more:
        found["additionalProperties"] = False
    return found


def list_of(item: Json) -> Json:
    """An array."""
    return {"type": "array", "items": item}


def shape(name: str) -> Json:
    """Another schema of this module."""
    return {"$ref": f"#/components/schemas/{name}"}


TEXT: Json = {"type": "string"}
NUMBER: Json = {"type": "number"}
WHOLE: Json = {"type": "integer"}
FLAG: Json = {"type": "boolean"}
NUMBER_OR_NULL: Json = {"type": ["number", "null"]}
WHOLE_OR_NULL: Json = {"type": ["integer", "null"]}
TEXT_OR_NULL: Json = {"type": ["string", "null"]}
DECIMAL: Json = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?$"}

_SYMBOL = fields(
    {
        "id": {"type": "integer", "minimum": 1, "maximum": 65_535},
        "symbol": TEXT,
        "name": TEXT,
        "base_currency": TEXT,
        "quote_currency": TEXT,
        "is_active": FLAG,
        "price_precision": WHOLE,
        "quantity_precision": WHOLE,
        "tick_size": DECIMAL,
        "step_size": DECIMAL,
        "min_notional": DECIMAL,
    }
)
_BAR = fields(
    {
        "time": WHOLE,
        "open": NUMBER,
        "high": NUMBER,
        "low": NUMBER,
        "close": NUMBER,
        "volume": NUMBER,
        "trade_count": {"type": "integer", "minimum": 1},
        "complete": FLAG,
    }
)
_TICK = fields(
    {
        "id": WHOLE,
        "price": NUMBER,
        "quantity": NUMBER,
        "side": {"enum": ["buy", "sell"]},
        "time": WHOLE,
        "repaired": FLAG,
    }
)
_GAP = fields(
    {
        "symbol": TEXT,
        "stream": {"enum": ["trade", "agg", "aggTrade"]},
        "state": {"enum": ["open", "repaired", "unrepairable"]},
        "from_id": WHOLE,
        "to_id": WHOLE,
        "missing": WHOLE,
        "opened_at": WHOLE,
        "closed_at": WHOLE_OR_NULL,
        "from_time": WHOLE_OR_NULL,
        "to_time": WHOLE_OR_NULL,
    },
    more=True,
)
_STATE: Json = {"enum": ["ok", "starting", "degraded", "down"]}
_COMPONENT = fields(
    {"name": TEXT, "state": _STATE, "since": WHOLE, "last_error": TEXT_OR_NULL, "lag": NUMBER_OR_NULL},
    {"details": {"type": "object"}},
)
_MARK = fields(
    {"id": TEXT, "time": WHOLE, "color": TEXT, "label": TEXT, "labelFontColor": TEXT},
    {
        "text": TEXT,
        "minSize": WHOLE,
        "tooltip": list_of(TEXT),
        "shape": {"enum": ["circle", "earning", "earningUp", "earningDown"]},
    },
)
_UDF_SYMBOL = fields(
    {
        "name": TEXT,
        "ticker": TEXT,
        "description": TEXT,
        "type": TEXT,
        "exchange": TEXT,
        "listed_exchange": TEXT,
        "session": {"const": "24x7"},
        "timezone": {"const": "Etc/UTC"},
        "minmov": WHOLE,
        "pricescale": WHOLE,
        "has_intraday": {"const": True},
        "intraday_multipliers": list_of(TEXT),
        "supported_resolutions": list_of(TEXT),
        "volume_precision": WHOLE,
    },
    more=True,
)
_UDF_SYMBOL["properties"]["s"] = False
_UDF_BARS = fields(
    {
        "s": {"const": "ok"},
        "t": list_of(WHOLE),
        **{name: list_of(NUMBER) for name in "ohlcv"},
        "incomplete": list_of(WHOLE),
    }
)
_UDF_NOTHING = fields({"s": {"const": "no_data"}}, {"nextTime": WHOLE})

SCHEMAS: dict[str, Json] = {
    "Error": fields(
        {"error": fields({"code": TEXT, "message": TEXT}, {"id": TEXT}, more=True)},
    ),
    "Symbol": _SYMBOL,
    "Symbols": list_of(shape("Symbol")),
    "Price": fields(
        {
            "symbol": TEXT,
            "price": NUMBER_OR_NULL,
            "bid": NUMBER_OR_NULL,
            "ask": NUMBER_OR_NULL,
            "volume": NUMBER_OR_NULL,
            "timestamp": WHOLE,
        },
        {"trade_id": WHOLE, "complete": FLAG},
    ),
    "Bar": _BAR,
    "Bars": fields({"bars": list_of(shape("Bar")), "loading": FLAG}),
    "Tick": _TICK,
    "Ticks": fields({"ticks": list_of(shape("Tick")), "next": TEXT_OR_NULL}),
    "Gap": _GAP,
    "Gaps": fields({"gaps": list_of(shape("Gap")), "next": TEXT_OR_NULL}),
    "Enigma": fields(
        {
            "symbol": TEXT,
            "level": NUMBER_OR_NULL,
            "ath": NUMBER_OR_NULL,
            "atl": NUMBER_OR_NULL,
            "current_price": NUMBER_OR_NULL,
            "fib_levels": fields(
                dict.fromkeys(("0", "23.6", "38.2", "50", "61.8", "78.6", "100"), NUMBER_OR_NULL)
            ),
            "trade_id": WHOLE,
            "timestamp": WHOLE,
        }
    ),
    "Health": fields({"status": {"enum": ["ok", "degraded", "down"]}}),
    "NotReady": fields({"status": {"const": "not_ready"}, "error": fields({"code": TEXT, "message": TEXT})}),
    "Component": _COMPONENT,
    "HealthDetailed": fields(
        {
            "status": {"enum": ["ok", "degraded", "down"]},
            "ready": FLAG,
            "components": list_of(shape("Component")),
        },
        more=True,
    ),
    "SettlementRequest": fields(
        {
            "symbol": {**TEXT, "minLength": 1, "maxLength": 40, "examples": ["BTCUSDT"]},
            "time": {
                "type": "integer",
                "minimum": 0,
                "maximum": 99_999_999_999_999,
                "description": "unix ms",
                "examples": [1_700_000_000_000],
            },
        }
    ),
    "Settlement": fields(
        {
            "id": TEXT,
            "symbol": TEXT,
            "time": WHOLE,
            "status": {"enum": ["waiting", "settled", "incomplete"]},
            "price": NUMBER_OR_NULL,
            "trade_id": WHOLE_OR_NULL,
            "trade_time": WHOLE_OR_NULL,
            "complete": FLAG,
            "reason": TEXT_OR_NULL,
            "proof": {"type": ["object", "null"]},
            "created_at": WHOLE,
            "settled_at": WHOLE_OR_NULL,
        }
    ),
    "Settlements": fields({"settlements": list_of(shape("Settlement"))}),
    "Login": fields(
        {
            "username": {**TEXT, "minLength": 1, "maxLength": 64, "examples": ["alice"]},
            "password": {**TEXT, "format": "password"},
        },
        {
            "symbols": {
                **list_of({**TEXT, "minLength": 1, "maxLength": 24, "pattern": "^[^,]+$"}),
                "minItems": 1,
            }
        },
    ),
    "Session": fields(
        {"user_id": WHOLE, "username": TEXT, "expires_at": {**WHOLE, "description": "unix ms"}}
    ),
    "MarketWatch": fields({"symbols": list_of(TEXT)}),
    "UdfError": fields({"s": {"const": "error"}, "errmsg": {**TEXT, "minLength": 1}}),
    "UdfConfig": fields(
        {
            "supports_search": FLAG,
            "supports_group_request": FLAG,
            "supports_marks": FLAG,
            "supports_timescale_marks": FLAG,
            "supports_time": FLAG,
            "supported_resolutions": list_of(TEXT),
            "exchanges": list_of(fields({"value": TEXT, "name": TEXT, "desc": TEXT})),
            "symbols_types": list_of(fields({"name": TEXT, "value": TEXT})),
        }
    ),
    "UdfSymbol": _UDF_SYMBOL,
    "UdfSymbolOrError": {"oneOf": [shape("UdfSymbol"), shape("UdfError")]},
    "UdfFound": list_of(
        fields(
            {
                "symbol": TEXT,
                "full_name": TEXT,
                "description": TEXT,
                "exchange": TEXT,
                "ticker": TEXT,
                "type": TEXT,
            }
        )
    ),
    "UdfHistory": {"oneOf": [_UDF_BARS, _UDF_NOTHING, shape("UdfError")]},
    "UdfMarks": {"oneOf": [list_of(_MARK), shape("UdfError")]},
    "UdfQuotes": {
        "oneOf": [
            fields(
                {
                    "s": {"const": "ok"},
                    "d": list_of(
                        fields(
                            {"s": {"enum": ["ok", "error"]}, "n": TEXT, "v": {"type": "object"}},
                            {"errmsg": TEXT},
                        )
                    ),
                }
            ),
            shape("UdfError"),
        ]
    },
}
