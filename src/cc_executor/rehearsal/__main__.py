"""``python -P -m cc_executor.rehearsal --script NAME_OR_PATH [options] -- CLAUDE ARGV…``: the real CLI, and the scripted model in the process above it.

This process is the argv of a rehearsed run, so the model lives, stands still and dies with the run's own process tree. ``-P`` (or ``-I``) is part of
it: the current folder is the agent's, and a module that lies there must not be loaded here. The port is opened and the CLI started first; the
server's modules are loaded while the CLI loads its own, so that a rehearsed run starts hardly later than a real one.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final, TextIO

from cc_executor.errors import InvalidRequest
from cc_executor.rehearsal import scripts
from cc_executor.rehearsal.loopback import API_KEY, open_listener, url_of

if TYPE_CHECKING:
    from types import FrameType

    from cc_executor.rehearsal.server import LoggedRequest, RehearsalServer

USAGE_ERROR: Final = 2
NOT_EXECUTABLE: Final = 126  # as in a shell
NOT_FOUND: Final = 127
FORWARDED: Final = (signal.SIGTERM, signal.SIGHUP)
PACE_LIMIT: Final = 100.0
END_BUDGET: Final = 5.0  # seconds for the CLI to end its tools, should the server fail
# Settings have an environment, too, and it goes before that of the process: a gateway that they name would be asked, and paid. With this variable the CLI
# leaves out of all settings what says whom to ask (2.1.197 and 2.1.330). Not for every rehearsal: a refused key is then tried once only.
HOSTED: Final = "CLAUDE_CODE_PROVIDER_MANAGED_BY_HOST"
NO_FOLDER_SETTINGS: Final = "--setting-sources=user"  # the option without which it reads the folder's
# The machine's are read in any case.
MACHINE_SETTINGS: Final = Path("/Library/Application Support/ClaudeCode" if sys.platform == "darwin" else "/etc/claude-code")
REQUEST_LOG_LIMIT: Final = 10_000  # lines
PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h

# Everything that could name a login, another endpoint or somebody's configuration: the CLI knows more than 60 such variables (2.1.329), so whole
# families go, and what tunes a run without any of this stays.
DROPPED: Final = re.compile(r"(?:ANTHROPIC|CLAUDE).*|(?:HTTPS?|ALL|FTP)_PROXY", re.IGNORECASE)
KEPT: Final = frozenset(
    {
        "CLAUDE_CODE_DISABLE_NONSTREAMING_FALLBACK",
        "CLAUDE_CODE_EMIT_SESSION_STATE_EVENTS",
        "CLAUDE_CODE_MAX_OUTPUT_TOKENS",
        "CLAUDE_CODE_MAX_RETRIES",
        "CLAUDE_CODE_PRINT_BG_WAIT_CEILING_MS",
        "CLAUDE_CODE_SHELL",
        "CLAUDE_STREAM_IDLE_TIMEOUT_MS",
    }
)


def environment(outside: Mapping[str, str], *, url: str, key: str, config_dir: str) -> dict[str, str]:
    """The environment of a rehearsed CLI: `outside` without anybody's login, endpoint, proxy or configuration, and with the rehearsal's own."""
    inside = {name: value for name, value in outside.items() if name in KEPT or not DROPPED.fullmatch(name)}
    return inside | {
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_API_KEY": key,
        "CLAUDE_CONFIG_DIR": config_dir,
        "CLAUDE_CODE_TMPDIR": config_dir,  # else every run leaves folders below /tmp/claude-<uid>
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
        "DISABLE_TELEMETRY": "1",
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the wrapper; the value is the exit code: the CLI's own, 128 + n if signal n ended it, 2 for a wrong call."""
    options, command = _arguments(sys.argv[1:] if argv is None else list(argv))
    if options.list:
        for name in scripts.names():
            print(f"{name:18} {scripts.load(name).description}")
        return 0
    try:
        script = scripts.load(options.script)
    except InvalidRequest as error:
        print(error, file=sys.stderr)
        return USAGE_ERROR
    with ExitStack() as stack:
        # Errors of the clean-up are ignored: a process that the CLI left behind may still write there.
        config_dir: str = options.config_dir or stack.enter_context(
            TemporaryDirectory(prefix="cc-executor-rehearsal-", ignore_cleanup_errors=True)
        )
        try:
            Path(config_dir).mkdir(mode=0o700, parents=True, exist_ok=True)
            log = stack.enter_context(open(options.request_log, "a", encoding="utf-8")) if options.request_log else None
        except OSError as error:
            print(f"{error.filename}: {error.strerror}", file=sys.stderr)
            return USAGE_ERROR
        return _run(command, script, config_dir=os.path.abspath(config_dir), log=log, pace=options.pace)


def _arguments(argv: list[str]) -> tuple[Namespace, list[str]]:
    parser = ArgumentParser(
        prog="python -P -m cc_executor.rehearsal",
        usage="%(prog)s --script NAME_OR_PATH [--request-log FILE] [--config-dir FOLDER] [--pace FACTOR] -- CLAUDE ARGV…",
        description="Run the real Claude Code CLI against a scripted model on loopback: no login, no network, no cost.",
        allow_abbrev=False,
    )
    parser.add_argument("--script", metavar="NAME_OR_PATH", help="a shipped script (see --list) or a TOML file")
    parser.add_argument("--request-log", metavar="FILE", help="append one JSON line per request; holds no texts and no keys")
    parser.add_argument("--config-dir", metavar="FOLDER", help="the CLI's configuration folder; default: a new one, removed at the end")
    parser.add_argument("--pace", type=_pace, default=1.0, metavar="FACTOR", help="factor for the script's delays; 0: none")
    parser.add_argument("--list", action="store_true", help="print the shipped scripts and end")
    cut = argv.index("--") if "--" in argv else len(argv)
    options, command = parser.parse_args(argv[:cut]), argv[cut + 1 :]
    if not options.list and (not options.script or not command):
        parser.error("--script and, after --, the CLI's own command line are needed")
    return options, command


def _pace(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= PACE_LIMIT:
        raise ArgumentTypeError(f"{text} is not a number from 0 to {PACE_LIMIT:g}")
    return value


def _run(command: list[str], script: scripts.Script, *, config_dir: str, log: TextIO | None, pace: float) -> int:
    listener = open_listener()
    child: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def forward(number: int, _: FrameType | None) -> None:
        if child is None:
            early.append(number)
        else:
            child.send_signal(number)

    # SIGINT reaches the CLI by itself: a terminal, and whoever stops a run, signals the whole group. A handler and not SIG_IGN, which a child inherits.
    signal.signal(signal.SIGINT, _ignore)
    for number in FORWARDED:
        signal.signal(number, forward)
    inside = environment(os.environ, url=url_of(listener), key=API_KEY, config_dir=config_dir)
    if NO_FOLDER_SETTINGS not in command or MACHINE_SETTINGS.exists():
        inside[HOSTED] = "1"
    try:
        child = subprocess.Popen(
            command,
            env=inside,
            preexec_fn=_die_with_me(),  # noqa: PLW1509 - there is one thread here; nothing else sets a parent-death signal
        )
    except OSError as error:
        listener.close()
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
    for number in early:
        child.send_signal(number)
    try:
        import anyio  # here, and not above: this work is done while the CLI starts

        from cc_executor.rehearsal.server import RehearsalServer

        server = RehearsalServer(script, pace=pace, log=_writer(log), listener=listener)
        code = anyio.run(_accompany, child, server)
    finally:
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(END_BUDGET)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
    return code if code >= 0 else 128 - code


async def _accompany(child: subprocess.Popen[bytes], server: RehearsalServer) -> int:
    """Serve for as long as `child` lives; the value is its return code."""
    import anyio

    with anyio.open_signal_receiver(signal.SIGCHLD) as signals:
        async with server:
            code = child.poll()  # it may have ended before the receiver was there
            while code is None:
                await anext(signals)
                code = child.poll()
    return code


def _writer(log: TextIO | None) -> Callable[[LoggedRequest], None] | None:
    if log is None:
        return None
    import msgspec

    def write(entry: LoggedRequest) -> None:
        if entry.number > REQUEST_LOG_LIMIT:
            return
        with suppress(OSError):  # a full disk ends the log, not the run
            log.write(msgspec.json.encode(entry).decode() + "\n")
            log.flush()

    return write


def _ignore(number: int, frame: FrameType | None) -> None:
    pass


def _die_with_me() -> Callable[[], None] | None:
    """For the child, before it executes: SIGTERM, on which the CLI ends its tools, when this process is gone, however it went. Linux only."""
    if sys.platform != "linux":
        return None
    import ctypes

    prctl = ctypes.CDLL(None).prctl
    me = os.getpid()

    def apply() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != me:
            os.kill(os.getpid(), signal.SIGTERM)

    return apply


if __name__ == "__main__":
    sys.exit(main())
