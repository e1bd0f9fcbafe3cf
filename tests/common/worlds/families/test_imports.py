"""What a name whose module or class is not found says about where it may be."""

import sys
from pathlib import Path

import pytest

from common.errors import ConfigError
from common.worlds import make_world
from common.worlds.families.imports import import_path

CLASS = """
class {name}:
    def reset(self): ...
    def step(self, actions): ...

"""


@pytest.fixture
def directories(tmp_path, monkeypatch):
    """Returns a working directory, and a directory on PYTHONPATH."""
    here, on_path = tmp_path / "here", tmp_path / "on_path"
    here.mkdir()
    on_path.mkdir()
    monkeypatch.chdir(here)
    installed = [entry for entry in sys.path if "python3" in entry or entry == str(Path(__file__).parents[4])]
    monkeypatch.setattr(sys, "path", [str(on_path), *installed])
    return here, on_path


def refusal(name):
    with pytest.raises(ConfigError) as error:
        make_world(name)
    return str(error.value)


def test_a_file_in_the_working_directory_says_what_to_export(directories, monkeypatch):
    here, on_path = directories
    (here / "dronez.py").write_text("")
    expected = "./dronez.py is here: export PYTHONPATH=$PWD"
    for path in ("dronez", "dronez.Fleet", "dronez:Fleet"):
        assert refusal(f"pettingzoo:{path}").endswith(f"(PYTHONPATH is {on_path}); {expected}:$PYTHONPATH")
    monkeypatch.setattr(sys, "path", sys.path[1:])
    assert refusal("pettingzoo:dronez").endswith(f"No module named 'dronez'; {expected}")
    (here / "fleet").mkdir()
    (here / "fleet" / "dronez.py").write_text("")
    assert refusal("pettingzoo:fleet.dronez").endswith("; ./fleet/dronez.py is here: export PYTHONPATH=$PWD")


def test_similar_names_of_files_are_offered(directories):
    here, on_path = directories
    (on_path / "dronez.py").write_text("")
    (on_path / "notes.txt").write_text("")
    assert refusal("pettingzoo:dronse").endswith("; did you mean dronez?")
    assert refusal("pettingzoo:dronse.Fleet").endswith("; did you mean dronez.Fleet?")
    (here / "walkerz.py").write_text("")
    found = refusal("pettingzoo:walkrez")
    assert found.endswith("did you mean walkerz? It is in this directory: export PYTHONPATH=$PWD:$PYTHONPATH")
    assert refusal("pettingzoo:qqqq").endswith("; install it, or, in the directory of its file: export PYTHONPATH=$PWD")
    assert "did you mean" not in refusal(f"pettingzoo:{'x' * 300}")


def test_a_class_that_a_module_does_not_have_names_those_it_has(directories, monkeypatch):
    here, _ = directories
    (here / "dronez_a.py").write_text(CLASS.format(name="Drones"))
    (here / "dronez_b.py").write_text(CLASS.format(name="One") + CLASS.format(name="Two") + "class Other: ...\n")
    (here / "dronez_c.py").write_text("from dronez_a import Drones\n")
    monkeypatch.syspath_prepend(here)
    for path in ("dronez_a.Drone", "dronez_a:Drone"):
        assert refusal(f"pettingzoo:{path}").endswith("dronez_a has no Drone; did you mean Drones?")
    assert refusal("pettingzoo:dronez_b:Fleet").endswith("dronez_b has no Fleet; known: One, Two, Other")
    assert refusal("pettingzoo:dronez_c:Fleet").endswith("dronez_c has no Fleet")
    assert refusal("pettingzoo:dronez_a").endswith("has no parallel_env(). Write pettingzoo:dronez_a:Drones.")
    assert refusal("pettingzoo:dronez_b").endswith("Write pettingzoo:dronez_b:One or pettingzoo:dronez_b:Two.")
    assert import_path("pettingzoo:dronez_c", "dronez_c.Drones").__name__ == "Drones"


def test_a_file_that_is_named_without_a_family(directories):
    here, _ = directories
    (here / "dronez.py").write_text("")
    (here / "fleet").mkdir()
    (here / "fleet" / "dronez.py").write_text("")
    for written, meant in (
        ("dronez", "dronez"),
        ("dronez.py", "dronez"),
        ("./dronez.py", "dronez"),
        ("fleet/dronez.py", "fleet.dronez"),
        ("fleet.dronez", "fleet.dronez"),
        ("dronez:Drones", "dronez:Drones"),
    ):
        assert f"no scenario {written!r}; did you mean pettingzoo:{meant}? Other" in refusal(written)
    assert "did you mean pettingzoo" not in refusal("dronezz")
    assert "did you mean pettingzoo" not in refusal("x" * 900)
