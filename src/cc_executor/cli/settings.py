"""What can be set, and who has set it: the tables of the other doors, the environment, and configuration files as Jupyter reads them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from traitlets import HasTraits, TraitType
from traitlets.config.loader import ConfigFileNotFound, JSONFileConfigLoader, LazyConfigValue, PyFileConfigLoader

from cc_executor.cli.kept import hint
from cc_executor.kernel.config import PREFIX, CCExecutor, from_environment
from cc_executor.model.ansi import clean
from cc_executor.model.notify import shown
from cc_executor.server.settings import ServerSettings
from cc_executor.store.place import NOTIFY_SECRET, REDIS_VARIABLE, STATE_VARIABLE, state_path

DEFAULT: Final = "default"
_HIDDEN: Final = "(set)"  # an address may hold a password


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting. `source`: ``default``, ``environment`` or ``file``; `where` is the variable or the file that says it."""

    name: str
    value: Any
    source: str
    where: str = ""
    help: str = ""


def settings() -> Iterator[Setting]:
    """Every setting, by name.

    Raises
    ------
    InvalidRequest
        A variable's value does not fit.
    """
    for name, default, help_text in (
        (STATE_VARIABLE, str(state_path(os.environ)), "The folder that keeps the runs."),
        (REDIS_VARIABLE, None, "The address of a history that machines share."),
        (NOTIFY_SECRET, None, "By which messages to webhooks are signed."),
    ):
        if os.environ.get(name):
            yield Setting(name=name, value=default or _HIDDEN, source="environment", where=name, help=help_text)
        else:
            yield Setting(name=name, value=default, source=DEFAULT, help=help_text)
    given = from_environment(os.environ)
    notebooks = _in_files("CCExecutor", ("ipython_config", "ipython_kernel_config"), _ipython_folders())
    yield from _of(CCExecutor, "CCExecutor", given, notebooks)
    if find_spec("jupyter_server") is None:
        return
    from jupyter_core.paths import jupyter_config_path

    servers = _in_files("CCExecutorServer", ("jupyter_config", "jupyter_server_config"), jupyter_config_path())
    yield from _of(ServerSettings, "CCExecutorServer", {}, servers)


def _of(owner: type[HasTraits], section: str, environment: dict[str, Any], files: dict[str, tuple[Any, str]]) -> Iterator[Setting]:
    """The settings of ours that a class has, as `section` of a configuration file; a file wins over the environment."""
    inherited = {name for base in owner.__mro__ if base.__module__.partition(".")[0] != __name__.partition(".")[0] for name in vars(base)}
    traits: dict[str, TraitType[Any, Any]] = owner.class_traits(config=True)
    bare = owner()  # some defaults depend on the machine
    for name, trait in sorted(traits.items()):
        if name in inherited:
            continue
        value, source, where = getattr(bare, name), DEFAULT, ""
        if name in environment:
            value, source, where = environment[name], "environment", PREFIX + name.upper()
        if name in files:
            (value, where), source = files[name], "file"
            if isinstance(value, LazyConfigValue):  # `c.CCExecutor.tools.append(…)`
                value = value.get_value(getattr(bare, name))
        if name == "notify":
            value = [shown(str(target)) for target in value]  # an address may hold a password here, too
        yield Setting(name=f"{section}.{name}", value=value, source=source, where=where, help=str(trait.help))


def _ipython_folders() -> list[str]:
    """Where IPython looks for its configuration, what wins first (IPython 9: `BaseIPythonApplication.init_config_files`)."""
    own = os.environ.get("IPYTHONDIR") or os.path.expanduser("~/.ipython")
    return [f"{own}/profile_default", f"{sys.prefix}/etc/ipython", "/usr/local/etc/ipython", "/etc/ipython"]


def _in_files(section: str, names: Sequence[str], folders: Sequence[str]) -> dict[str, tuple[Any, str]]:
    """What the configuration files say of a class: value and file, by setting. `folders`: what wins first."""
    found: dict[str, tuple[Any, str]] = {}
    for folder in reversed(folders):
        for name in names:
            for loader, suffix in ((PyFileConfigLoader, ".py"), (JSONFileConfigLoader, ".json")):
                path = Path(folder, name + suffix)
                try:
                    config: Any = loader(path.name, path=folder).load_config()
                except ConfigFileNotFound:
                    continue
                except Exception as error:  # noqa: BLE001 - such a file is a program of the user's, and may raise anything
                    hint(f"{path} cannot be read ({type(error).__name__}: {clean(str(error))}): mend it, Jupyter cannot read it either.")
                    continue
                for setting, value in config.get(section, {}).items():
                    found[setting] = (value, str(path))
    return found
