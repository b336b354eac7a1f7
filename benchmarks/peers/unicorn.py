"""unicorn-binance-websocket-api: one stream with a callback; its WebSocket library is the task's choice."""

import threading
from typing import Any

from unicorn_binance_websocket_api import BinanceWebSocketApiManager

from benchmarks.peers.child import Record, Task, main


def run(task: Task, record: Record) -> None:
    """Read for ever."""

    def on_data(data: Any, *_: Any, **__: Any) -> None:
        data = data.get("data")
        if data is None:
            return  # the answer to the subscription
        if data.get("e") == "trade":
            float(data["p"]), float(data["q"])
            record.trade(data["s"], data["t"])
        else:
            float(data["b"]), float(data["B"]), float(data["a"]), float(data["A"])
            record.quote()

    def on_signal(signal_type: Any = "", *_: Any, **__: Any) -> None:
        if signal_type == "DISCONNECT":
            record.tell("signal", str(signal_type))

    choice = {"websocket_library": task.library} if task.library else {}
    manager = BinanceWebSocketApiManager(
        exchange="binance.com",
        websocket_base_uri=f"{task.ws}/",
        restful_base_uri=f"{task.rest}/",
        output_default="dict",
        process_stream_signals=on_signal,
        warn_on_update=False,
        disable_colorama=True,
        **choice,
    )
    markets = [name.lower() for name in task.names]
    manager.create_stream(["trade", "bookTicker"], markets, process_stream_data=on_data)
    threading.Event().wait()


if __name__ == "__main__":
    main(run, "unicorn-binance-websocket-api", "websockets", "picows")
