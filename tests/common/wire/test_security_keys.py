"""What is taken for keys, and what is not; what of them is never shown."""

from __future__ import annotations

import contextlib
import os
import traceback
from pathlib import Path

import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import ConfigError
from common.wire.keys import PUBLISHED_KEYS, Keys, check_key, load_keys, read_clients, require_safe_libzmq
from common.wire.sockets import require_local
from shoal.commands.keys import make_keys

PUBLISHED_KEYS = sorted(key.decode() for key in PUBLISHED_KEYS)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    make_keys(tmp_path / "keys", ["carol"])
    return tmp_path / "keys"


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spoilt")


def certificate(public: str, secret: str) -> str:
    return f'curve\n    public-key = "{public}"\n    secret-key = "{secret}"\n'


def test_each_process_finds_its_own(keys: Path) -> None:
    assert load_keys("") is None
    for name in ("replay", "learner", "actor", "carol"):
        loaded = load_keys(str(keys / name))
        assert loaded
        assert (loaded.name, zmq.curve_public(loaded.secret)) == (name, loaded.public)


def test_the_lists_contain_the_permissions(keys: Path) -> None:
    at_replay = {(client.kind, client.name) for client in read_clients(keys / "replay" / "allowed_clients").values()}
    at_learner = {(client.kind, client.name) for client in read_clients(keys / "learner" / "allowed_clients").values()}
    assert at_replay == {("learner", "learner"), ("actor", "actor"), ("actor", "carol")}
    assert at_learner == {("actor", "actor"), ("actor", "carol")}


def test_a_secret_is_not_in_what_is_printed_of_keys(keys: Path) -> None:
    loaded = load_keys(str(keys / "replay"))
    assert loaded
    assert loaded.secret.decode() not in f"{loaded} {loaded!r}"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda keys: keys.parent / "nowhere", "is not a directory. Create the keys with `shoal keys`"),
        (lambda keys: keys, r"keys of several processes \(actor, carol, learner, replay\)\. .*keys/actor"),
        (lambda keys: (keys / "replay" / "replay.key_secret").unlink() or keys / "replay", "contains no secret key"),
        (
            lambda keys: (
                (keys / "carol" / "carol.key_secret").rename(keys / "actor" / "b.key_secret") and keys / "actor"
            ),
            "contains 2 secret keys .*a separate directory",
        ),
        (lambda keys: (keys / "actor" / "actor.key_secret").chmod(0o604) or keys / "actor", "every user.*chmod 600"),
    ],
    ids=["nowhere", "all of them", "none", "two", "readable"],
)
def test_a_directory_that_will_not_do_is_refused_with_the_way_out(keys: Path, spoil, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=message):
        load_keys(str(spoil(keys)))


def test_a_group_may_read_a_secret_as_in_a_pod(keys: Path) -> None:
    (keys / "actor" / "actor.key_secret").chmod(0o440)
    assert load_keys(str(keys / "actor"))


def test_all_in_a_container_may_read_what_is_mounted_into_it(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (keys / "actor" / "actor.key_secret").chmod(0o644)
    mounted = os.statvfs_result((*os.statvfs(keys)[:8], os.ST_RDONLY, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: mounted)
    assert load_keys(str(keys / "actor"))


@pytest.mark.parametrize("server", ["replay", "learner"])
def test_a_server_that_is_not_known_is_named(keys: Path, server: str) -> None:
    loaded = load_keys(str(keys / "actor"))
    assert loaded
    (keys / "actor" / f"{server}.key").unlink()
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket, pytest.raises(ConfigError, match=server):
        loaded.secure_client(socket, server)  # type: ignore[arg-type]


@pytest.mark.parametrize("key", PUBLISHED_KEYS)
def test_keys_of_manuals_are_refused_wherever_they_stand(keys: Path, key: str) -> None:
    own = load_keys(str(keys / "actor"))
    assert own
    (keys / "replay" / "allowed_clients").write_text(f"actor a {key}\n")
    with pytest.raises(ConfigError, match=r"allowed_clients, line 1: a test key from a manual"):
        read_clients(keys / "replay" / "allowed_clients")
    secret = keys / "actor" / "actor.key_secret"
    secret.write_text(certificate(zmq.curve_public(key.encode()).decode(), key))
    with pytest.raises(ConfigError, match="a test key from a manual"):
        load_keys(str(keys / "actor"))
    (keys / "actor" / "replay.key").write_text(f'curve\n    public-key = "{key}"\n')
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket, pytest.raises(ConfigError, match="test key"):
        own.secure_client(socket, "replay")


@pytest.mark.parametrize("key", ["0" * 40, "@*" * 20, zmq.utils.z85.encode(b"ab" * 16).decode()])
def test_zeros_and_patterns_are_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=r"instead of a random key|not a CURVE key"):
        check_key(key.encode(), "here")


def test_a_secret_that_is_not_the_public_keys_is_refused_and_not_shown(keys: Path) -> None:
    public, secret = zmq.curve_keypair()[0].decode(), zmq.curve_keypair()[1].decode()
    file = keys / "actor" / "actor.key_secret"
    for content in (certificate(public, secret), certificate(public, secret[:-1]), certificate(secret[:-1], secret)):
        file.write_text(content)
        with pytest.raises(ConfigError) as refused:
            load_keys(str(keys / "actor"))
        assert secret[:-1] not in "".join(traceback.format_exception(refused.value))


@settings(max_examples=60)
@given(st.binary(max_size=120) | st.text(max_size=80).map(lambda text: f"actor a {text}".encode()))
def test_no_content_of_a_file_does_more_than_be_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    directory = tmp_path_factory.getbasetemp() / "spoilt"
    directory.mkdir(exist_ok=True)
    for name, read in (
        ("allowed_clients", read_clients),
        ("a.key_secret", lambda file: load_keys(str(file.parent))),
    ):
        file = directory / name
        file.write_bytes(content)
        file.chmod(0o600)
        with contextlib.suppress(ConfigError):
            assert isinstance(read(file), dict | Keys)  # type: ignore[operator]


@pytest.mark.parametrize("version", [(4, 0, 0), (4, 3, 1), (4, 3, 3)])
def test_an_old_libzmq_is_refused_for_keys_and_for_strangers(
    monkeypatch: pytest.MonkeyPatch, keys: Path, version: tuple[int, int, int]
) -> None:
    monkeypatch.setattr(zmq, "zmq_version_info", lambda: version)
    for use in (
        lambda: load_keys(str(keys / "replay")),
        lambda: require_local("tcp://0.0.0.0:5555", "--bind", insecure=True),
        lambda: require_local("tcp://0.0.0.0:5555", "--bind", insecure=False, keys=True),
    ):
        with pytest.raises(ConfigError, match=r"CVE-2020-15166.*at least 4\.3\.4.*pip install"):
            use()
    require_local("tcp://127.0.0.1:5555", "--bind", insecure=False)


def test_a_libzmq_without_encryption_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    require_safe_libzmq("--keys")
    monkeypatch.setattr(zmq, "has", lambda capability: False)
    with pytest.raises(ConfigError, match=r"--keys: libzmq .* without CURVE.*pip install"):
        require_safe_libzmq("--keys")


def test_keys_replace_insecure() -> None:
    require_local("tcp://0.0.0.0:5555", "--bind", insecure=False, keys=True)
    with pytest.raises(ConfigError, match=r"shoal keys.*--keys.*--insecure"):
        require_local("tcp://0.0.0.0:5555", "--bind", insecure=False)
