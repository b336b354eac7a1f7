"""The brake on guessing: per name and address, growing, and no way to lock others out."""

from tradeback.api.throttle import ADDRESS, NAME, PAIR, LoginThrottle

S = 10**9


def guess(throttle: LoginThrottle, name: str, address: str, seconds: int) -> tuple[int, int]:
    """(attempts that are let through, longest wait) of somebody who tries every second."""
    through = longest = 0
    for second in range(seconds):
        wait_s = throttle.attempt(name, address, second * S)
        through += not wait_s
        longest = max(longest, wait_s)
    return through, longest


def test_one_address_at_one_name() -> None:
    through, longest = guess(LoginThrottle(), "alice", "a", 3_600)
    assert through <= PAIR.free + 14, "1, 2, 4 ... 900 s between them"
    assert 900 >= longest > 500


def test_attempts_at_the_same_moment_are_not_all_free() -> None:
    throttle = LoginThrottle()
    assert sum(throttle.attempt("alice", "a", S) == 0 for _ in range(100)) == PAIR.free
    assert throttle.refused == 95


def test_one_address_at_many_names() -> None:
    throttle = LoginThrottle()
    through = sum(throttle.attempt(f"user{number}", "a", number * S) == 0 for number in range(600))
    assert through <= ADDRESS.free + 12


def test_many_addresses_at_one_name() -> None:
    throttle = LoginThrottle()
    through = sum(throttle.attempt("alice", f"a{number}", number * S // 10) == 0 for number in range(6_000))
    assert through <= NAME.free + 600 / NAME.longest_s + 6


def test_a_user_is_not_locked_out_of_his_own_address() -> None:
    throttle = LoginThrottle()
    assert throttle.attempt("alice", "home", 0) == 0
    throttle.succeeded("alice", "home", 0)
    for number in range(1_000):
        throttle.attempt("alice", f"bot{number}", S)
    assert throttle.attempt("alice", "elsewhere", S) > 0
    assert throttle.attempt("alice", "home", S) == 0


def test_waiting_out_the_pause_is_enough_and_knocking_does_not_prolong_it() -> None:
    throttle = LoginThrottle()
    now = 0
    while not (wait_s := throttle.attempt("alice", "a", now)):
        pass
    for tenth in range(wait_s * 10):
        throttle.attempt("alice", "a", now + tenth * S // 10)
    assert throttle.attempt("alice", "a", now + wait_s * S) == 0


def test_success_clears_and_time_forgets() -> None:
    throttle = LoginThrottle()
    for _ in range(PAIR.free - 1):
        assert throttle.attempt("alice", "a", 0) == 0
    throttle.succeeded("alice", "a", 0)
    assert sum(throttle.attempt("alice", "a", 0) == 0 for _ in range(50)) == PAIR.free
    assert throttle.attempt("alice", "a", 4_000 * S) == 0
    assert throttle.attempt("alice", "a", 4_000 * S) == 0


def test_the_tables_are_bounded() -> None:
    throttle = LoginThrottle(entries_max=10)
    for number in range(200):
        throttle.attempt(f"n{number}", f"a{number}", 0)
        throttle.succeeded(f"n{number}", f"a{number}", 0)
        throttle.attempt(f"m{number}", f"b{number}", 0)
    tables = (throttle._pairs, throttle._addresses, throttle._names)
    assert all(len(table.held) <= 10 for table in tables)
    assert len(throttle._known) <= 10
