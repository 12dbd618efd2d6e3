"""Access tokens: renewed in time, and fetched for client credentials (OAuth 2.0, RFC 6749, 4.4).

The client's secret goes to the endpoint by HTTP Basic and nowhere else: redirects are not followed, and nothing that
the endpoint answers is repeated with the secret in it.
"""

import base64
import json
import logging
import math
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage
from typing import IO, Any, Final, cast
from urllib.error import HTTPError, URLError
from urllib.parse import quote_plus, urlencode
from urllib.request import HTTPRedirectHandler, HTTPSHandler, OpenerDirector, Request, build_opener

_TIMEOUT_S: Final = 5.0
"""Heartbeats of a member of a group wait meanwhile; a session lasts 6 s."""
_RENEW_PART: Final = 0.8
"""Of its life that a token has lived when another is fetched."""
_LIFE_S: Final = 60.0
"""Of a token that does not say how long it lives."""
_ASK_AGAIN_S: Final = 5.0
"""After a try in vain while the last token is good: each may hold up a login for some seconds."""
_ANSWER_BYTES: Final = 1_000_000
_WORDS: Final = 200
HIDDEN: Final = "***"

logger = logging.getLogger(__name__)


class TokenRefused(Exception):
    """There is no token. The text is a whole sentence with what to do, and holds no secret."""


@dataclass(frozen=True, slots=True)
class Token:
    """An access token.

    Args:
        text: The token.
        life_s: How long it lives from now, in seconds; None where the endpoint does not say.
    """

    text: str
    life_s: float | None


class Renewed:
    """A token that is fetched anew before it expires. Any thread may ask.

    Args:
        fetch: Gives a new one, or raises `TokenRefused`.
        clock: Seconds by a clock that only goes forward.
    """

    def __init__(
        self, fetch: Callable[[], Token], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._fetch = fetch
        self._clock = clock
        self._one_at_a_time = threading.Lock()
        self._text = ""
        self._renew_at = self._expires_at = -math.inf

    def text(self) -> str:
        """The token as it is now.

        Raises:
            TokenRefused: There is none, and the last one has expired.
        """
        with self._one_at_a_time:
            now = self._clock()
            if now < self._renew_at:
                return self._text
            try:
                token = self._fetch()
            except TokenRefused as error:
                if now >= self._expires_at:
                    raise
                logger.warning("%s; the last token is used until it expires", error)
                self._renew_at = now + _ASK_AGAIN_S
                return self._text
            life_s = life_s_of(token.text, time.time()) if token.life_s is None else token.life_s
            self._text = token.text
            self._renew_at, self._expires_at = now + _RENEW_PART * life_s, now + life_s
            return self._text


def life_s_of(token: str, now: float) -> float:
    """Seconds that a token lives on, if it is a JWT that says so (`exp`, RFC 7519); else a guess.

    Args:
        token: The token.
        now: Seconds since 1970-01-01 UTC.
    """
    with suppress(ValueError, IndexError, KeyError, TypeError):
        claims = token.split(".")[1]
        values = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
        return max(0.0, float(values["exp"]) - now)
    return _LIFE_S


class TokenEndpoint:
    """Where tokens come from. Blocks; any thread may ask.

    Args:
        url: The endpoint.
        client_id: What it knows this client by.
        secret: Gives the client's secret, anew each time.
        scope: What is asked for; None where the endpoint knows.
        cafile: Certificates to trust, PEM; the system's where not given.
    """

    def __init__(
        self,
        url: str,
        client_id: str,
        secret: Callable[[], str],
        scope: str | None = None,
        cafile: str | None = None,
    ) -> None:
        self._url = url
        self._client_id = client_id
        self._secret = secret
        self._scope = scope
        self._cafile = cafile
        self._opener: OpenerDirector | None = None

    def token(self) -> Token:
        """A new token.

        Raises:
            TokenRefused: There is none.
        """
        secret = self._secret()
        asked = {"grant_type": "client_credentials"}
        if self._scope is not None:
            asked["scope"] = self._scope
        # Each form-encoded first (RFC 6749, 2.3.1): a secret may hold a colon.
        login = f"{quote_plus(self._client_id)}:{quote_plus(secret)}"
        request = Request(  # noqa: S310 - http or https, as the settings have checked
            self._url,
            urlencode(asked).encode(),
            {
                "Authorization": f"Basic {base64.b64encode(login.encode()).decode()}",
                "Accept": "application/json",
            },
        )
        try:
            with self._opened().open(request, timeout=_TIMEOUT_S) as answer:
                return self._read(answer.read(_ANSWER_BYTES))
        except HTTPError as error:
            with error:
                told = _told(error.read(_ANSWER_BYTES), secret)
            raise TokenRefused(self._why(error.code, told)) from None
        except (URLError, OSError, HTTPException) as error:
            reason = error.reason if isinstance(error, URLError) else error
            raise TokenRefused(
                f"sasl_token_url={self._url} gives no answer ({reason}): check the URL, that the endpoint is up, and"
                " sasl_token_cafile if its certificate is not trusted"
            ) from None

    def _opened(self) -> OpenerDirector:
        if self._opener is None:
            try:
                context = ssl.create_default_context(cafile=self._cafile)
            except (OSError, ssl.SSLError):
                raise TokenRefused(
                    f"sasl_token_cafile={self._cafile} holds no certificates that can be read: PEM is wanted"
                ) from None
            self._opener = build_opener(_NoRedirect, HTTPSHandler(context=context))
        return self._opener

    def _read(self, answer: bytes) -> Token:
        fields = _fields(answer)
        text, life = fields.get("access_token"), fields.get("expires_in")
        if not isinstance(text, str) or not text:
            raise TokenRefused(
                f"sasl_token_url={self._url} answers without an access_token: is it the token endpoint?"
            )
        try:
            return Token(text, None if life is None else max(0.0, float(life)))
        except (TypeError, ValueError):
            return Token(text, None)

    def _why(self, code: int, told: str) -> str:
        said = f"HTTP {code}{f', {told}' if told else ''}"
        if 300 <= code < 400:
            return f"sasl_token_url={self._url} is somewhere else ({said}): give the URL that it leads to"
        if code in {400, 401, 403}:
            return (
                f"sasl_token_url={self._url} refuses client {self._client_id!r} ({said}): check sasl_client_id, its"
                " secret, and sasl_scope"
            )
        return f"sasl_token_url={self._url} gives no token ({said}): look at the endpoint"


class _NoRedirect(HTTPRedirectHandler):
    """The request carries the secret: it goes to the URL that was given, or nowhere."""

    def redirect_request(  # noqa: PLR0917 - as it is there
        self,
        req: Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> None:
        """There is no other request."""


def _fields(answer: bytes) -> dict[str, Any]:
    try:
        fields: object = json.loads(answer)
    except ValueError:
        return {}
    return cast("dict[str, Any]", fields) if isinstance(fields, dict) else {}


def _told(answer: bytes, secret: str) -> str:
    """What an endpoint says of its refusal (RFC 6749, 5.2), fit to be shown."""
    fields = _fields(answer)
    words = ": ".join(
        str(fields[name]) for name in ("error", "error_description") if name in fields
    )
    shown = "".join(sign for sign in words.replace(secret, HIDDEN) if sign.isprintable())
    return shown[:_WORDS]
