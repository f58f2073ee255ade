"""What somebody wants run, whole and frozen. Knows its own validity; knows no agent, no file system, no environment."""

from __future__ import annotations

import hashlib
import json
import math
from enum import StrEnum
from typing import Any, Final, NewType, Self, cast

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cc_executor.model.care import LoopGuard

RunId = NewType("RunId", str)

# The Claude CLI refuses more than 10 MB on stdin (2.1.197: "stdin exceeds 10 MB", recordings 07g-*); refused here before anything is spent.
PROMPT_LIMIT: Final = 10_000_000
# Characters: 160,000 bytes at most, so fewer tokens than any model takes. Tokens are counted in longer prompts only (`cc_executor.policy.tokens`).
SURELY_FITS: Final = 40_000


class OnKernelExit(StrEnum):
    """What becomes of the run when the process that started it is gone."""

    CANCEL = "cancel"
    CONTINUE = "continue"


# Seconds. 2.1.197 ends what it left in the background 5 s after its last word, 2.1.329 waits 600 s for it: long enough for a command that ends soon, and no
# ten minutes of a cell for a server that never will.
LINGER: Final = 60.0

# Seconds without output and without a running tool. An agent that thinks or throttles says so every few seconds; one that hangs would do so for ever.
STALL: Final = 600.0

# Bytes. Far more than anybody reads, and less than most disks have left: an endless `yes` in a run that nobody looks at fills a disk in minutes.
JOURNAL: Final = 20 * 10**9
JOURNAL_LEAST: Final = 10**6  # a closing statement has to fit


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Limits(_Frozen):
    """Bounds of a run; None means none.

    Attributes
    ----------
    wall : float or None
        Seconds from start to end; stands still while the run is paused or the machine sleeps.
    stall : float or None
        Seconds without a sign of life (output, or a running tool).
    cost : float or None
        US dollars, enforced by the agent after each model answer.
    turns : int or None
        Agent turns.
    linger : float
        Seconds that an agent may stay after its last word, for what it left running in the background; without output, and without a pause.
    journal : int or None
        Bytes of output that are kept, standard error with at most a quarter of them. Of a longer stream the beginning and the end are kept and the rest is
        counted. It stops nothing and decides no result, so it is no part of a request's digest.

    Raises
    ------
    ValueError
        A bound that bounds nothing; pydantic's `ValidationError`, which says what it must be.
    """

    wall: float | None = None
    stall: float | None = None
    cost: float | None = None
    turns: int | None = None
    linger: float = LINGER
    journal: int | None = JOURNAL

    @field_validator("journal")
    @classmethod
    def _holds_an_end(cls, value: int | None) -> int | None:
        if value is not None and value < JOURNAL_LEAST:
            raise ValueError(f"must be {JOURNAL_LEAST // 10**6} MB or more; none is no limit")
        return value

    @field_validator("linger")
    @classmethod
    def _bounded(cls, value: float) -> float:
        if not (math.isfinite(value) and value > 0):
            raise ValueError("must be a number of seconds greater than 0")
        return value

    @field_validator("wall", "stall", "cost")
    @classmethod
    def _positive(cls, value: float | None) -> float | None:
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ValueError("must be a number greater than 0; leave it out for no limit")
        return value

    @field_validator("turns")
    @classmethod
    def _at_least_one(cls, value: int | None) -> int | None:
        if value is not None and value < 1:
            raise ValueError("must be 1 or more; leave it out for no limit")
        return value


class RunRequest(_Frozen):
    """One run, as asked for. Two equal requests have equal digests.

    Attributes
    ----------
    prompt : str
        The text for the agent, byte for byte; for agent `shell` the command.
    agent : str
        ``"claude"`` or ``"shell"``.
    cwd : str
        Absolute path of the folder in which the agent works.
    tools : tuple of str
        Tools allowed without asking, in the agent's own notation.
    output_schema : dict or None
        JSON Schema that the structured result must meet.
    env_names : tuple of str
        Environment variables to hand on beyond the allow-list. Names only; values are never stored.
    verify : str or None
        Command run by us after the agent has ended; exit code 0 means verified.
    expect : tuple of str
        Files whose content must have changed, relative to `cwd` or absolute.
    rehearse : str or None
        Name or path of a script to play instead of the real API.
    ask : bool
        Let somebody answer the agent's requests for leave and its questions; where nobody can, they are refused at once.
    loop_guard : LoopGuard
        What is done about an agent that makes the same call with the same result again and again: ``off``, ``tell`` or ``stop``.
    undo : bool
        Look at the folder before and after, so that what the run did to it can be undone. It decides no result, so it is no part of the digest.
    amended : tuple of str
        Lint rules whose suggested text somebody has put into the prompt.
    """

    prompt: str
    agent: str = "claude"
    cwd: str
    model: str | None = None
    fallback_model: str | None = None
    permission_mode: str | None = None
    tools: tuple[str, ...] = ()
    output_schema: dict[str, Any] | None = None
    resume: str | None = None
    add_dirs: tuple[str, ...] = ()
    append_system_prompt: str | None = None
    env_names: tuple[str, ...] = ()
    cli: str | None = None
    shell: str | None = None
    limits: Limits = Limits()
    on_kernel_exit: OnKernelExit = OnKernelExit.CANCEL
    keep_background: bool = False
    trust_workspace: bool = False
    verify: str | None = None
    expect: tuple[str, ...] = ()
    rehearse: str | None = None
    ask: bool = False
    loop_guard: LoopGuard = LoopGuard.TELL
    undo: bool = False
    amended: tuple[str, ...] = ()
    label: str = Field(default="", max_length=200)

    @field_validator("prompt")
    @classmethod
    def _sendable(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("is empty: write what the agent should do")
        if "\0" in value:
            raise ValueError(f"holds a NUL character at position {value.index(chr(0))}: remove it")
        size = len(value.encode("utf-8", "surrogatepass"))
        if size > PROMPT_LIMIT:
            raise ValueError(f"is {size:,} bytes; the limit is {PROMPT_LIMIT:,}: put the material in a file and name the file")
        return value

    @field_validator("label")
    @classmethod
    def _readable(cls, value: str) -> str:
        """A name of spaces alone would be shown in the place of the prompt."""
        return value.strip()

    @model_validator(mode="after")
    def _no_nul_anywhere(self) -> Self:
        for name in ("cwd", "model", "fallback_model", "permission_mode", "resume", "append_system_prompt", "cli", "shell", "verify"):
            if "\0" in (getattr(self, name) or ""):
                raise ValueError(f"{name} holds a NUL character: remove it")
        if self.ask and self.agent != "claude":
            raise ValueError("ask is for agents that ask, and a command does not: leave it out")
        return self

    def digest(self) -> str:
        """SHA-256 (hex) of what decides the result: everything but the label, and how much of the output is kept."""
        left_out = dict.fromkeys(("label", "amended", "undo", *without_news(self, LATER_FIELDS)), True)
        return canonical_digest(self.model_dump(mode="json", exclude={**left_out, "limits": {"journal"}}))


# Fields that came later. At its default such a field is left out of the digest, so that what was digested before it came still has the same one.
LATER_FIELDS: Final = (
    "ask",
    "loop_guard",
)


def without_news(model: BaseModel, later: tuple[str, ...]) -> set[str]:
    """Which of the fields `later` say nothing in `model`, because they are at their defaults."""
    fields = type(model).model_fields
    return {name for name in later if getattr(model, name) == fields[name].get_default(call_default_factory=True)}


def canonical_digest(value: Any) -> str:
    """SHA-256 (hex) of `value` as JSON with sorted keys, no spaces, in UTF-8 (lone surrogates escaped) and numbers as doubles.

    A receipt travels through browsers, whose JSON writes 1.0 as 1 and rounds whole numbers beyond 2**53: as doubles both are what they were
    (the same choice as RFC 8785, section 3.2.2.3).
    """
    text = json.dumps(_as_doubles(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _as_doubles(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _as_doubles(item) for name, item in cast("dict[str, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_as_doubles(item) for item in cast("list[Any]", value)]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 2**53:
        try:
            return int(float(value))
        except OverflowError:
            return value  # no browser carries it anyway
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
