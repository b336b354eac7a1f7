"""REST that errs: slow, broken, behind, with holes, or closed to whoever asks too much. Pure."""

import json
import random
from collections.abc import Mapping
from fnmatch import fnmatchcase

from tradeback.sim.fault_frames import chance_of
from tradeback.sim.faults import Fault, RestAnswer

PREFIX = "/api/v3/"
_ROWS = {"trades": ("id", "time"), "historicalTrades": ("id", "time"), "aggTrades": ("a", "T")}
"""Paths that answer with rows of trades -> (key of the id, key of the time)."""
_US_FROM = 10**14
_HTML = b"<html><body><h1>502 Bad Gateway</h1></body></html>"


class RestFaults:
    """The REST part of a schedule. Times are steady ns since the market's start and market us."""

    def __init__(self, faults: list[tuple[int, Fault]], seed: int) -> None:
        self._faults = faults
        self._seed = seed
        self._rng = random.Random(f"rest faults {seed}")
        self._blocked_s = self._banned_s = -1.0
        self._ignored = self._patience = 0
        self._ban_s = 0.0
        self.hits: dict[str, int] = {}
        """How often each kind has acted."""

    def on_rest(
        self, path: str, query: Mapping[str, str], answer: RestAnswer, now_s: float, now_us: int
    ) -> RestAnswer:
        """The answer that goes out instead. `now_s` since the market's start; `now_us` is its time."""
        name = path.removeprefix(PREFIX)
        limited = self._limit(now_s)
        for _, fault in self._faults:
            if not fnmatchcase(name, fault.path):
                continue
            if fault.kind == "rest_missing":
                continue
            if fault.at_s <= now_s < fault.end_s and self._rng.random() < fault.chance:
                if fault.kind == "rest_limit":
                    limited = limited or self._close(fault, now_s)
                else:
                    self._note(fault.kind)
                    answer = self._spoil(fault, name, answer, now_us)
        return limited or answer

    def _note(self, kind: str) -> None:
        self.hits[kind] = self.hits.get(kind, 0) + 1

    def _spoil(self, fault: Fault, name: str, answer: RestAnswer, now_us: int) -> RestAnswer:
        if fault.kind == "rest_slow":
            return answer._replace(delay_s=answer.delay_s + fault.ms / 1_000)
        if fault.kind == "rest_error":
            body = _refusal(-1001 if fault.status >= 500 else -1000, "Internal error; unable to process your "
                            "request. Please try again.")  # fmt: skip
            return answer._replace(status=fault.status, body=body)
        if fault.kind == "rest_cut":
            size = len(answer.body)
            return answer._replace(
                cut_bytes=-1 if fault.how == "reset" else self._rng.randrange(max(size, 1))
            )
        if fault.kind == "rest_lag":
            if name not in _ROWS or answer.status != 200:
                return answer
            before_us, key = now_us - int(fault.ms * 1_000), _ROWS[name][1]
            rows = [row for row in json.loads(answer.body) if _us(row[key]) <= before_us]
            return answer._replace(body=_dump(rows))
        return self._garbage(fault.how, answer)

    def _garbage(self, how: str, answer: RestAnswer) -> RestAnswer:
        body = answer.body
        if how == "truncated":
            return answer._replace(body=body[: self._rng.randrange(max(len(body), 1))])
        if how == "html":
            return answer._replace(status=502, body=_HTML, headers={"Content-Type": "text/html"})
        if how == "shape":
            return answer._replace(body=self._rng.choice((b"{}", b"[[]]", b"[null]", b'{"id":"x"}', b"17")))
        return answer._replace(body=b"" if how == "empty" else b"\xff\xfenot json")

    def hides(self, name: str, symbol: str, number: int, time_us: int, start_us: int) -> bool:
        """Is row `number` of path `name` missing for good? Its trade was at `time_us`, the market began at
        `start_us`."""
        hidden = any(
            fault.kind == "rest_missing"
            and fnmatchcase(name, fault.path)
            and self._is_missing(index, fault, name, symbol, number, time_us, start_us)
            for index, fault in self._faults
        )
        if hidden:
            self.hits["rest_missing"] = self.hits.get("rest_missing", 0) + 1
        return hidden

    def _is_missing(
        self, index: int, fault: Fault, name: str, symbol: str, number: int, time_us: int, start_us: int
    ) -> bool:
        first_us = start_us + int(fault.at_s * 1e6)
        end_us = start_us + int(min(fault.end_s, 1e9) * 1e6)
        if not first_us <= time_us < end_us:
            return False
        return chance_of(self._seed, index, symbol, name == "aggTrades", number) < fault.chance

    def _limit(self, now_s: float) -> RestAnswer | None:
        """What an address gets that does not wait as it was told."""
        if now_s < self._banned_s:
            return self._told(418, self._banned_s - now_s)
        if now_s >= self._blocked_s:
            return None
        self._ignored += 1
        if self._ignored > self._patience:
            self._banned_s = now_s + self._ban_s
            return self._told(418, self._ban_s)
        return self._told(429, self._blocked_s - now_s)

    def _close(self, fault: Fault, now_s: float) -> RestAnswer:
        self._blocked_s, self._ignored = now_s + fault.retry_after_s, 0
        self._patience, self._ban_s = fault.count, fault.ban_s
        return self._told(429, fault.retry_after_s)

    def _told(self, status: int, wait_s: float) -> RestAnswer:
        self._note(f"answered {status}")
        headers = {
            "Content-Type": "application/json;charset=UTF-8",
            "Retry-After": str(max(1, -int(-wait_s // 1))),
        }
        return RestAnswer(status, _refusal(-1003, "Too much request weight used."), headers)


def _us(time: int) -> int:
    return time if time >= _US_FROM else time * 1_000


def _dump(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _refusal(code: int, message: str) -> bytes:
    return _dump({"code": code, "msg": message})
