"""Groups that load the room of a command when it is called, and not before: whoever waits at a terminal for one does not wait for all others.

Knows the shape of the table of the commands; what is listed of them stands there, so that a list loads none.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any, ClassVar, Final, NamedTuple, TypeVar, cast

import typer
import typer.main
from typer.core import TyperCommand, TyperGroup

from cc_executor.cli.signals import leave

Function = TypeVar("Function", bound=Callable[..., Any])

_EXIT_CODES: Final[dict[Callable[..., Any], str]] = {}


class Row(NamedTuple):
    """A command, or a group of some; a group that does something by itself is both.

    `help`: what a list says, the first sentence of the docstring. `place`: module and function. `example`: a call, without the program's name.
    """

    help: str
    place: str = ""
    example: str = ""


def exits_with(codes: str) -> Callable[[Function], Function]:
    """Say at the end of a command's help what its exit codes mean."""

    def keep(function: Function) -> Function:
        _EXIT_CODES[function] = codes
        return function

    return keep


class Commands(Mapping[str, Any]):
    """The commands and groups of `table` whose names begin with that of `group`, each made when it is asked for."""

    def __init__(self, group: str, table: Mapping[str, Row], kind: type[TyperGroup]) -> None:
        self._kind = kind
        self._rows = {name.rpartition(" ")[2]: row for name, row in table.items() if name.rpartition(" ")[0] == group}
        self._groups = {name.partition(" ")[0] for name in table if " " in name} if not group else set[str]()
        self._made: dict[str, Any] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    def __getitem__(self, name: str) -> Any:
        row = self._rows[name]
        if name not in self._made:
            self._made[name] = _group(name, row, self._kind) if name in self._groups else _command(name, row)
        return self._made[name]

    def listed(self) -> dict[str, TyperCommand]:
        """As much of each as a list shows."""
        return {name: TyperCommand(name, help=row.help) for name, row in self._rows.items()}


class Group(TyperGroup):
    """A group whose commands are in `table`, by their whole names and in the order of the help."""

    table: ClassVar[Mapping[str, Row]]

    def __init__(self, *, name: str = "", commands: object = None, **settings: Any) -> None:
        del commands  # those that were registered: there are none
        super().__init__(name=name, **settings)
        self._commands = Commands(name, self.table, type(self))
        self.commands = cast("Any", self._commands)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command, loaded; None if there is none of this name."""
        del ctx
        if cmd_name not in self.commands:
            return None
        return self.commands[cmd_name]  # and not `get`: a KeyError while a room is loaded is no wrong name

    def list_commands(self, ctx: Any) -> list[str]:
        """The names."""
        del ctx
        return list(self.commands)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list that ends a group's help."""
        with self._listed():
            super().format_commands(ctx, formatter)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """What a shell can put there."""
        with self._listed():
            return super().shell_complete(ctx, incomplete)

    @contextmanager
    def _listed(self) -> Generator[None]:
        self.commands = cast("Any", self._commands.listed())
        try:
            yield
        finally:
            self.commands = cast("Any", self._commands)


def _command(name: str, row: Row) -> Any:
    function = _loaded(row.place)
    one = typer.Typer(add_completion=False, rich_markup_mode=None)
    one.command(name, epilog=_epilog(row, function))(function)
    return typer.main.get_command(one)


def _group(name: str, row: Row, kind: type[TyperGroup]) -> Any:
    function = _loaded(row.place) if row.place else None
    return typer.main.get_group(
        typer.Typer(
            name=name,
            cls=kind,
            help=row.help,
            epilog=_epilog(row, function) if function else None,
            callback=function,
            invoke_without_command=function is not None,
            no_args_is_help=function is None,
            add_completion=False,
            rich_markup_mode=None,
        )
    )


def _loaded(place: str) -> Callable[..., Any]:
    room, _, name = place.partition(":")
    function = getattr(import_module(f"cc_executor.cli.{room}"), name)
    if signal.getsignal(signal.SIGINT) is leave:  # from here on there is something to answer Ctrl-C
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return function


def _epilog(row: Row, function: Callable[..., Any]) -> str:
    example = f"Example: `cc-executor {row.example}`"
    codes = _EXIT_CODES.get(function)
    return f"{example}\n\nExit codes: {codes}." if codes else example
