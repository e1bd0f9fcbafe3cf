"""Command lines: a frozen config struct becomes options, environment variables and keys of a TOML file.

Each field is one option `--some-name`, one variable `SHOAL_SOME_NAME` and one TOML key `some_name`. Command line,
environment, file and default are searched in this order for a value. Types, bounds and help texts come from the struct.
Only the cli modules import this module; nothing below them reads argv or the environment.
"""

from __future__ import annotations

import contextlib
import errno
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
from common.process.children.failure_note import FailureNote
from common.process.durations import Duration
from common.process.exit import BAD_USAGE, FAILED, INTERRUPTED, exit_process
from common.run.validation_errors import explain, shorten, suggest

Config = TypeVar("Config", bound=msgspec.Struct)
_Function = TypeVar("_Function", bound=Callable[..., Any])
_STDOUT, _STDERR, _MIN_DUPLICATE = 1, 2, 3
"""File descriptors; a duplicate must not take the number of a standard stream that is closed."""
_results: TextIO | None = None
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Errors of a write that a retry cannot fix until the user changes the disk."""
_COMMAND_LINE = click.core.ParameterSource.COMMANDLINE
_TABLES = "shoal.tables"
_TOML_TYPES: dict[type[click.ParamType[Any]], tuple[tuple[type, ...], str]] = {
    type(click.INT): ((int,), "a whole number"),
    type(click.FLOAT): ((int, float), "a number"),
    type(click.BOOL): ((bool,), "true or false"),
    Duration: ((int, float, str), 'seconds, or a text as in "5m"'),
}
"""Allowed TOML types of each option type; all other options take text."""


def options(*configs: type[msgspec.Struct]) -> Callable[[_Function], _Function]:
    """Decorates a command with an option for each field of the config structs, and with `--config FILE`."""

    def decorate(function: _Function) -> _Function:
        for field in reversed([field for config in configs for field in msgspec.structs.fields(config)]):
            function = _option(field)(function)
        return _config_file_option(_with_separate_results(function))

    return decorate


def results() -> TextIO:
    """Returns the stream for a command's results, for printers of tables; `result` prints a text to it.

    It is the standard output that the process was started with.
    """
    return _results or sys.stdout


def result(text: str | bytes, *, nl: bool = True) -> None:
    """Prints one text, such as a line or a JSON document, to the stream `results()`."""
    click.echo(text, file=_results, nl=nl)


@contextlib.contextmanager
def separate_results() -> Iterator[None]:
    """Redirects file descriptor 1 to the standard error, so that only results reach the standard output.

    Everything that an environment prints is redirected: from Python, from C and from child processes. The function has
    no effect if the standard output is closed or replaced by another object.
    """
    global _results  # noqa: PLW0603  (a process has one standard output)
    stdout = sys.stdout
    is_original = _results is None and stdout is not None and id(stdout) == id(sys.__stdout__)
    saved = _move_stdout(stdout) if is_original else None
    if saved is None:
        yield
        return
    _results = os.fdopen(saved, "w", encoding=stdout.encoding, errors=stdout.errors)
    try:
        yield
    finally:
        stream, _results = _results, None
        with contextlib.suppress(OSError):
            stdout.flush()
        try:
            stream.flush()
        finally:
            os.dup2(saved, _STDOUT)
            with contextlib.suppress(OSError):
                stream.close()


def _move_stdout(stdout: TextIO) -> int | None:
    """Redirects file descriptor 1 to the standard error and returns a duplicate of it; None if it is closed."""
    try:
        stdout.flush()
        saved = _duplicate(_STDOUT)
    except (OSError, ValueError):
        return None
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        # Python makes no stream of a standard error that is closed at its start. A library may own that number since.
        os.dup2(null if sys.__stderr__ is None else _STDERR, _STDOUT)
    except OSError:  # the standard error was closed later
        os.dup2(null, _STDOUT)
    finally:
        os.close(null)
    return saved


def _duplicate(descriptor: int) -> int:
    """Returns a duplicate of a file descriptor with a number of at least _MIN_DUPLICATE, not inherited by children."""
    duplicate = os.dup(descriptor)
    if duplicate >= _MIN_DUPLICATE:
        return duplicate
    # Occupied until the next call returns: os.dup takes the lowest free number.
    try:
        return _duplicate(descriptor)
    finally:
        os.close(duplicate)


def _with_separate_results(function: _Function) -> _Function:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        with separate_results():
            return function(*args, **kwargs)

    return typing.cast("_Function", wrapper)


def build(config: type[Config], values: Mapping[str, Any]) -> Config:
    """Returns the config struct of a command line's values; ConfigError names the option and its value."""
    names = [field.name for field in msgspec.structs.fields(config)]
    given = {name: values[name] for name in names}
    _refuse_secrets_on_command_line(config, given)
    try:
        return msgspec.convert(given, config)
    except msgspec.ValidationError as e:
        text = explain(e, given, config)
        name = text.partition(" ")[0]
        option = f"--{name.replace('_', '-')}" if name.partition("[")[0] in names else name
        raise ConfigError(f"{option}{text[len(name) :]}") from e


def _refuse_secrets_on_command_line(config: type[msgspec.Struct], given: Mapping[str, Any]) -> None:
    """Raises ConfigError for a password in an argument's address, because every user of the machine can see it."""
    context = click.get_current_context(silent=True)
    for field in msgspec.structs.fields(config):
        _, meta = _unwrap(field.type)
        may_contain = bool(meta and (meta.extra or {}).get("may_hold_password"))
        if not (may_contain and context and context.get_parameter_source(field.name) is _COMMAND_LINE):
            continue
        if _contains_password(str(given[field.name])):
            name, by_file = field.name.replace("_", "-"), f"{field.name}_password_file" in config.__struct_fields__
            file = f"Omit it and pass a file that contains it with --{name}-password-file, or set" if by_file else "Set"
            raise ConfigError(
                f"--{name}: every user of this machine can see a password on the command line (ps). {file} the address"
                f" in the variable SHOAL_{field.name.upper()}."
            )


def _contains_password(address: str) -> bool:
    try:
        parts = urlsplit(address)
        # Behind the host, an @ belongs to a password that contains a slash, a hash or a question mark.
        behind_host = f"{parts.path}{parts.query}{parts.fragment}"
        misplaced = parts.scheme != "unix" and "@" in behind_host
        return bool(parts.password) or "password" in parse_qs(parts.query) or misplaced
    except ValueError:
        return "@" in address  # a malformed address may contain a password, too


def unless_given(context: click.Context, values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns those values whose options have their default: no command line, environment or file sets them."""
    default = click.core.ParameterSource.DEFAULT
    return {name: value for name, value in values.items() if context.get_parameter_source(name) is default}


def run_settings(context: click.Context) -> dict[str, Any]:
    """Returns the sections of run settings ([algorithm], [replay], ...) in the `--config` file; empty without one."""
    tables: dict[str, Any] = context.meta.get(_TABLES, {})
    return tables


def main(command: click.Command, name: str) -> None:
    """Runs a command and exits with its exit code; an error of the user prints one line and no traceback."""
    exit_process(run(command, name, sys.argv[1:]))


def run(command: click.Command, name: str, arguments: list[str]) -> int:
    """Runs a command and returns its exit code; a failure is also reported to the parent process (FailureNote)."""
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
        if text := _lasting_error(e):
            click.echo(f"{name}: {text}", err=True)
            note.append(text, lasting=True)
        elif isinstance(e, OSError):
            note.append(traceback.format_exc(), lasting=False)
            raise
    except Exception:
        note.append(traceback.format_exc(), lasting=False)
        raise
    return code if isinstance(code, int) else 0


def _lasting_error(error: SystemExit | OSError) -> str:
    """Returns the message of an error that a retry cannot fix; empty for any other error."""
    if isinstance(error, SystemExit):
        if traceback.extract_tb(error.__traceback__)[-1].filename == click.core.__file__:
            return ""  # click ends a command whose output was closed
        # Shoal's commands never call sys.exit, so an environment or a library did. Its code 0 would look like success.
        frames = "".join(traceback.format_tb(error.__traceback__)[-2:]).rstrip()
        return f"the environment or a library called sys.exit({error.code!r}); raise an exception instead:\n{frames}"
    if error.errno not in _DISK_ERRORS:
        return ""
    path = error.filename or "a file"
    return f"{path} cannot be written: {error.strerror}. Free disk space or fix the permissions."


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
    """Strips Annotated and `| None`, and merges the Metas' descriptions and extras."""
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
        help="TOML file with options by name (some_name = value) and the run's settings as [sections].",
    )(function)


def _read_config_file(context: click.Context, config_option: click.Parameter, path: Path | None) -> None:
    if path is None:
        return
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"--config {path} cannot be read: {e}. Pass a TOML file in UTF-8.") from e
    known = {param.name: param for param in context.command.params if param.name and param is not config_option}
    values = {key: value for key, value in content.items() if not isinstance(value, dict)}
    for key, value in values.items():
        if key not in known:
            hint = suggest(key, sorted(known))
            raise ConfigError(f"--config {path}: {shorten(key)} is not an option of {context.info_name}; {hint}")
        _check_type(known[key], value, f"--config {path}: {key}")
    tables = {key: value for key, value in content.items() if isinstance(value, dict)}
    if tables and not _takes_run_settings(context.command):
        raise ConfigError(
            f"--config {path}: [{shorten(next(iter(tables)))}]: {context.info_name} has no sections, only options."
            " Remove the section."
        )
    context.meta[_TABLES] = tables
    context.default_map = {**(context.default_map or {}), **values}


def _check_type(option: click.Parameter, value: Any, where: str) -> None:
    """Raises ConfigError for values that click would silently convert: 2.5 to 2, true to 1, a number to a text."""
    if option.multiple and not isinstance(value, list):
        raise ConfigError(f"{where} = {shorten(repr(value))}: expected a list, as in [...].")
    values = value if option.multiple else [value]
    allowed, name = _TOML_TYPES.get(type(option.type), ((str,), "text in quotes"))
    for one in values:
        if type(one) not in allowed:
            raise ConfigError(f"{where} = {shorten(repr(one))}: expected {name}.")


def _takes_run_settings(command: click.Command) -> bool:
    return any(param.name == "set" for param in command.params)
