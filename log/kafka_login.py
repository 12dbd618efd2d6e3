"""Getting into a cluster: TLS, logins, and a clear word at once where the door stays shut.

kafka-python 3.0.12 tries a wrong password, a certificate that it does not trust or a listener of another protocol again
until its patience ends, and then says only that it could not bootstrap. `Network` tells what no further try can mend
when it is met, as long as a client has not been let in once; after that it is for the retries: certificates, tokens and
brokers come and go.

At level DEBUG kafka-python logs its requests, those that carry a password or a token too. A filter on the two loggers
concerned takes out what is in them; everything else of logging is the application's.
"""

import functools
import logging
import shlex
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, cast

import kafka.errors as kafka_errors
from kafka.net.compat import KafkaNetClient
from kafka.net.inet import create_connection
from kafka.net.manager import KafkaConnectionManager
from kafka.net.sasl.oauth import AbstractTokenProvider
from kafka.net.selector import NetworkSelector
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport
from kafka.protocol.sasl import SaslAuthenticateRequest, SaslBytesRequest

from refold.log.errors import UsageError
from refold.log.kafka_settings import KafkaSettings
from refold.log.token_endpoint import HIDDEN, Renewed, Token, TokenEndpoint, TokenRefused

_LOOK_TIMEOUT_S = 2.0
_COMMAND_TIMEOUT_S = 10.0
# A broker that stops closes connections too, but not one after the other that it has just taken.
_CLOSINGS_MAX = 2
_SASL_AUTHENTICATE_KEY = 36
# ApiVersions, version 0, correlation id 1, no client id: what every Kafka broker answers without a login.
_API_VERSIONS = struct.pack(">ihhih", 10, 18, 0, 1, -1)


class AccessDenied(cast("type[Exception]", kafka_errors.KafkaError)):  # type: ignore[misc]  # an untyped base
    """The cluster does not let this client in, and says or shows why. The text is a whole sentence with what to do."""


class Secret(str):
    """A text that shows itself as stars wherever it is formatted: kafka-python logs its configuration."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(HIDDEN)

    def __str__(self) -> str:
        return HIDDEN

    def __format__(self, spec: str) -> str:
        return format(HIDDEN, spec)


class Login:
    """What kafka-python's clients are told of TLS and SASL. Shared by the clients of a log, on any thread.

    Args:
        settings: See there.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._tls: ssl.SSLContext | None = None  # some 20 ms to make
        self._one_at_a_time = threading.Lock()
        self._token_provider = _TokenProvider(settings)

    def config(self) -> dict[str, object]:
        """The configuration for a new client; a password file is read each time.

        Raises:
            UsageError: A file can't be read, or is not what it should be.
        """
        settings = self._settings
        config: dict[str, object] = {"security_protocol": settings.security_protocol}
        if settings.uses_tls:
            with self._one_at_a_time:
                self._tls = self._tls or tls_context(settings)
            config["ssl_context"] = self._tls
        if settings.uses_sasl:
            _hide_credentials()
            config["sasl_mechanism"] = settings.sasl_mechanism
            config |= self._sasl()
        return config

    def _sasl(self) -> dict[str, object]:
        settings = self._settings
        if settings.sasl_mechanism == "OAUTHBEARER":
            return {"sasl_oauth_token_provider": self._token_provider}
        user = settings.sasl_username or ""
        if settings.sasl_mechanism != "PLAIN":  # RFC 5802, 5.1; kafka-python leaves it out
            user = user.replace("=", "=3D").replace(",", "=2C")
        password = _secret(settings, "sasl_password", "sasl_password_file") or ""
        return {"sasl_plain_username": user, "sasl_plain_password": Secret(password)}


def tls_context(settings: KafkaSettings) -> ssl.SSLContext:
    """Whom this client trusts, and how it shows who it is.

    Raises:
        UsageError: A file can't be read, or is no certificate or key, or the key's password is wrong.
    """
    try:
        context = ssl.create_default_context(cafile=settings.ssl_cafile)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(
            f"ssl_cafile={settings.ssl_cafile} holds no certificates that can be read ({_why(error)}): PEM is wanted"
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = settings.ssl_check_hostname
    if settings.ssl_certfile is not None:
        # Empty rather than none: OpenSSL would ask for it at the terminal.
        password = _secret(settings, "ssl_key_password", "ssl_key_password_file") or ""
        try:
            context.load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile, password)
        except (OSError, ssl.SSLError) as error:
            raise UsageError(
                f"ssl_certfile={settings.ssl_certfile} and ssl_keyfile={settings.ssl_keyfile} can't be used"
                f" ({_why(error)}): PEM is wanted, the key of that certificate, and ssl_key_password_file if it has a"
                " password"
            ) from error
    return context


def _why(error: Exception) -> str:
    """OpenSSL's and the system's errors without their numbers and module names."""
    if isinstance(error, ssl.SSLError):
        return (error.reason or "not PEM").lower().replace("_", " ")
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _secret(settings: KafkaSettings, name: str, file_name: str) -> str | None:
    """A secret that is given as it is or in a file."""
    path: str | None = getattr(settings, file_name)
    if path is None:
        given: str | None = getattr(settings, name)
        return given
    return _read_secret(file_name, path)


def _read_secret(file_name: str, path: str) -> str:
    try:
        text = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise UsageError(f"{file_name}={path} can't be read: {error.strerror}") from error
    except UnicodeDecodeError:  # its text would show what is in the file
        raise UsageError(f"{file_name}={path} is not UTF-8") from None
    if not text:
        raise UsageError(f"{file_name}={path} is empty")
    return text


class _TokenProvider(AbstractTokenProvider):  # type: ignore[misc]  # an untyped base
    """Where the token for OAUTHBEARER comes from. Any of kafka-python's I/O threads may ask."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._renewed: Renewed | None = None
        command = settings.sasl_token_command
        if command is not None:
            self._renewed = Renewed(lambda: Token(_printed_by(command), None))
        elif settings.sasl_token_url is not None:
            endpoint = TokenEndpoint(
                settings.sasl_token_url,
                settings.sasl_client_id or "",
                lambda: _secret(settings, "sasl_client_secret", "sasl_client_secret_file") or "",
                settings.sasl_scope,
                settings.sasl_token_cafile,
            )
            self._renewed = Renewed(endpoint.token)

    def token(self) -> str:
        """The token as it is now.

        Raises:
            AccessDenied: There is none.
        """
        settings = self._settings
        try:
            if self._renewed is not None:
                return self._renewed.text()
            if settings.sasl_token_file is not None:
                return _read_secret("sasl_token_file", settings.sasl_token_file).strip()
        except (TokenRefused, UsageError) as error:
            raise AccessDenied(str(error)) from error
        return settings.sasl_token or ""


def _printed_by(command: str) -> str:
    """What a command prints. What it says on standard error is the user's to see, and goes where ours goes."""
    told = f"sasl_token_command ({shlex.split(command)[0]} ...)"
    try:
        done = subprocess.run(  # noqa: S603 - the user's own setting, without a shell
            shlex.split(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            timeout=_COMMAND_TIMEOUT_S,
            check=False,
        )
    except OSError as error:
        raise TokenRefused(f"{told} can't be run: {error.strerror}") from error
    except subprocess.TimeoutExpired:  # holds what was printed
        raise TokenRefused(f"{told} did not end within {_COMMAND_TIMEOUT_S:g} s") from None
    token = done.stdout.strip()
    if done.returncode != 0 or not token:
        raise TokenRefused(f"{told} ended with code {done.returncode} and printed no token")
    return token


class _CredentialsFilter(logging.Filter):
    """Takes passwords and tokens out of what kafka-python logs of its requests."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let everything through, without the credentials."""
        if isinstance(record.args, tuple):
            record.args = tuple(HIDDEN if _is_login(arg) else arg for arg in record.args)
        return True


_CREDENTIALS_FILTER = _CredentialsFilter()


def _is_login(arg: object) -> bool:
    if isinstance(arg, bytes | bytearray):
        return len(arg) >= 6 and struct.unpack_from(">h", arg, 4)[0] == _SASL_AUTHENTICATE_KEY
    return isinstance(arg, (SaslAuthenticateRequest, SaslBytesRequest))


def _hide_credentials() -> None:
    """A logger has the same filter at most once."""
    for name in ("kafka.net.connection", "kafka.protocol.parser"):
        logging.getLogger(name).addFilter(_CREDENTIALS_FILTER)


class Network(KafkaNetClient):  # type: ignore[misc]  # an untyped base
    """A client's connections; made by kafka-python with its configuration, which is untyped.

    Args:
        on_trouble: Told why a connection could not be made.
        topics: What the client is for: their leaders are asked for with its first request.
    """

    def __init__(
        self, on_trouble: Callable[[str], None], topics: Collection[str], **config: Any
    ) -> None:
        net = NetworkSelector(**config)
        base: Any = super()
        base.__init__(net=net, manager=_Connections(net, on_trouble, topics, config), **config)


class _LastWord:
    """What a broker says before it closes a connection is heard: kafka-python drops what comes along with the end."""

    def _sock_recv(self) -> tuple[bytes, Exception | None]:
        base: Any = super()
        data, error = cast("tuple[bytes, Exception | None]", base._sock_recv())
        return (data, None) if data else (data, error)  # the end comes by again


class _PlainTransport(_LastWord, KafkaTCPTransport):  # type: ignore[misc]  # an untyped base
    pass


class _TlsTransport(_LastWord, KafkaSSLTransport):  # type: ignore[misc]  # an untyped base
    pass


class _Connections(KafkaConnectionManager):  # type: ignore[misc]  # an untyped base
    def __init__(
        self,
        net: object,
        on_trouble: Callable[[str], None],
        topics: Collection[str],
        config: dict[str, Any],
    ) -> None:
        base: Any = super()
        base.__init__(net, **config)
        self.cluster._topics.update(topics)
        self._uses_sasl = str(config.get("security_protocol")).startswith("SASL")
        self._on_trouble = on_trouble
        self._let_in = False
        self._closings = 0
        self._looked_at: set[tuple[str, int]] = set()

    async def _do_bootstrap(self, deadline: float | None) -> Any:
        """As kafka-python has it, but for what it waits after its first request for metadata.

        That request names no topic, and the next one, which does, is sent 100 ms later: as if the first had failed. It
        would be a quarter of the time in which a worker is ready. With the topics named there is no next one, except
        that a member of a group asks again before it joins.
        """
        base: Any = super()
        done = await base._do_bootstrap(deadline)
        self.cluster._last_refresh_ms = 0.0
        return done

    async def _build_transport(self, node: Any, timeout_at: float | None = None) -> Any:
        """As kafka-python has it, but for `_LastWord`, the error behind a failure, and no socket left open."""
        config = self.config
        sock = await create_connection(
            self._net,
            node.host,
            node.port,
            config["socket_options"],
            proxy_url=config["proxy_url"],
            timeout_at=timeout_at,
        )
        own: Any = _TlsTransport if self.ssl_enabled else _PlainTransport
        tls = {"ssl_context": config["ssl_context"]} if self.ssl_enabled else {}
        transport = own(self._net, sock, host=node.host, **tls)
        try:
            await transport.handshake()
        except BaseException as error:
            transport.close()
            if not isinstance(error, Exception):  # the client is closed meanwhile
                raise
            raise kafka_errors.KafkaConnectionError(f"Handshake failed: {error}") from error
        return transport

    async def _connect(self, node: Any, conn: Any, *args: Any, **options: Any) -> None:
        """Connect as ever; then, while this client was never let in, say what stands against it.

        What is put into `_auth_failures` is raised by the next try to connect to that node, and ends the bootstrap.
        """
        base: Any = super()
        await base._connect(node, conn, *args, **options)
        failure = conn.init_future.exception
        self._let_in = self._let_in or self.bootstrapped
        if failure is None:
            self._on_trouble("")
        else:
            self._note(node, self._refusal(failure, str(node.host), int(node.port)))
        if (
            not self._let_in and conn.broker_version_data is not None
        ):  # so it is a broker, and then?
            conn.close_future.add_errback(functools.partial(self._closed, node))

    def _closed(self, node: Any, error: Exception) -> None:
        """The broker closed a connection at the first request, or at the login: that is how it refuses either."""
        if self._let_in or "disconnected" not in str(error):
            return
        self._closings += 1
        login = (
            f"perhaps its listener takes no login by {self.config['sasl_mechanism']}: check sasl_mechanism"
            if self._uses_sasl
            else "perhaps its listener asks for a login: set security_protocol to SASL_SSL or SASL_PLAINTEXT"
        )
        trouble = f"{node.host}:{node.port} closes every connection when it is asked for anything: {login}"
        if self._closings < _CLOSINGS_MAX:
            self._on_trouble(trouble)
        else:
            self._note(node, trouble)

    def _note(self, node: Any, trouble: str | None) -> None:
        if trouble is None:
            return
        self._on_trouble(trouble)
        if not self._let_in:
            self._auth_failures[node.node_id] = AccessDenied(trouble)

    def _refusal(self, failure: Exception, host: str, port: int) -> str | None:
        """Why no further try will do better, or None where one may."""
        broker = f"{host}:{port}"
        if isinstance(failure, AccessDenied):
            return str(failure.args[0])
        if isinstance(failure, kafka_errors.SaslAuthenticationFailedError) or (
            isinstance(failure, ValueError) and self._uses_sasl
        ):
            return _login_refusal(failure, broker, str(self.config["sasl_mechanism"]))
        if isinstance(failure, kafka_errors.UnsupportedSaslMechanismError):
            mechanism = self.config["sasl_mechanism"]
            return (
                f"{broker} takes no login by {mechanism}: set sasl_mechanism to one that it takes"
            )
        if (error := _tls_error(failure)) is not None and (
            refusal := _tls_refusal(error, broker)
        ) is not None:
            return refusal
        return self._other_protocol(host, port)

    def _other_protocol(self, host: str, port: int) -> str | None:
        """Whether the listener speaks another protocol than the settings say. Looked at once."""
        if self._let_in or (host, port) in self._looked_at:
            return None
        self._looked_at.add((host, port))
        if self.ssl_enabled and _speaks_kafka(host, port):
            return f"{host}:{port} speaks Kafka without TLS: set security_protocol to PLAINTEXT or SASL_PLAINTEXT"
        if not self.ssl_enabled and _speaks_tls(host, port):
            return f"{host}:{port} speaks TLS: set security_protocol to SSL or SASL_SSL, and ssl_cafile"
        return None


def _login_refusal(failure: Exception, broker: str, mechanism: str) -> str:
    """The broker's own words are not passed on where they might hold the token."""
    check = (
        "the token"
        if mechanism == "OAUTHBEARER"
        else "sasl_username, sasl_password_file (or sasl_password) and sasl_mechanism"
    )
    said = "" if mechanism == "OAUTHBEARER" else f" ({str(failure).rpartition('Error: ')[2]})"
    return f"{broker} refuses the login by {mechanism}{said}: check {check}"


def _tls_error(failure: BaseException | None) -> ssl.SSLError | None:
    """The TLS error behind one of kafka-python's."""
    while failure is not None:
        if isinstance(failure, ssl.SSLError):
            return failure
        if failure.args and isinstance(failure.args[0], ssl.SSLError):
            return failure.args[0]
        failure = failure.__cause__ or failure.__context__
    return None


def _tls_refusal(error: ssl.SSLError, broker: str) -> str | None:
    if isinstance(error, ssl.SSLCertVerificationError):
        if (
            "hostname" in error.verify_message.lower()
            or "ip address" in error.verify_message.lower()
        ):
            return (
                f"{broker}'s certificate is for another name ({error.verify_message}): call the broker by the name in"
                " it, or set ssl_check_hostname=false where that can't be"
            )
        return (
            f"{broker}'s certificate is not trusted ({error.verify_message}): name the authority that signed it"
            " by ssl_cafile"
        )
    reason = (error.reason or "").upper()
    if "CERTIFICATE" in reason or "UNKNOWN_CA" in reason:
        return (
            f"{broker} does not accept this client's certificate ({_why(error)}): check ssl_certfile and ssl_keyfile,"
            " and that the broker trusts who signed it"
        )
    return None


def _speaks_tls(host: str, port: int) -> bool:
    """Whether a TLS handshake gets an answer, whatever certificate comes with it: nothing is sent over it."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), _LOOK_TIMEOUT_S) as plain,
            context.wrap_socket(plain) as encrypted,
        ):
            return encrypted.version() is not None
    except OSError:
        return False


def _speaks_kafka(host: str, port: int) -> bool:
    """Whether a request without TLS gets Kafka's answer."""
    try:
        with socket.create_connection((host, port), _LOOK_TIMEOUT_S) as plain:
            plain.sendall(_API_VERSIONS)
            answer = plain.recv(8, socket.MSG_WAITALL)
    except OSError:
        return False
    return len(answer) == 8 and struct.unpack(">ii", answer)[1] == 1
