"""stores/bus_denied: what a server does not permit, by subject and time."""

from tradeback.stores.bus_denied import KEPT_MAX, Denials

PUBLISH = 'nats: Permissions Violation for Publish to "{}"'
SUBSCRIBE = 'nats: Permissions Violation for Subscription to "{}" using queue "tradeback"'


def test_publishing_is_denied_by_subject_and_since() -> None:
    denials = Denials()
    before = denials.count
    denials.note(PUBLISH.format("tradeback.price.BTCUSDT"), "no prices")
    assert denials.since(before, "tradeback.price.", "tradeback.enigma.") == "no prices"
    assert denials.since(before, "tradeback.bars.") is None
    assert denials.since(denials.count, "tradeback.price.") is None, "not again since"
    denials.note(PUBLISH.format("tradeback.price.BTCUSDT"), "no prices")
    assert denials.since(before + 1, "tradeback.price.") == "no prices"


def test_a_subscription_is_denied_for_as_long_as_the_connection_lives() -> None:
    denials = Denials()
    denials.note(SUBSCRIBE.format("_INBOX.abc.*"), "no answers")
    assert denials.since(denials.count, "$JS.", "_INBOX.") == "no answers"
    assert denials.any() == "no answers"
    denials.clear()
    assert denials.since(0, "_INBOX.") is None
    assert denials.any() is None


def test_what_is_kept_is_bounded_and_the_newest_stays() -> None:
    denials = Denials()
    for number in range(KEPT_MAX + 10):
        denials.note(PUBLISH.format(f"tradeback.price.S{number}"), str(number))
    assert denials.since(0, "tradeback.price.S0") is None
    assert denials.since(0, f"tradeback.price.S{KEPT_MAX + 9}") == str(KEPT_MAX + 9)
    denials.note("Permissions Violation of another kind", "words")
    assert denials.count == KEPT_MAX + 11
