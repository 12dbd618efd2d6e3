"""Settings from a URL, the environment and a file: one name, one order, and no name that nobody knows."""

import importlib.util
from pathlib import Path

import pytest

from refold.log import kafka_settings
from refold.log.errors import UsageError
from refold.log.kafka_options import FILE_OPTION, SETTINGS, Setting, settings_from
from refold.log.kafka_settings import KafkaSettings
from refold.log.urls import holds_secret, kafka_address, open_log, redacted

SECRET = "do-not-show-me-8f3a"
DOCUMENT = Path(__file__).parents[2] / "docs" / "connecting.md"


def test_each_source_gives_a_setting_under_the_same_name(tmp_path: Path) -> None:
    """Given one setting in each of the three, all of them count, with their kinds."""
    path = tmp_path / "refold.toml"
    path.write_text('[kafka]\ncompression = "gzip"\nssl_check_hostname = false\nlinger_ms = 3\n')
    environ = {"REFOLD_KAFKA_SECURITY_PROTOCOL": "SSL", "REFOLD_KAFKA_READERS": "5"}
    settings = settings_from([("client_id", "shop"), ("settings", str(path))], environ)
    assert settings == KafkaSettings(
        client_id="shop",
        security_protocol="SSL",
        readers=5,
        compression="gzip",
        ssl_check_hostname=False,
        linger_ms=3,
    )


def test_the_url_comes_before_the_environment_and_that_before_the_file(tmp_path: Path) -> None:
    """Given a setting in all three, the URL's counts; in two, the environment's."""
    path = tmp_path / "refold.toml"
    path.write_text('[kafka]\nclient_id = "file"\nreaders = 1\nlinger_ms = 1\n')
    environ = {
        "REFOLD_SETTINGS": str(path),
        "REFOLD_KAFKA_CLIENT_ID": "environment",
        "REFOLD_KAFKA_READERS": "2",
    }
    settings = kafka_address("kafka://host:9092/orders?client_id=url", environ).settings
    assert (settings.client_id, settings.readers, settings.linger_ms) == ("url", 2, 1)


def test_an_empty_variable_is_none(tmp_path: Path) -> None:
    """Given a variable that a compose file passed on empty, the default stands."""
    assert settings_from([], {"REFOLD_KAFKA_COMPRESSION": ""}) == KafkaSettings()


def test_a_login_in_a_url_is_understood(tmp_path: Path) -> None:
    """Given user:password@ with signs that are escaped, they are the SASL user and password."""
    url = "kafka://web%40eu:a%2Fb%40c@one:9093,two:9093/orders?security_protocol=SASL_SSL&sasl_mechanism=PLAIN"
    address = kafka_address(url, {})
    assert address.brokers == ("one:9093", "two:9093")
    assert (address.settings.sasl_username, address.settings.sasl_password) == ("web@eu", "a/b@c")


@pytest.mark.parametrize(
    ("options", "environ", "told"),
    [
        ([("compresion", "gzip")], {}, "the URL: .*'compresion'; the nearest is 'compression'"),
        ([], {"REFOLD_KAFKA_SASL_PASWORD": "x"}, "SASL_PASWORD.*the nearest is 'sasl_password'"),
        ([("readers", "many")], {}, "readers is a whole number, not 'many'"),
        ([("ssl_check_hostname", "maybe")], {}, "ssl_check_hostname is true or false"),
        ([("settings", "/nowhere.toml")], {}, "/nowhere.toml can't be read: No such file"),
        ([("security_protocol", "TLS")], {}, "security_protocol is PLAINTEXT, SSL"),
        ([("ssl_cafile", "ca.pem")], {}, "ssl_cafile is set, and security_protocol=PLAINTEXT"),
        ([("sasl_username", "me")], {}, "sasl_username is set, and security_protocol=PLAINTEXT"),
        ([("compression", "brotli")], {}, "compression is none, gzip, lz4 or zstd"),
        ([("group_instance_id", "a b")], {}, "group_instance_id='a b'"),
    ],
)
def test_what_can_not_be_is_refused_with_what_can(
    options: list[tuple[str, str]], environ: dict[str, str], told: str
) -> None:
    """Given a name or value that nobody knows, the error says where it stands and what would do."""
    with pytest.raises(UsageError, match=told):
        settings_from(options, environ)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[kafak]\nreaders = 1\n", "has 'kafak'"),
        ("kafka = 1\n", r"needs a table \[kafka\]"),
        ("[kafka]\nreader = 1\n", "the nearest is 'readers'"),
        ("[kafka]\nreaders = 1.5\n", "readers is a whole number"),
        ("[kafka\n", "is not TOML"),
    ],
)
def test_a_file_that_can_not_be_is_refused(tmp_path: Path, text: str, told: str) -> None:
    """Given a settings file with a mistake, the error names the file."""
    path = tmp_path / "refold.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=told) as caught:
        settings_from([], {"REFOLD_SETTINGS": str(path)})
    assert str(path) in str(caught.value)


OAUTH = {"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER"}
ENDPOINT = {
    **OAUTH,
    "sasl_token_url": "https://id/token",
    "sasl_client_id": "a",
    "sasl_client_secret": "b",
}
SASL = {"security_protocol": "SASL_SSL", "sasl_mechanism": "SCRAM-SHA-512", "sasl_username": "me"}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (SASL, "takes sasl_username and sasl_password_file"),
        ({**SASL, "sasl_password": "a", "sasl_password_file": "b"}, "one of them, please"),
        ({**OAUTH, "sasl_client_id": "a"}, "sasl_token_url is not"),
        ({**OAUTH, "sasl_token_url": "https://id/token"}, "takes sasl_client_id"),
        (
            {**OAUTH, "sasl_token_url": "https://id/token", "sasl_client_id": "a"},
            "sasl_client_secret",
        ),
        ({**ENDPOINT, "sasl_token_url": "http://id/token"}, "use https"),
        ({**ENDPOINT, "sasl_token_url": "https://a:b@id/token"}, "holds a user or password"),
        ({**ENDPOINT, "sasl_token": "b"}, "one of them"),
        ({**SASL, "sasl_password": "a", "sasl_token": "b"}, "no token"),
        ({**SASL, "sasl_mechanism": "OAUTHBEARER", "sasl_token": "b"}, "no sasl_username"),
        ({**SASL, "sasl_mechanism": "GSSAPI", "sasl_password": "a"}, "not 'GSSAPI'"),
        ({"security_protocol": "SSL", "ssl_keyfile": "key"}, "ssl_keyfile needs ssl_certfile"),
    ],
)
def test_half_a_login_is_refused(given: dict[str, str], told: str) -> None:
    """Given settings that can't log in together, the error says what is missing or too much."""
    with pytest.raises(UsageError, match=told):
        settings_from(given.items(), {})


@pytest.mark.parametrize(("compression", "package"), [("lz4", "lz4"), ("zstd", "zstandard")])
def test_a_missing_package_names_the_extra(
    compression: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given no package for it, the error says what to install."""
    find = importlib.util.find_spec

    def without(name: str) -> object:
        return None if name == package else find(name)

    monkeypatch.setattr(kafka_settings, "find_spec", without)
    with pytest.raises(UsageError, match=rf"pip install 'refold\[{compression}\]'"):
        KafkaSettings(compression=compression)


@pytest.mark.parametrize(
    "url",
    [
        f"kafka://me:{SECRET}@host:9092/orders?reader=1",
        f"kafka://me:{SECRET}@host/orders",
        f"kafka://me:{SECRET}/@host:9092/orders",
        f"kafka://me:[{SECRET}@host:9092/orders",
        f"kafka://me:x@{SECRET}@host:9092/orders/more",
        f"kafak://me:{SECRET}@host:9092/orders",
        f"kafka://host:9092/orders?sasl_password={SECRET}",
        f"kafka://host:9092/orders?sasl_token={SECRET}#x",
        f"kafka://host:9092/orders?security_protocol=SSL&ssl_key_password={SECRET}&ssl_certfile=/no",
        f"kafka://host:9092/orders?sasl_password={SECRET}&sasl_password={SECRET}",
        f"kafka://host:9092/orders?schema_registry=http://me:{SECRET}@registry&readers=x",
        f"kafka://host:9092/orders?schema_registry=http%3A%2F%2Fme%3A{SECRET}%40registry&readers=x",
        f"kafka://host:9092/orders?sasl_username=a&sasl_password=%5B{SECRET}&readers=x",
    ],
)
def test_no_error_shows_what_is_secret_in_a_url(url: str) -> None:
    """Given a password or token in a URL that is wrong otherwise, neither the error nor its causes hold it."""
    assert SECRET not in redacted(url)
    assert holds_secret(url)
    try:
        shown = repr(open_log(url))
    except UsageError as error:
        chain = [
            error,
            error.__cause__,
            error.__context__ if not error.__suppress_context__ else None,
        ]
        shown = " ".join(f"{one!r} {one}" for one in chain)
    assert SECRET not in shown


@pytest.mark.parametrize(
    "url",
    [
        "kafka://host:9092/orders?readers=2",
        "kafka://me@host:9092/x",
        "kafka://host:9092/x?schema_registry=http://registry:8081&readers=2",
        "sqlite:///a:b@c.db",
        "memory://x",
    ],
)
def test_a_url_without_a_secret_is_not_taken_for_one(url: str) -> None:
    """Given nothing to hide, the command line takes it."""
    assert not holds_secret(url)


def row_of(setting: Setting) -> str:
    """How the document names a setting, up to its meaning."""
    default = (
        ""
        if setting.default in {None, ""}
        else f"`{str(setting.default).lower() if setting.kind is bool else setting.default}`"
    )
    return f"| `{setting.name}` | `{setting.variable}` | {default} |".replace("|  |", "| |")


def test_the_document_has_every_setting_and_its_default() -> None:
    """Given docs/connecting.md, its table is that of the code: one row each, in order, and none besides."""
    rows = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("| `")]
    named = [line.rsplit("|", 2)[0] + "|" for line in rows if "REFOLD_KAFKA_" in line]
    assert named == [row_of(setting) for setting in SETTINGS.values()]
    assert FILE_OPTION not in SETTINGS
