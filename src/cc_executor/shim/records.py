"""The record format between a shim and everybody else: file names, the sparse index, the control records, the commands.

This module is the one owner of the format; `cc_executor.store.journal` reads it and `cc_executor.runtime` speaks it. Standard library only.

A run's folder (0700, files 0600)
---------------------------------
request.json   the request, written by the launcher
prompt         the bytes for the agent's stdin, written by the launcher
stdout stderr  the agent's output, byte for byte (named secrets masked)
index          sparse index over both streams: `INDEX` structs
control.jsonl  control records, one JSON object a line: `seq` (from 0, no gap), `t` (seconds since the shim started), `at` (epoch), `kind`, fields
               The kinds and fields are those of `cc_executor.model.event`'s `ControlRecord`s.
exit.json      `EXIT_FIELDS`, complete before the `exited` record is written
lock           held (flock) by the shim for as long as it lives
control.sock   the commands: one JSON object a line in, one a line out
shim.log       what the shim has to say about itself; empty in a normal run
receipt.json   sealed by the reader that follows the run to its end

Launch: the spec goes to the shim's stdin as one JSON object (see `SPEC_FIELDS`), the answer comes on its stdout as one line,
``{"ok": true, "agent_pid": 1, "shim_pid": 2}`` or ``{"ok": false, "error": "…", "errno": 2}``.

Commands: ``{"op": "status"|"pause"|"resume"|"cancel"|"stdin"|"answer"|"follow", "by": "cell", …}``; `cancel` takes `reason`, `stdin` takes `data` (text)
and `close`, `answer` takes `ask` (the question's id), `data` (the one line for the agent) and, for the record, `what`, `decision` and `note`. `pause` and
`resume` may take `pauses`, how often the run had been paused when somebody wanted it: if it was paused since, they came late or twice and change nothing.
Every answer is a status object (`STATUS_FIELDS`) with ``"ok": true``, or ``{"ok": false, "error": "…"}``. After `follow` the connection only
carries status objects: one at once, then whenever something was written or the state changed, at most every `NUDGE_INTERVAL`; end of file means that the shim is gone.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False  # type checkers take it for True; importing `typing` costs 4 ms of every shim's start
if TYPE_CHECKING:
    from typing import Final

FORMAT_VERSION: Final = 1

REQUEST: Final = "request.json"
PROMPT: Final = "prompt"
STDOUT: Final = "stdout"
STDERR: Final = "stderr"
INDEX_FILE: Final = "index"
CONTROL: Final = "control.jsonl"
EXIT: Final = "exit.json"
EXIT_PART: Final = EXIT + ".part"  # becomes exit.json by a rename; until then, room that is set aside for it
LOCK: Final = "lock"
SOCKET: Final = "control.sock"
LOG: Final = "shim.log"
RECEIPT: Final = "receipt.json"
STREAMS: Final = (STDOUT, STDERR)

# Every process of a run carries this variable, so that leftovers of a killed shim can be told from everybody else's processes.
RUN_MARK: Final = "CC_EXECUTOR_RUN"

INDEX: Final = struct.Struct("<QdIB3x")  # offset of the block's first byte, t, running number of the entry, stream (0 stdout, 1 stderr)
INDEX_EVERY_BYTES: Final = 64 * 1024
INDEX_EVERY_SECONDS: Final = 0.02

NUDGE_INTERVAL: Final = 0.015  # seconds; a reader shows at most 25 frames a second, so this adds no visible delay

SPEC_FIELDS: Final = (
    "version",  # FORMAT_VERSION
    "run_dir",  # absolute; exists, 0700
    "run_id",
    "argv",  # list of str; argv[0] absolute
    "env",  # dict; the whole environment of the agent; never written to disk
    "cwd",
    # "prompt": the file; "none": /dev/null; "open": a pipe fed by the `stdin` command; "talk": the file's content in a pipe that stays open for `answer`
    # until the agent's last word
    "stdin",
    "wall",  # seconds or null
    "stall",  # seconds or null
    "lease_pid",  # pid of the process that wants the run, or null
    "on_lease_end",  # "cancel" or "continue"
    "secrets",  # list of str: values to mask
    "keep_background",  # bool
)
# A field that may be missing, or null. `linger`: {"done": list of str, "anew": list of str, "seconds": number}: the run is ended when for so long after a line
# of stdout that begins with one of `done` nothing else has come there. One that begins with one of `anew` takes it back: the agent works on.
SPEC_LINGER: Final = "linger"
# Another one: list of str, beginnings of lines of stdout that are no sign of life, so that the stall limit counts on.
SPEC_QUIET: Final = "quiet"
# Another one: bytes that are kept of both streams together at most, or null. Standard error gets a quarter of them. Beyond that a stream's end is kept.
SPEC_JOURNAL_LIMIT: Final = "journal_limit"
# Another one: {"asked": list of str, "withdrawn": list of str}, beginnings of lines of stdout that end where a question's id begins. With it stdin is "talk".
SPEC_TALK: Final = "talk"
# Another one: seconds for which an agent that is started now waits for a run, or null. The spec of the run is the next line; it has the same command,
# environment and folder, a stdin of "talk", and no `hold`.
SPEC_HOLD: Final = "hold"

EXIT_FIELDS: Final = (
    "version", "run_id", "code", "signal", "stop_reason", "started_at", "ended_at",  # epoch seconds
    "elapsed", "active", "paused", "frozen",  # seconds
    "written", "dropped", "masked",  # dicts by stream name: bytes, bytes, replacements
    "records",  # number of control records, the exit record included
    "left_behind", "kept", "survivors", "cpu", "max_rss",  # list of {pid, command}, bool, int, seconds, bytes
    "oom_kills",  # processes of the control group that the system ended for want of memory meanwhile
    "host",
)  # fmt: skip

STATUS_FIELDS: Final = (
    "ok", "state",  # running, paused, stopping, exited
    "agent_pid", "active", "paused", "asks", "processes",  # `asks`: ids of the questions that wait for an answer
    "written", "durable",  # dicts by file name (stdout, stderr, control.jsonl): bytes
)  # fmt: skip
