"""Users: names, argon2id, and that a wrong name costs what a wrong password costs."""

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from argon2 import PasswordHasher, extract_parameters
from argon2.low_level import Type
from hypothesis import given
from hypothesis import strategies as st

from tests.stores.accounts_world import TestClock
from tradeback.stores.registry_sqlite import RegistrySqlite
from tradeback.stores.sessions import Sessions
from tradeback.stores.users import (
    MEMORY_KIB,
    NAME_CHARACTERS_MAX,
    PASSWORD_BYTES_MAX,
    BadUser,
    Passwords,
    Users,
    password_bytes,
    user_name,
)

SECRET = "hunter2-correct-horse"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RegistrySqlite]:
    made = RegistrySqlite(tmp_path / "registry.sqlite")
    yield made
    made.close()


@pytest.fixture
def users(registry: RegistrySqlite) -> Users:
    return Users(registry, TestClock(), Passwords(memory_kib=64))


async def test_the_hash_is_argon2id_as_owasp_has_it(registry: RegistrySqlite) -> None:
    held = await Passwords().make(SECRET)
    found = extract_parameters(held)
    assert (found.type, found.memory_cost, found.time_cost, found.parallelism) == (Type.ID, MEMORY_KIB, 2, 1)
    assert MEMORY_KIB >= 19 * 1_024
    assert SECRET not in held
    assert held != await Passwords().make(SECRET), "salted"


async def test_logging_in(users: Users) -> None:
    made = await users.add(" Alice ", SECRET)
    assert made.username == "alice"
    for name in ("alice", "ALICE", "ａlice"):
        found = await users.log_in(name, SECRET)
        assert found is not None
        assert found.id == made.id
    for name, password in (
        ("alice", "wrong-password"), ("bob", SECRET), ("alice", ""), ("", ""), ("a b", SECRET),
        ("alice", SECRET.upper()), ("alice", "x" * 2_000), ("alice", "\udc80" * 9), ("\udc80", SECRET),
    ):  # fmt: skip
        assert await users.log_in(name, password) is None
    await users.set_active("alice", False)
    assert await users.log_in("alice", SECRET) is None
    await users.set_active("alice", True)
    assert await users.log_in("alice", SECRET) is not None


async def test_a_wrong_name_and_a_disabled_user_cost_one_check_of_the_same_kind(
    users: Users, monkeypatch: pytest.MonkeyPatch
) -> None:
    await users.add("alice", SECRET)
    await users.add("off", SECRET)
    await users.set_active("off", False)
    checked: list[str] = []
    original = PasswordHasher.verify

    def verify(self: PasswordHasher, held: str, password: bytes) -> bool:
        checked.append(held)
        return original(self, held, password)

    monkeypatch.setattr(PasswordHasher, "verify", verify)
    for name in ("alice", "nobody", "off", "not a name"):
        assert await users.log_in(name, "wrong-password") is None
    assert len(checked) == 4
    assert len({str(extract_parameters(held)) for held in checked}) == 1


async def test_no_password_fits_nobody(users: Users) -> None:
    passwords = Passwords(memory_kib=64)
    assert not await passwords.check(None, "nobody's")
    assert not await passwords.check("", SECRET)
    assert not await passwords.check("no hash", SECRET)


async def test_a_hash_with_older_parameters_is_made_anew_at_the_log_in(registry: RegistrySqlite) -> None:
    await Users(registry, TestClock(), Passwords(memory_kib=64)).add("alice", SECRET)
    newer = Users(registry, TestClock(), Passwords(memory_kib=128))
    assert await newer.log_in("alice", SECRET) is not None
    held = await newer.find("alice")
    assert extract_parameters(held.password_hash).memory_cost == 128
    assert await newer.log_in("alice", SECRET) is not None


async def test_another_password_and_removal_end_the_sessions(users: Users, registry: RegistrySqlite) -> None:
    made = await users.add("alice", SECRET)
    sessions = Sessions(registry, TestClock(), logging.getLogger())  # type: ignore[arg-type]
    await sessions.create(made.id)
    await users.set_password("alice", f"{SECRET}2")
    assert await sessions.active() == 0
    assert await users.log_in("alice", SECRET) is None
    assert await users.log_in("alice", f"{SECRET}2") is not None
    await sessions.create(made.id)
    await users.remove("alice")
    assert await sessions.active() == 0
    assert await users.all() == []


async def test_refusals(users: Users) -> None:
    await users.add("alice", SECRET)
    with pytest.raises(BadUser, match="there is a user alice"):
        await users.add("ALICE", SECRET)
    for password in ("", "short", "x" * (PASSWORD_BYTES_MAX + 1), "\udc80" * 9):
        with pytest.raises(BadUser):
            await users.add("bob", password)
    for name in ("", "   ", "a b", "a\nb", "<b>", "x" * (NAME_CHARACTERS_MAX + 1), "a'b", "user:1", "\udc80"):
        with pytest.raises(BadUser):
            await users.add(name, SECRET)
    for call in (users.find, users.remove):
        with pytest.raises(BadUser, match="tradeback user list"):
            await call("nobody")


async def test_no_password_in_an_exception_or_a_log(
    users: Users, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    made = await users.add("alice", SECRET)
    words = [repr(made), str(await users.all())]
    for call in (users.add("alice", SECRET), users.add("b b", SECRET), users.add("bob", SECRET * 60)):
        with pytest.raises(BadUser) as caught:
            await call
        words += [repr(caught.value), repr(caught.value.__context__)]
    words += [caplog.text, *capfd.readouterr()]
    assert not any(SECRET in word or made.password_hash in word for word in words)


async def test_the_loop_goes_on_while_passwords_are_checked() -> None:
    passwords = Passwords()
    held = await passwords.make(SECRET)
    checks = asyncio.gather(*(passwords.check(held, SECRET) for _ in range(6)))
    turns = 0
    while not checks.done():
        turns += 1
        await asyncio.sleep(0.001)
    assert await checks == [True] * 6
    assert turns > 10


@given(st.text(max_size=80))
def test_a_name_is_the_same_however_often_it_is_made_equal(text: str) -> None:
    try:
        name = user_name(text)
    except BadUser:
        return
    assert user_name(name) == name
    assert name
    assert not set(name) & set(" :/<>'\"\\\n\r\0%?*")


@given(st.text(max_size=200))
def test_a_password_is_text(text: str) -> None:
    try:
        assert isinstance(password_bytes(text), bytes)
    except BadUser:
        assert any(0xD800 <= ord(sign) <= 0xDFFF for sign in text)
