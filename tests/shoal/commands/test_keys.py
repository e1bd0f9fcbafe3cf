"""Tests of `shoal keys`: the files of each process, that nothing is overwritten, adding and revoking clients."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from common.process import command
from common.wire.keys import load_keys, read_clients
from shoal.cli import shoal


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def run(*arguments: object) -> int:
    return command.run(shoal, "shoal", ["keys", *map(str, arguments)])


def files(directory: Path) -> dict[str, str]:
    return {str(path.relative_to(directory)): path.read_text() for path in directory.rglob("*") if path.is_file()}


def allowed(keys: Path, server: str) -> dict[str, str]:
    return {client.name: client.kind for client in read_clients(keys / server / "allowed_clients").values()}


def test_each_directory_contains_what_one_process_needs(keys: Path) -> None:
    assert run(keys, "--clients", "carol", "--n", 2) == 0
    assert set(files(keys)) == {
        *(
            f"{server}/{file}"
            for server in ("replay", "learner")
            for file in (f"{server}.key_secret", "allowed_clients")
        ),
        "learner/replay.key",
        *(
            f"{name}/{file}"
            for name in ("actor", "carol", "actor-1", "actor-2")
            for file in (f"{name}.key_secret", "replay.key", "learner.key")
        ),
    }
    actors = dict.fromkeys(("actor", "carol", "actor-1", "actor-2"), "actor")
    assert allowed(keys, "replay") == {"learner": "learner", **actors}
    assert allowed(keys, "learner") == actors


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_only_the_owner_can_read_secrets_whatever_the_umask(keys: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        assert run(keys) == 0
        assert run(keys, "--clients", "carol") == 0
    finally:
        os.umask(before)
    for path in (keys, *keys.rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600 if path.suffix == ".key_secret" else 0o644), path


def test_nothing_is_overwritten(keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(keys) == 0
    before = files(keys)
    assert run(keys) == 2
    assert (
        "already contains keys, which are never overwritten. Add a client with --clients NAME"
        in capsys.readouterr().err
    )
    for name in ("actor", "replay", "../x", "a b", ""):
        assert run(keys, "--clients", "dora", "--clients", name) == 2, name
    assert run(keys, "--revoke", "learner") == 2
    assert run(keys, "--revoke", "nobody") == 2
    assert "Clients: actor." in capsys.readouterr().err
    assert files(keys) == before
    assert [path.name for path in keys.parent.iterdir()] == ["keys"], "no drafts are left"


@pytest.mark.parametrize(
    ("clients", "reason"),
    [
        (("carol",), "carol: keys of that name exist. Choose another name, or --revoke it first."),
        (("dora", "dora"), "dora: the name is given more than once."),
        (("learner",), "learner: the name is reserved for a process of Shoal. Choose another name."),
    ],
)
def test_a_name_that_cannot_be_added_is_refused_with_its_reason(
    keys: Path, clients: tuple[str, ...], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(keys, "--clients", "carol") == 0
    assert run(keys, *(part for name in clients for part in ("--clients", name))) == 2
    assert f"--clients {reason}" in capsys.readouterr().err


def test_a_directory_with_other_files_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert run(tmp_path) == 2
    assert "contains other files (notes.txt)" in capsys.readouterr().err
    assert files(tmp_path) == {"notes.txt": "mine"}


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "k" * os.pathconf(tmp_path, "PC_NAME_MAX")  # a draft beside it has a longer one
    assert run(tmp_path / name) == 2
    assert f"{name} cannot be written (File name too long). Name a directory" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_adding_and_revoking_keep_the_other_keys(keys: Path) -> None:
    assert run(keys, "--clients", "carol") == 0
    with (keys / "replay" / "allowed_clients").open("a") as file:
        file.write("# a note of the operator's\n")
    before = files(keys)
    assert run(keys, "--clients", "dora", "--revoke", "carol") == 0
    after = files(keys)
    unchanged = {name for name in before if "allowed" not in name and not name.startswith("carol")}
    assert {name: after[name] for name in unchanged} == {name: before[name] for name in unchanged}
    assert allowed(keys, "replay") == {"learner": "learner", "actor": "actor", "dora": "actor"}
    assert allowed(keys, "learner") == {"actor": "actor", "dora": "actor"}
    assert "a note of the operator's" in after["replay/allowed_clients"]
    assert not (keys / "carol").exists()
    assert load_keys(str(keys / "dora"))


def test_no_secret_is_printed(keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(keys, "--json") == 0
    printed = capsys.readouterr().out
    changes = json.loads(printed)
    assert {key["name"] for key in changes["made"]} == {"replay", "learner", "actor"}
    assert changes["allowed"] == {"replay": ["actor", "learner"], "learner": ["actor"]}
    assert run(keys, "--clients", "carol") == 0
    printed += capsys.readouterr().out
    for name in ("replay", "learner", "actor", "carol"):
        own = load_keys(str(keys / name))
        assert own
        assert own.public.decode() in printed
        assert own.secret.decode() not in printed
