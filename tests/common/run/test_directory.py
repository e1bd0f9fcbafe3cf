import os
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest

from common.errors import ConfigError, ShoalError
from common.files import write_atomically
from common.run.directory import RunDirectory, create, default_path, reopen
from common.run.run import make_run_spec
from tests.common.examples import CHOICES, MIXED

SPEC = make_run_spec({"scenario": "somewhere", "world": {"N": 3}})


def other(**settings):
    return make_run_spec(msgspec.to_builtins(SPEC), settings)


# ---- create -------------------------------------------------------------------------------------------------------


def test_a_new_run_has_a_directory_and_an_identity(tmp_path):
    directory, run = create(tmp_path / "runs" / "a", SPEC, MIXED)
    assert (run.spec, run.joint) == (SPEC, MIXED)
    assert directory.run == run
    assert create(tmp_path / "runs" / "b", SPEC, MIXED)[1].id != run.id
    assert [path.name for path in directory.path.iterdir()] == ["run.toml"]


def test_an_empty_directory_may_be_used(tmp_path):
    assert create(tmp_path, SPEC, MIXED)[0].path == tmp_path


def test_a_directory_that_contains_a_run_is_not_used_again(tmp_path):
    _, run = create(tmp_path, SPEC, MIXED)
    with pytest.raises(ConfigError, match=rf"already contains run {run.id} of somewhere\. Pass --resume"):
        create(tmp_path, other(seed=1), MIXED)
    assert RunDirectory(tmp_path).run == run


def test_a_directory_that_contains_anything_else_is_not_used(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match=r"is not empty and does not contain a run\. Pass a new directory"):
        create(tmp_path, SPEC, MIXED)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_path_that_cannot_be_a_directory_is_a_config_error(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError, match=rf"--run {path} cannot be created: "):
            create(path, SPEC, MIXED)


def test_a_damaged_run_file_is_not_overwritten(tmp_path):
    (tmp_path / "run.toml").write_text("id = ")
    with pytest.raises(ConfigError, match=r"run\.toml is not a run"):
        create(tmp_path, SPEC, MIXED)
    assert (tmp_path / "run.toml").read_text() == "id = "


@pytest.mark.parametrize(
    ("scenario", "start"),
    [("simple_spread", "simple_spread-"), ("pettingzoo:a.b", "pettingzoo-a.b-"), ("a/../../b", "a-..-..-b-")],
)
def test_the_default_path_is_one_directory_named_by_scenario_and_time(scenario, start):
    path = default_path(other(scenario=scenario))
    assert path.parts[0] == "runs"
    assert len(path.parts) == 2
    assert path.name.startswith(start)


# ---- reopen -------------------------------------------------------------------------------------------------------


def test_a_run_is_reopened_as_it_was(tmp_path):
    _, run = create(tmp_path, SPEC, MIXED)
    assert reopen(tmp_path, None, None)[1] == run
    before = (tmp_path / "run.toml").stat().st_mtime_ns
    assert reopen(tmp_path, SPEC, MIXED)[1] == run
    assert (tmp_path / "run.toml").stat().st_mtime_ns == before, "nothing changed, nothing written"


def test_a_run_is_reopened_with_other_settings(tmp_path):
    _, run = create(tmp_path, SPEC, MIXED)
    directory, changed = reopen(tmp_path, other(replay={"batch": 16}), MIXED)
    assert (changed.id, changed.spec.replay.batch) == (run.id, 16)
    assert directory.run == changed


@pytest.mark.parametrize(
    ("spec", "joint", "message"),
    [
        (other(world={"N": 5}), MIXED, r"with world\.N=3, not of somewhere with world\.N=5\. .*pass another directory"),
        (other(world={"far": False}), MIXED, r"not of somewhere with .*world\.far=false"),
        (other(scenario="elsewhere"), MIXED, r"contains a run of somewhere .*not of elsewhere .*pass another dir"),
        (
            SPEC,
            CHOICES,
            r"somewhere changed since .*: it has other agents .*new: speaker, mover.*pass another directory",
        ),
    ],
)
def test_a_run_is_not_reopened_over_another_world(tmp_path, spec, joint, message):
    _, run = create(tmp_path, SPEC, MIXED)
    with pytest.raises(ConfigError, match=message):
        reopen(tmp_path, spec, joint)
    assert RunDirectory(tmp_path).run == run


def test_a_run_with_checkpoints_is_not_reopened_with_other_networks(tmp_path):
    directory, _ = create(tmp_path, SPEC, MIXED)
    directory.checkpoints.mkdir()
    changed = other(network={"policy_hidden": [8], "recurrent": "gru"})
    with pytest.raises(ConfigError) as refused:
        reopen(tmp_path, changed, MIXED)
    hidden = list(SPEC.network.policy_hidden)
    said = f"was created with network.policy_hidden = {hidden}, network.recurrent = none;"
    assert said in str(refused.value)


def test_a_directory_without_a_run_cannot_be_reopened(tmp_path):
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ConfigError, match=rf"{path} does not contain a run \(no run\.toml\)"):
            reopen(path, None, None)


def test_a_run_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "run.toml").mkdir()
    with pytest.raises(ConfigError, match=r"run\.toml cannot be read"):
        reopen(tmp_path, None, None)
    (tmp_path / "run.toml").rmdir()
    (tmp_path / "run.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"run\.toml cannot be read"):
        reopen(tmp_path, None, None)


def test_a_run_file_is_utf_8_whatever_the_locale_says(tmp_path):
    spec = other(world={"map": "höhle"})
    _, run = create(tmp_path, spec, MIXED)
    assert "höhle".encode() in (tmp_path / "run.toml").read_bytes()
    assert RunDirectory(tmp_path).run == run


# ---- one process a role -------------------------------------------------------------------------------------------


def test_a_directory_is_locked_by_one_process_of_a_role(tmp_path):
    first, second = create(tmp_path, SPEC, MIXED)[0], RunDirectory(tmp_path)
    first.lock("learner")
    with pytest.raises(ConfigError, match=rf"in use by another learner, process {os.getpid()}\. Wait until it ends"):
        second.lock("learner")
    second.lock("launcher")
    del first
    RunDirectory(tmp_path).lock("learner")


@pytest.mark.slow
def test_a_killed_process_releases_its_lock(tmp_path):
    script = (
        "import sys; from pathlib import Path; from common.run.directory import RunDirectory\n"
        "held = RunDirectory(Path(sys.argv[1])); held.lock('learner'); print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    with holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(ConfigError, match=f"process {holder.pid}"):
            RunDirectory(tmp_path).lock("learner")
        holder.kill()
        holder.wait()
    RunDirectory(tmp_path).lock("learner")


def test_a_directory_that_cannot_be_locked_is_named(tmp_path):
    (tmp_path / ".learner.lock").mkdir()
    with pytest.raises(ConfigError, match=f"--run {tmp_path} cannot be written: Is a directory"):
        RunDirectory(tmp_path).lock("learner")


def test_the_end_of_a_run_that_cannot_be_recorded_names_the_way_out(tmp_path):
    RunDirectory(tmp_path).mark_finished()
    assert RunDirectory(tmp_path).finished_file.exists()
    with pytest.raises(ShoalError, match=r"gone/finished cannot be written: No such file.*Free disk space.*--resume"):
        RunDirectory(tmp_path / "gone").mark_finished()


# ---- atomic writes ------------------------------------------------------------------------------------------------


def test_a_file_is_replaced_as_a_whole_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "a.toml"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_keeps_the_old_file_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "a.toml"
    write_atomically(path, b"old")
    with pytest.raises(TypeError):
        write_atomically(path, "not bytes")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_never_sees_a_part(tmp_path):
    path = tmp_path / "big"
    contents = [bytes([i]) * 200_000 for i in range(8)]
    write_atomically(path, contents[0])
    done = threading.Event()

    def write():
        for content in contents:
            write_atomically(path, content)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        assert path.read_bytes() in contents
    writer.join()


@pytest.mark.slow
def test_a_writer_killed_in_the_middle_leaves_the_old_file(tmp_path):
    path = tmp_path / "a"
    write_atomically(path, b"old")
    script = (
        "import os, signal, sys; from pathlib import Path; from common import files as r\n"
        "r.os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        "r.write_atomically(Path(sys.argv[1]), b'new' * 100_000)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    killed = subprocess.run([sys.executable, "-c", script, path], check=False, env=environment)
    assert killed.returncode == -9
    assert path.read_bytes() == b"old"
    write_atomically(path, b"newer")
    assert path.read_bytes() == b"newer"
