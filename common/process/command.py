"""The command lines: a frozen config struct becomes options, environment variables and keys of a TOML file.

One field is one option `--some-name`, one variable `SHOAL_SOME_NAME` and one TOML key `some_name`; the first of
command line, environment, file and default that gives a value wins. Types, bounds and help texts are the struct's.
Only the cli modules import this one; nothing below them reads argv or the environment.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import sys
import tomllib
import traceback
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TextIO, TypeVar
from urllib.parse import parse_qs, urlsplit

import click
import msgspec
from msgspec import Meta

from common.errors import ConfigError, LastingError, ShoalError
from common.process.durations import Duration
from common.process.exit import BAD_USAGE, FAILED, INTERRUPTED, exit_process
from common.process.failure_note import FailureNote
from common.run.validation_errors import explain, suggest

Config = TypeVar("Config", bound=msgspec.Struct)
_Function = TypeVar("_Function", bound=Callable[..., Any])
_STDOUT, _STDERR, _ABOVE_STREAMS = 1, 2, 3
_results: TextIO | None = None
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""What the system says when no repetition of a write can succeed before somebody sees to the disk."""
_LINE = click.core.ParameterSource.COMMANDLINE
_TABLES = "shoal.tables"
_TOML_TYPES: dict[type[click.ParamType[Any]], tuple[tuple[type, ...], str]] = {
    type(click.INT): ((int,), "a whole number"),
    type(click.FLOAT): ((int, float), "a number"),
    type(click.BOOL): ((bool,), "true or false"),
    Duration: ((int, float, str), 'seconds, or a text as in "5m"'),
}
"""What a TOML value must be for each type of option; for all others, text."""


def options(*configs: type[msgspec.Struct]) -> Callable[[_Function], _Function]:
    """Adds an option for each field of the config structs, and `--config FILE`."""

    def decorate(function: _Function) -> _Function:
        for field in reversed([field for config in configs for field in msgspec.structs.fields(config)]):
            function = _option(field)(function)
        return _config_file_option(_with_results_apart(function))

    return decorate


def results() -> TextIO:
    """Returns where a command's results go: the standard output that the process was started with."""
    return _results or sys.stdout


def result(text: str | bytes, *, nl: bool = True) -> None:
    """Prints a result of a command."""
    click.echo(text, file=_results, nl=nl)


@contextlib.contextmanager
def results_apart() -> Iterator[None]:
    """Makes file descriptor 1 the standard error, so that results alone reach the standard output.

    Covers all that an environment prints: from Python, from C and from processes it starts. Does nothing where the
    standard output is closed or was replaced by another object.
    """
    global _results  # noqa: PLW0603  (a process has one standard output)
    stdout = sys.stdout
    is_own = _results is None and stdout is not None and id(stdout) == id(sys.__stdout__)
    kept = _move_stdout(stdout) if is_own else None
    if kept is None:
        yield
        return
    _results = os.fdopen(kept, "w", encoding=stdout.encoding, errors=stdout.errors)
    try:
        yield
    finally:
        own, _results = _results, None
        with contextlib.suppress(OSError):
            stdout.flush()
        try:
            own.flush()
        finally:
            os.dup2(kept, _STDOUT)
            with contextlib.suppress(OSError):
                own.close()


def _move_stdout(stdout: TextIO) -> int | None:
    """Points file descriptor 1 at the standard error and returns a copy of what it was; None where it is closed."""
    try:
        stdout.flush()
        kept = fcntl.fcntl(_STDOUT, fcntl.F_DUPFD_CLOEXEC, _ABOVE_STREAMS)
    except (OSError, ValueError):
        return None
    try:
        os.dup2(_STDERR, _STDOUT)
    except OSError:  # the standard error is closed
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, _STDOUT)
        os.close(nowhere)
    return kept


def _with_results_apart(function: _Function) -> _Function:
    @functools.wraps(function)
    def apart(*args: Any, **kwargs: Any) -> Any:
        with results_apart():
            return function(*args, **kwargs)

    return typing.cast("_Function", apart)


def build(config: type[Config], values: Mapping[str, Any]) -> Config:
    """Returns the config struct from what the command line gave; ConfigError names the option and its value."""
    names = [field.name for field in msgspec.structs.fields(config)]
    given = {name: values[name] for name in names}
    _refuse_secrets_on_line(config, given)
    try:
        return msgspec.convert(given, config)
    except msgspec.ValidationError as e:
        text = explain(e, given, config)
        name = text.partition(" ")[0]
        option = f"--{name.replace('_', '-')}" if name.partition("[")[0] in names else name
        raise ConfigError(f"{option}{text[len(name) :]}") from e


def _refuse_secrets_on_line(config: type[msgspec.Struct], given: Mapping[str, Any]) -> None:
    """Raises ConfigError for an address with a password among the arguments, which every user of the machine sees."""
    context = click.get_current_context(silent=True)
    for field in msgspec.structs.fields(config):
        _, meta = _unwrap(field.type)
        may_hold = bool(meta and (meta.extra or {}).get("may_hold_password"))
        if not (may_hold and context and context.get_parameter_source(field.name) is _LINE):
            continue
        if _holds_password(str(given[field.name])):
            name, by_file = field.name.replace("_", "-"), f"{field.name}_password_file" in config.__struct_fields__
            file = f"leave it out, and name a file that holds it by --{name}-password-file, or " if by_file else ""
            raise ConfigError(
                f"--{name}: a password on the command line is seen by every user of this machine (ps); {file}give the"
                f" address by the variable SHOAL_{field.name.upper()}"
            )


def _holds_password(address: str) -> bool:
    try:
        parts = urlsplit(address)
        # Behind the host, an @ is of a password with a slash, a hash or a question mark.
        beyond = f"{parts.path}{parts.query}{parts.fragment}"
        misplaced = parts.scheme != "unix" and "@" in beyond
        return bool(parts.password) or "password" in parse_qs(parts.query) or misplaced
    except ValueError:
        return "@" in address  # no address; what is in it shall not be seen all the same


def unless_given(context: click.Context, values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns those values whose options have their default: neither line, environment nor file gives another."""
    default = click.core.ParameterSource.DEFAULT
    return {name: value for name, value in values.items() if context.get_parameter_source(name) is default}


def run_settings(context: click.Context) -> dict[str, Any]:
    """Returns the run's sections ([algorithm], [replay], ...) of the `--config` file; empty without one."""
    tables: dict[str, Any] = context.meta.get(_TABLES, {})
    return tables


def main(command: click.Command, name: str) -> None:
    """Runs a command and ends the process with its exit code; a user's mistake shows one line and no traceback."""
    exit_process(run(command, name, sys.argv[1:]))


def run(command: click.Command, name: str, arguments: list[str]) -> int:
    """Runs a command and returns its exit code; a failure is also noted for the process that started this one."""
    note = FailureNote.from_environment()
    command.context_settings.setdefault("help_option_names", ["-h", "--help"])
    try:
        code = command.main(arguments, prog_name=name, standalone_mode=False)
    except click.exceptions.Exit as e:
        return e.exit_code
    except click.ClickException as e:
        context = getattr(e, "ctx", None)
        click.echo(f"{name}: {e.format_message()} (see {context.command_path if context else name} --help)", err=True)
        return BAD_USAGE if isinstance(e, click.UsageError) else FAILED
    except ShoalError as e:
        click.echo(f"{name}: {e}", err=True)
        note.append(str(e), lasting=isinstance(e, LastingError))
        return e.exit_code
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except (SystemExit, OSError) as e:
        code = FAILED
        if text := _final(e):
            click.echo(f"{name}: {text}", err=True)
            note.append(text, lasting=True)
        elif isinstance(e, OSError):
            note.append(traceback.format_exc(), lasting=False)
            raise
    except Exception:
        note.append(traceback.format_exc(), lasting=False)
        raise
    return code if isinstance(code, int) else 0


def _final(error: SystemExit | OSError) -> str:
    """Says of an error that no repetition can mend it; empty for any other."""
    if isinstance(error, SystemExit):
        if traceback.extract_tb(error.__traceback__)[-1].filename == click.core.__file__:
            return ""  # click ends a command whose output has been closed
        # Of an environment or a library: no command of ours ends by it. A code of 0 would look like success.
        frames = "".join(traceback.format_tb(error.__traceback__)[-2:]).rstrip()
        return f"foreign code called sys.exit({error.code!r})\n{frames}"
    if error.errno not in _NO_ROOM:
        return ""
    what = error.filename or "a file"
    return f"{what} cannot be written: {error.strerror}. Free disk space or fix the permissions."


def _option(field: msgspec.structs.FieldInfo) -> Callable[[_Function], _Function]:
    kind, meta = _unwrap(field.type)
    name = field.name.replace("_", "-")
    extra = (meta.extra or {}) if meta else {}
    settings: dict[str, Any] = {
        "envvar": f"SHOAL_{field.name.upper()}",
        "help": meta.description if meta else None,
        "show_default": field.default not in ("", 0, (), None),
        "hidden": bool(extra.get("hidden")),
    }
    if kind is bool:
        return click.option(f"--{name}", is_flag=True, default=field.default, **settings)
    settings["default"] = None if field.default is msgspec.NODEFAULT else field.default
    settings["required"] = field.required
    settings["type"], settings["multiple"] = _param_type(kind, extra)
    settings["metavar"] = extra.get("metavar")
    return click.option(f"--{name}", **settings)


def _param_type(kind: Any, extra: Mapping[str, Any]) -> tuple[Any, bool]:
    if "param" in extra:
        return extra["param"], False
    if typing.get_origin(kind) is typing.Literal:
        return click.Choice(list(typing.get_args(kind))), False
    if typing.get_origin(kind) is tuple:
        return _param_type(_unwrap(typing.get_args(kind)[0])[0], {})[0], True
    return {int: click.INT, float: click.FLOAT}.get(kind, click.STRING), False


def _unwrap(kind: Any) -> tuple[Any, Meta | None]:
    """Strips Annotated and `| None`, and merges what the Metas say for the command line."""
    meta: Meta | None = None
    while True:
        if typing.get_origin(kind) is Annotated:
            for found in kind.__metadata__:
                description = found.description or (meta.description if meta else None)
                meta = Meta(description=description, extra={**((meta and meta.extra) or {}), **(found.extra or {})})
            kind = kind.__origin__
        elif typing.get_origin(kind) in (types.UnionType, typing.Union):
            kind = next(choice for choice in typing.get_args(kind) if choice is not types.NoneType)
        else:
            return kind, meta


def _config_file_option(function: _Function) -> _Function:
    return click.option(
        "--config",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        envvar="SHOAL_CONFIG",
        is_eager=True,
        expose_value=False,
        callback=_read_config_file,
        help="TOML file: options by name (some_name = value), and the run's settings as [sections].",
    )(function)


def _read_config_file(context: click.Context, config_option: click.Parameter, path: Path | None) -> None:
    if path is None:
        return
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"--config {path}: {e}") from e
    known = {param.name: param for param in context.command.params if param.name and param is not config_option}
    values = {key: value for key, value in content.items() if not isinstance(value, dict)}
    for key, value in values.items():
        if key not in known:
            hint = suggest(key, sorted(known))
            raise ConfigError(f"--config {path}: {key} is not an option of {context.info_name}; {hint}")
        _check_type(known[key], value, f"--config {path}: {key}")
    tables = {key: value for key, value in content.items() if isinstance(value, dict)}
    if tables and not _takes_run_settings(context.command):
        raise ConfigError(f"--config {path}: [{next(iter(tables))}]: {context.info_name} has no sections, only options")
    context.meta[_TABLES] = tables
    context.default_map = {**(context.default_map or {}), **values}


def _check_type(option: click.Parameter, value: Any, where: str) -> None:
    """Refuses what click would silently convert: 2.5 to 2, true to 1, a number to a text."""
    if option.multiple and not isinstance(value, list):
        raise ConfigError(f"{where} = {value!r}: expected a list, as in [...]")
    values = value if option.multiple else [value]
    allowed, name = _TOML_TYPES.get(type(option.type), ((str,), "text in quotes"))
    for one in values:
        if type(one) not in allowed:
            raise ConfigError(f"{where} = {one!r}: expected {name}")


def _takes_run_settings(command: click.Command) -> bool:
    return any(param.name == "set" for param in command.params)
