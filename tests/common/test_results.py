"""Results alone reach the standard output of a command, whatever the code that it runs prints."""

import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, os, subprocess, sys
import click, msgspec
from common.process import command

class Config(msgspec.Struct, frozen=True):
    times: int = 1

@click.command()
@command.options(Config)
def noisy(times):
    print("from Python")
    sys.stdout.write("from Python's stream\\n")
    os.write(1, b"from a file descriptor\\n")
    ctypes.CDLL(None).puts(b"from C")
    ctypes.CDLL(None).fflush(None)
    subprocess.run([sys.executable, "-c", "print('from a process')"], check=True)
    command.result('{"times": ')
    print(f"{times}}}", file=command.results())
    print("from Python again")

command.main(noisy, "noisy")
"""
NOISE = [
    "from Python",
    "from Python's stream",
    "from a file descriptor",
    "from C",
    "from a process",
    "from Python again",
]


def run(*arguments, **streams):
    return subprocess.run([sys.executable, "-c", PROGRAM, *arguments], text=True, check=False, **streams)


def test_what_others_print_goes_to_the_standard_error():
    done = run("--times", "3", capture_output=True)
    assert (done.returncode, done.stdout) == (0, '{"times": \n3}\n')
    assert sorted(done.stderr.splitlines()) == sorted(NOISE)


def test_help_is_a_result():
    done = run("--help", capture_output=True)
    assert "--times" in done.stdout
    assert not done.stderr


@pytest.mark.parametrize("first", ["", "import os; assert os.open(os.devnull, os.O_RDONLY) == 2"])
def test_a_closed_standard_error_changes_no_result(first):
    """Its number may belong to another file: libffi 3.5 leaves a library open that it reads, for one."""
    command = ["sh", "-c", 'exec "$0" -c "$1" 2>&-', sys.executable, first + PROGRAM]
    done = subprocess.run(command, text=True, check=False, capture_output=True)
    assert (done.returncode, done.stdout) == (0, '{"times": \n1}\n')


def test_a_closed_standard_output_is_no_error():
    program = PROGRAM.replace("os.write(1", "os.write(2")
    quiet = "\n".join(line for line in program.splitlines() if "command.results()" not in line)
    command = ["sh", "-c", 'exec "$0" -c "$1" 1>&-', sys.executable, quiet.replace("sys.stdout.write", "print")]
    done = subprocess.run(command, text=True, check=False, capture_output=True)
    assert (done.returncode, done.stdout) == (0, "")
