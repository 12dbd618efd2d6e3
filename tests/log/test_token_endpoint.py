"""Tokens for client credentials: fetched, renewed in time, and refused with what to do and without the secret."""

from collections.abc import Generator

import pytest

from refold.log.token_endpoint import Renewed, Token, TokenEndpoint, TokenRefused
from token_server import TokenServer, serving

SECRET = "s3cr:et with signs&=+%"


@pytest.fixture
def server() -> Generator[TokenServer, None, None]:
    with serving(TokenServer("shop worker", SECRET, "shop")) as known:
        yield known


def endpoint(
    server: TokenServer,
    *,
    url: str | None = None,
    client: str = "shop worker",
    secret: str = SECRET,
) -> TokenEndpoint:
    return TokenEndpoint(url or server.url, client, lambda: secret, "kafka orders")


def test_an_endpoint_gives_a_token(server: TokenServer) -> None:
    """Given a client and a secret with every sign that has a meaning, its token comes with its life."""
    token = endpoint(server).token()
    assert token.text.count(".") == 2
    assert token.life_s == 3_600
    assert server.asked == [{"grant_type": ["client_credentials"], "scope": ["kafka orders"]}]


def test_a_refusal_says_why_and_shows_no_secret(server: TokenServer) -> None:
    """Given a wrong secret, the endpoint's reason is told, with the client and what to check, and not the secret."""
    with pytest.raises(TokenRefused) as caught:
        endpoint(server, secret="do-not-show-me").token()
    told = str(caught.value)
    assert "refuses client 'shop worker' (HTTP 401, invalid_client: not ***)" in told
    assert "check sasl_client_id" in told
    assert "do-not-show-me" not in told
    assert caught.value.__cause__ is None


def test_a_redirect_is_not_followed(server: TokenServer) -> None:
    """Given an endpoint that has moved, the secret is not sent after it."""
    with pytest.raises(TokenRefused, match=r"somewhere else .HTTP 307"):
        endpoint(server, url=server.url.replace("/token", "/moved")).token()
    assert server.asked == []


def test_an_endpoint_that_is_not_there_is_told() -> None:
    """Given nobody at that address, or what is no token endpoint, the URL is named with what to check."""
    nobody = TokenEndpoint("http://127.0.0.1:9/token", "c", lambda: "s")
    with pytest.raises(TokenRefused, match=r"127.0.0.1:9/token gives no answer .*check the URL"):
        nobody.token()


class Fetching:
    """Tokens that live for a hundred seconds, by a clock that the test sets."""

    def __init__(self) -> None:
        self.now = 0.0
        self.count = 0
        self.away = False
        self.renewed = Renewed(self.fetch, lambda: self.now)

    def fetch(self) -> Token:
        if self.away:
            raise TokenRefused("the endpoint is away")
        self.count += 1
        return Token(f"token {self.count}", 100.0)

    def at(self, now: float) -> str:
        self.now = now
        return self.renewed.text()


def test_a_token_is_renewed_before_it_expires() -> None:
    """Given a token that lives for 100 s, it is used for four fifths of it, and then another is fetched."""
    tokens = Fetching()
    assert [tokens.at(now) for now in (0, 79, 80, 159, 160)] == [
        "token 1",
        "token 1",
        "token 2",
        "token 2",
        "token 3",
    ]


def test_while_the_endpoint_is_away_the_last_token_is_used() -> None:
    """Given an endpoint that is away when a token is to be renewed, that token is used until it expires."""
    tokens = Fetching()
    tokens.at(0)
    tokens.away = True
    assert tokens.at(80) == "token 1"
    assert tokens.at(99) == "token 1"
    with pytest.raises(TokenRefused, match="away"):
        tokens.at(105)
    tokens.away = False
    assert tokens.at(106) == "token 2"
