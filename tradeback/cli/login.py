"""How a command comes by a session of an engine: a token that is there, or a log-in.

Neither token nor password may stand on the command line, which every user of the machine can read (`ps`).
"""

import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import click

from tradeback.model.errors import StartupError

if TYPE_CHECKING:
    import aiohttp

TOKEN_VARIABLE = "TRADEBACK_TOKEN"  # noqa: S105 - where a token is, not one
FEED_PATH = "/api/v1/ws"
ANSWER_S = 10.0
LOGOUT_S = 2.0
COOKIE = "session_token"
NEEDED = (
    f"this engine wants a session: log in with --login NAME, or give a token with --token-file or "
    f"{TOKEN_VARIABLE}"
)
"""What to do about a 401."""

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Login:
    """What the command line says of the session; `repr` shows no secret."""

    name: str = ""
    """Log in as this user; empty: take the token."""
    secret: str = ""
    """The password, or the token; empty: no session."""

    def __repr__(self) -> str:
        return f"Login({self.name!r})"


def login_options(command: Command) -> Command:
    """Adds --login, --password-stdin and --token-file; `read` takes what they gave."""
    for option in (
        click.option("--password-stdin", is_flag=True, help="Read the password from stdin, do not ask."),
        click.option(
            "--login", "login_name", metavar="NAME", help="Log in as this user, and out again at the end."
        ),
        click.option(
            "--token-file",
            type=click.Path(allow_dash=True, dir_okay=False),
            metavar="FILE",
            help=f"File with a session's token, - for stdin. Otherwise {TOKEN_VARIABLE}.",
        ),
    ):
        command = option(command)
    return command


def read(login_name: str | None, password_stdin: bool, token_file: str | None) -> Login:
    """Read the secret: asked for, from stdin, a file, or the environment. Raises click.UsageError."""
    if login_name is not None:
        if token_file is not None:
            raise click.UsageError("give --login or --token-file, not both")
        if password_stdin:
            return Login(login_name, _line(sys.stdin.buffer.read(1 << 16), "the password on stdin"))
        if not sys.stdin.isatty():
            raise click.UsageError(
                "there is no terminal to ask for the password: give it with --password-stdin"
            )
        return Login(login_name, click.prompt("Password", hide_input=True, err=True))
    if password_stdin:
        raise click.UsageError("--password-stdin goes with --login")
    if token_file is None:
        return Login(secret=os.environ.get(TOKEN_VARIABLE, "").strip())
    try:
        held = _read_file(token_file)
    except OSError as error:
        raise click.UsageError(f"{token_file} cannot be read ({error.strerror})") from None
    token = _line(held, f"the token in {token_file}").strip()
    if not token or any(not letter.isprintable() or letter == " " for letter in token):
        raise click.UsageError(f"{token_file} holds no token: one line is wanted")
    return Login(secret=token)


def _read_file(path: str) -> bytes:
    if path == "-":
        return sys.stdin.buffer.read(1 << 16)
    with open(path, "rb") as file:
        return file.read(1 << 16)


def _line(given: bytes, what: str) -> str:
    """One line end is the file's or the pipe's, not the secret's."""
    try:
        return given.removesuffix(b"\n").removesuffix(b"\r").decode()
    except UnicodeDecodeError:
        raise click.UsageError(f"{what} is no text in UTF-8") from None


def http_url(url: str) -> str:
    """The engine's HTTP address, however its address is given: ws:// or http://, with or without a path."""
    parts = urlsplit(url if "//" in url else f"//{url}")
    scheme = {"ws": "http", "wss": "https", "": "http"}.get(parts.scheme, parts.scheme)
    return f"{scheme}://{parts.netloc}{parts.path.removesuffix(FEED_PATH).rstrip('/')}"


def bearer(token: str) -> dict[str, str]:
    """The header that shows a token; none without."""
    return {"Authorization": f"Bearer {token}"} if token else {}


@asynccontextmanager
async def session(url: str, login: Login) -> AsyncIterator[str]:
    """A token for as long as the context lasts; "" for none. Raises StartupError when a log-in is refused."""
    if not login.name:
        yield login.secret
        return
    import aiohttp

    limit = aiohttp.ClientTimeout(total=ANSWER_S)
    async with aiohttp.ClientSession(timeout=limit, cookie_jar=aiohttp.DummyCookieJar()) as http:
        token = await _log_in(http, http_url(url), login)
        try:
            yield token
        finally:
            # An engine that is gone keeps nobody here; the session ends there by its age.
            with suppress(aiohttp.ClientError, TimeoutError, OSError):
                limit = aiohttp.ClientTimeout(total=LOGOUT_S)
                where = f"{http_url(url)}/api/v1/auth/logout"
                async with http.post(where, headers=bearer(token), timeout=limit):
                    pass


async def _log_in(http: "aiohttp.ClientSession", base: str, login: Login) -> str:
    import aiohttp

    given = {"username": login.name, "password": login.secret}
    try:
        async with http.post(f"{base}/api/v1/auth/login", json=given) as answer:
            if answer.status == 200 and COOKIE in answer.cookies:
                return answer.cookies[COOKIE].value
            words = await error_words(answer)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        reason = str(error) or type(error).__name__
        raise StartupError(f"{base} does not answer to a log-in: {reason}; is --url right?") from None
    raise StartupError(f"{base} refuses the log-in of {login.name!r}: {words}")


async def error_words(answer: "aiohttp.ClientResponse") -> str:
    """Why an engine refuses, in its own words where it has said it in its form of errors."""
    from aiohttp import ClientError

    try:
        return str((await answer.json(content_type=None))["error"]["message"])
    except (ValueError, KeyError, TypeError, ClientError, OSError):
        return f"HTTP {answer.status}"
