"""ops/troubles: once, whoever notices it."""

from tradeback.ops.troubles import KEPT_MAX, QUIET_S, Troubles


class Steady:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.s = 0.0

    def wall_ns(self) -> int:
        return 0

    def steady_ns(self) -> int:
        return int(self.s * 1e9)


def test_a_trouble_is_news_once_however_often_it_is_noticed() -> None:
    clock = Steady()
    troubles = Troubles(clock)
    assert troubles.is_news("Redis cannot be reached (ConnectionError)")
    for _ in range(1_000):
        clock.s += QUIET_S - 1
        assert not troubles.is_news("Redis cannot be reached (error 111)")
    assert troubles.is_news("Redis wants a password"), "that is another one"
    assert not troubles.is_news("Redis cannot be reached (again)")


def test_what_was_not_noticed_for_a_while_is_news_again() -> None:
    clock = Steady()
    troubles = Troubles(clock)
    assert troubles.is_news("away")
    clock.s += QUIET_S + 1
    assert troubles.is_news("away")
    clock.s += QUIET_S - 1
    assert not troubles.is_news("away")


def test_what_is_kept_is_bounded() -> None:
    troubles = Troubles(Steady())
    assert all(troubles.is_news(f"trouble {number}") for number in range(10 * KEPT_MAX))
    assert len(troubles._noticed_ns) == KEPT_MAX
    assert troubles.is_news("trouble 0")
    assert not troubles.is_news(f"trouble {10 * KEPT_MAX - 1}")
