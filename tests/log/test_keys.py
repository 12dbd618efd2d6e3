"""Where keys are kept: made once, durable, wrapped, rotated, destroyed for ever, and missed loudly."""

import base64
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from refold.log.errors import KeyMissing, KeysUnavailable, UsageError
from refold.log.key_directory import DirectoryKeys
from refold.log.key_environment import EnvironmentKeys
from refold.log.key_master import LocalMaster, master_from, new_key
from refold.log.key_urls import keys_from, open_keys
from refold.log.keys import Erasure, KeyRing, Master, PayloadKeys
from refold.log.urls import open_log

OLD, NEW = bytes(32), bytes(range(32))
BOB = "subject:bob"


class Service:
    """A key management service, as somebody else would bind it."""

    id = "service"

    def wrap(self, key: bytes, bound_to: bytes) -> bytes:
        return bytes(b ^ 0x5A for b in key) + bound_to

    def unwrap(self, master_id: str, wrapped: bytes, bound_to: bytes) -> bytes:
        assert (master_id, wrapped[32:]) == (self.id, bound_to)
        return bytes(b ^ 0x5A for b in wrapped[:32])


def service() -> Service:
    return Service()


def store(place: Path, *masters: bytes) -> DirectoryKeys:
    return DirectoryKeys(place / "keys", LocalMaster(masters or (OLD,)))


def files(place: Path) -> list[Path]:
    return [path for path in place.rglob("*") if path.is_file()]


def test_a_ring_is_made_once_and_found_by_its_name_and_id(tmp_path: Path) -> None:
    """Given a name, every process gets the same ring; nothing in the files tells its keys or the name."""
    ring = store(tmp_path).ring_for(BOB)
    assert store(tmp_path).ring_for(BOB) == ring == store(tmp_path).ring(ring.id)
    assert store(tmp_path).rings_of(BOB) == [ring]
    assert store(tmp_path).ring_for("subject:alice") != ring
    everything = b"".join(path.read_bytes() for path in files(tmp_path))
    for secret in (ring.keys[0], base64.b64encode(ring.keys[0])[:40], b"bob"):
        assert secret not in everything
    assert "keys" not in repr(ring).replace("with 1 keys", "")
    assert all(path.stat().st_mode & 0o077 == 0 for path in files(tmp_path))


def test_processes_that_make_a_ring_at_once_get_one(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        making = [pool.submit(store(tmp_path).ring_for, BOB) for _ in range(32)]
    made = [future.result() for future in making]
    assert len(set(made)) == 1


def test_looking_makes_nothing(tmp_path: Path) -> None:
    keys = store(tmp_path)
    assert (keys.rings_of(BOB), keys.ring("k" * 24), keys.erase(BOB, 1, None, "x")) == (
        [],
        None,
        [],
    )
    assert files(tmp_path) == []


def test_an_erased_ring_is_gone_for_ever_and_says_why(tmp_path: Path) -> None:
    """Given a ring that was destroyed, twice: what is left says when, by whom and why."""
    keys = store(tmp_path)
    ring = keys.ring_for(BOB)
    path = next(path for path in files(tmp_path) if path.stem == ring.id)
    wrapped = json.loads(path.read_text())["keys"][0]
    with path.open("rb") as former:  # the bytes that were there, whatever has their name now
        assert keys.erase(BOB, 7, "ops", "ticket") == [ring.id]
        assert keys.erase(BOB, 8, "ops", "again") == [ring.id]
        assert set(former.read()) == {0}
    assert keys.ring(ring.id) == Erasure(ring.id, 7, "ops", "ticket")
    assert not any(wrapped.encode() in file.read_bytes() for file in files(tmp_path))
    back = keys.ring_for(BOB)
    assert back.id != ring.id
    assert keys.rings_of(BOB) == [Erasure(ring.id, 7, "ops", "ticket"), back]
    assert keys.erase(BOB, 9, None, "x") == [ring.id, back.id]


def test_a_new_data_key_leaves_the_former_ones(tmp_path: Path) -> None:
    keys = store(tmp_path)
    first = keys.ring_for(BOB)
    second = keys.rotate(BOB)
    assert (second.id, second.keys[:1], len(second.keys)) == (first.id, first.keys, 2)
    assert store(tmp_path).ring_for(BOB) == second
    with pytest.raises(UsageError, match="no key"):
        keys.rotate("subject:nobody")


def test_a_new_master_key_wraps_everything_anew(tmp_path: Path) -> None:
    """Given a new master key before the former one, all is wrapped anew, once, and the new one alone is enough."""
    rings = [store(tmp_path).ring_for(f"subject:{n}") for n in range(3)]
    store(tmp_path).erase("subject:0", 1, None, "x")
    with pytest.raises(KeyMissing, match="former master keys"):
        store(tmp_path, NEW).ring(rings[1].id)
    both = store(tmp_path, NEW, OLD)
    assert sorted(both.rewrap()) == [False, True, True]
    assert sorted(both.rewrap()) == [False, False, False]
    assert store(tmp_path, NEW).ring_for("subject:1") == rings[1]
    with pytest.raises(KeyMissing):
        store(tmp_path, OLD).ring(rings[1].id)


def test_a_service_can_wrap_the_keys(tmp_path: Path) -> None:
    """Given a key management service of somebody's own, named by its place in their code, it wraps and unwraps."""
    url = f"file://{tmp_path}/keys?master=import:{__name__}:service"
    ring = open_keys(url).provider.ring_for(BOB)
    again: Master = Service()
    assert DirectoryKeys(tmp_path / "keys", again).ring(ring.id) == ring
    assert isinstance(open_keys(f"import:{__name__}:Provider").provider, Provider)


class Provider:
    """A key provider of somebody's own."""

    url = "mine"

    def ring_for(self, name: str) -> KeyRing:
        raise NotImplementedError

    def rings_of(self, name: str) -> Sequence[KeyRing | Erasure]:
        raise NotImplementedError

    def ring(self, ring_id: str) -> KeyRing | Erasure | None:
        raise NotImplementedError

    def erase(self, name: str, at: int, by: str | None, why: str) -> Sequence[str]:
        raise NotImplementedError


@pytest.mark.parametrize("damage", ["flip", "swap", "cut"])
def test_damaged_files_are_told(tmp_path: Path, damage: str) -> None:
    """Given a key file that was altered, exchanged for another's or cut off, it is no key, and the error says so."""
    keys = store(tmp_path)
    ring, other = keys.ring_for(BOB), keys.ring_for("subject:alice")
    paths = {path.stem: path for path in files(tmp_path)}
    text = paths[ring.id].read_text()
    if damage == "flip":
        entry: dict[str, Any] = json.loads(text)
        key: str = entry["keys"][0]
        entry["keys"] = [key[:20] + ("A" if key[20] != "A" else "B") + key[21:]]
        text = json.dumps(entry)
    paths[ring.id].write_text(
        {"flip": text, "swap": paths[other.id].read_text(), "cut": text[:30]}[damage]
    )
    with pytest.raises(KeyMissing, match="altered"):
        keys.ring(ring.id)


def test_a_store_that_can_not_be_written_makes_nothing(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("no directory")
    with pytest.raises(KeysUnavailable, match="can't be written"):
        store(tmp_path).ring_for(BOB)


def test_a_crash_while_a_ring_is_made_leaves_none_half_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a process that dies before its ring has its name, the next one makes the ring."""
    keys = store(tmp_path)
    keys.ring_for("subject:other")

    def die(self: Path, target: Path) -> None:
        raise SystemExit

    def keep(self: Path, missing_ok: bool = False) -> None:  # as after SIGKILL
        assert missing_ok

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", die)
        patched.setattr(Path, "unlink", keep)
        with pytest.raises(SystemExit):
            keys.ring_for(BOB)
    ring = store(tmp_path).ring_for(BOB)
    assert store(tmp_path).rings_of(BOB) == [ring]


def test_keys_from_the_environment_are_one_for_all_and_can_not_be_erased() -> None:
    first, second = new_key(), new_key()
    old = EnvironmentKeys(first, "KEYS")
    both = EnvironmentKeys(f"{second},{first}", "KEYS")
    assert both.ring_for(BOB).keys[0] == old.ring_for("subject:alice").keys[0]
    assert both.ring_for(BOB).id == old.ring_for(BOB).id
    assert len(both.ring_for(BOB).keys) == 2
    with pytest.raises(UsageError, match="erased alone"):
        both.erase(BOB, 1, None, "x")


def test_a_url_says_where_the_keys_are_and_what_is_encrypted(tmp_path: Path) -> None:
    variables = {"REFOLD_MASTER_KEY": new_key(), "APP_KEYS": new_key()}
    (tmp_path / "master").write_text(variables["REFOLD_MASTER_KEY"])
    plain = open_keys(f"file://{tmp_path}/keys", variables)
    assert (plain.scope, plain.fields) == ("subject", ())
    ring = plain.provider.ring_for(BOB)
    named = open_keys(
        f"file://{tmp_path}/keys?master=file:{tmp_path}/master&encrypt=workflow&fields=email,customer.name"
    )
    assert named.provider.ring(ring.id) == ring
    assert (named.scope, named.fields) == ("workflow", ("email", "customer.name"))
    assert isinstance(open_keys("env:APP_KEYS", variables).provider, EnvironmentKeys)
    assert keys_from({}) is None
    assert isinstance(keys_from({"REFOLD_KEYS": "env:APP_KEYS", **variables}), PayloadKeys)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("keys", "does not begin with"),
        ("file:keys", "absolute path"),
        ("file://host/keys", "absolute path"),
        ("file:///keys?mater=x", "'mater' is unknown"),
        ("file:///keys?master=env:NOWHERE", "NOWHERE has no master key"),
        ("file:///keys?master=file:/nowhere/at/all", "can't be read"),
        ("file:///keys?master=vault:x", "names no master key"),
        ("file:///keys?encrypt=all", "neither subject nor workflow"),
        ("env:SHORT", "32 bytes in base64"),
        ("env:WORDS", "no key in base64"),
        ("env:NOWHERE", "32 bytes in base64"),
        ("import:nowhere:x", "can't be imported"),
        ("import:os:nothing", "can't be imported"),
    ],
)
def test_what_names_no_keys_is_refused(url: str, says: str) -> None:
    """Given a URL that can't be, the error says what is wrong with it, and quotes no key."""
    variables = {"REFOLD_MASTER_KEY": new_key(), "SHORT": "c2hvcnQ=", "WORDS": "my s3cr3t words!"}
    with pytest.raises((UsageError, KeysUnavailable), match=says) as error:
        open_keys(url, variables)
    assert "s3cr3t" not in str(error.value).replace(url, "")


def test_a_logs_url_and_the_environment_name_its_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given keys in the URL of a log of any kind, or in REFOLD_KEYS, the log comes with them; the URL goes first."""
    monkeypatch.setenv("A", new_key())
    monkeypatch.setenv("B", new_key())
    monkeypatch.setenv("REFOLD_KEYS", "env:B")
    for url in (f"sqlite:///{tmp_path}/x.db", "memory://", "kafka://host:9092/space"):
        for named, place in ((f"{url}?keys=env:A", "env:A"), (url, "env:B")):
            keys = getattr(open_log(named), "keys")  # noqa: B009 - not of the protocol
            assert keys.provider.url == place


def test_a_master_key_of_a_file_may_have_former_ones_after_it(tmp_path: Path) -> None:
    path = tmp_path / "master"
    path.write_text("\n".join(base64.b64encode(key).decode() for key in (NEW, OLD)))
    both = master_from(f"file:{path}", os.environ)
    assert both.id == LocalMaster([NEW]).id
    wrapped = LocalMaster([OLD]).wrap(b"k" * 32, b"x")
    assert both.unwrap(LocalMaster([OLD]).id, wrapped, b"x") == b"k" * 32
