"""What is kept of a run for good: a sealed, self-contained record. Knows shapes and the seal; judges nothing and reads nothing."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Protocol, Self

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from cc_executor.errors import CCExecutionError
from cc_executor.model.hook import HookReport
from cc_executor.model.outcome import Outcome
from cc_executor.model.request import canonical_digest

SCHEMA_VERSION: Final = 1
# Fields that came after the first receipts: where they say nothing they are not in the digest, so that every receipt keeps the one that it was sealed with.
_LATER: Final = ("amended", "hooks", "asked", "undo", "signed_by")
RECEIPT_MIME: Final = "application/vnd.cc-executor.receipt+json"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Standing(StrEnum):
    """How far the result was checked outside the agent."""

    VERIFIED = "verified"  # every check that was asked for passed
    CLAIMED = "claimed"  # nothing was asked for; the agent's word
    CONTRADICTED = "contradicted"  # a check failed


class Check(_Frozen):
    """One check made by us after the agent ended. `what`: the command or the file; `passed` None: it could not be made."""

    what: str
    passed: bool | None
    detail: str = ""


class FileChange(_Frozen):
    """A file that the run wrote or was expected to change. Digests are SHA-256 hex; None: the file was not there, or not read before.

    With a `change` (``created``, ``changed`` or ``deleted``) it was seen by looks before and after the run, without one the agent has named it. Modes are
    octal, and there when they differ; `link_before` and `link_after` are the targets of a symbolic link.
    """

    path: str
    before: str | None = None
    after: str | None = None
    size: int | None = None
    change: str | None = None
    mode_before: str | None = None
    mode_after: str | None = None
    link_before: str | None = None
    link_after: str | None = None
    renamed_from: str | None = None

    @model_serializer(mode="wrap")
    def _without_silence(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Fields that came later are written where they say something: an old receipt keeps its digest."""
        written: dict[str, Any] = handler(self)
        return {name: value for name, value in written.items() if value is not None or name in _FILE_FIELDS}

    @property
    def words(self) -> str:
        """What became of it, in a few words: ``new``, ``changed``, ``gone``, with a mode, a link or a new name where there is one."""
        if self.change is not None:
            what = {"created": "new", "deleted": "gone"}.get(self.change, "changed")
            if self.change == "changed" and self.before == self.after and self.mode_after is not None:
                what = "same content"
        elif self.after is None and self.size is None:
            what = "gone" if self.before is not None else "not there"
        elif self.before is None:
            what = "new"
        else:
            what = "unchanged" if self.before == self.after else "changed"
        parts = [what]
        if self.mode_after is not None:
            parts.append(f"mode {self.mode_before} → {self.mode_after}")
        if self.link_after is not None:
            parts.append(f"link to {self.link_after}")
        if self.renamed_from is not None:
            parts.append(f"was {self.renamed_from}")
        return ", ".join(parts)


_FILE_FIELDS: Final = frozenset({"path", "before", "after", "size"})


class Undo(_Frozen):
    """Whether a run can be undone, as far as it was known at its end.

    Attributes
    ----------
    ready : bool
        Whether the folder was looked at before and after the run.
    note : str
        Why not, or what cannot be brought back.
    changes : int
        Files that are different; a receipt names at most 200 of them.
    shared_with : tuple of str
        Runs that worked in the same folder at the same time: some of the differences may be theirs.
    """

    ready: bool
    note: str = ""
    changes: int = 0
    shared_with: tuple[str, ...] = ()


class AskedFor(_Frozen):
    """A question of the agent and its answer. `decision`: allow, allow_run, deny, answer, refused (nobody could answer), or empty (nobody did).

    `at` is when it was answered, `note` what was typed or chosen, bounded.
    """

    kind: str  # permission or question
    what: str
    decision: str = ""
    by: str = ""
    at: datetime | None = None
    note: str = ""


class StreamDigest(_Frozen):
    """One file of the journal: bytes kept, bytes dropped (disk full, limit reached), SHA-256 hex of what was kept."""

    bytes: int
    dropped: int = 0
    sha256: str


class TokenUsage(_Frozen):
    """Tokens, as the agent counted them."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_creation_tokens: int = 0


class Times(_Frozen):
    """Wall-clock start and end (UTC), and seconds: `active` is `elapsed` less `paused` and `frozen`."""

    started: datetime
    ended: datetime
    elapsed: float
    active: float
    paused: float = 0.0
    frozen: float = 0.0


class Exit(_Frozen):
    """How the process ended. Exactly one of `code` and `signal` is set, or neither when nobody saw it."""

    code: int | None = None
    signal: str | None = None
    stopped_for: str | None = None  # reason of the stop request, if there was one
    left_behind: tuple[str, ...] = ()  # commands that outlived the agent
    survivors: int = 0


class Signer(Protocol):
    """Who signs receipts."""

    @property
    def fingerprint(self) -> str:
        """The key's name."""
        ...

    def sign(self, message: bytes) -> bytes:
        """The signature, 64 bytes."""
        ...


def signed_message(digest: str) -> bytes:
    """What is signed: the digest with a word that says what it is, so that no signature over something else can stand for it."""
    return f"cc-executor receipt {digest}".encode()


class Receipt(_Frozen):
    """The whole record of a run. Equal content has an equal `digest`; one changed byte does not.

    The digest proves that the record is as it was sealed and, with the journal at hand, that the journal is the one it was sealed over: who can write
    both can forge both. The signature proves that whoever sealed it had the private key, see docs/receipts.md. The digest covers `signed_by`, so that a
    signature cannot be taken away or put under another key without a new digest.
    """

    schema_version: int = SCHEMA_VERSION
    run_id: str
    request_digest: str
    agent: str
    agent_version: str = ""
    agent_path: str = ""
    model: str = ""
    argv: tuple[str, ...] = ()
    cwd: str = ""
    prompt_sha256: str
    amended: tuple[str, ...] = ()  # lint rules whose suggested text somebody has put into the prompt, which is the one that was sent
    env_names: tuple[str, ...] = ()
    permission_mode: str = ""
    session_id: str = ""
    transcript: str | None = None
    workspace_trusted: bool = False  # whether settings, hooks and MCP servers of the folder itself could take effect
    rehearsed: str | None = None  # the script's name: such a run cost nothing and proves nothing about a model
    times: Times
    outcome: Outcome
    exit: Exit
    usage: TokenUsage = TokenUsage()
    cost: float | None = None  # US dollars as the agent counted them; None: it did not say
    turns: int | None = None
    denials: tuple[str, ...] = ()
    retries: int = 0
    text: str = ""  # the final text, bounded
    data: Any = None  # structured output, if there is one
    files: tuple[FileChange, ...] = ()
    checks: tuple[Check, ...] = ()
    standing: Standing = Standing.CLAIMED
    undo: Undo | None = None  # None: nobody asked for it
    asked: tuple[AskedFor, ...] = ()  # at most 100; the journal has all of them
    journal: dict[str, StreamDigest] = {}
    host: str = ""
    cc_executor_version: str = ""
    hooks: tuple[HookReport, ...] = ()
    signed_by: str = ""  # fingerprint of the key, as `ssh-keygen -l` prints it; empty: not signed
    digest: str = ""
    signature: str = ""  # Ed25519 (RFC 8032) over `signed_message(digest)`, 128 hex digits

    def sealed(self, signer: Signer | None = None) -> Self:
        """A copy whose `digest` is that of its other fields, signed if there is somebody to sign it."""
        named = self.model_copy(update={"signed_by": signer.fingerprint if signer is not None else "", "signature": ""})
        digest = named.expected_digest()
        signature = signer.sign(signed_message(digest)).hex() if signer is not None else ""
        return named.model_copy(update={"digest": digest, "signature": signature})

    def expected_digest(self) -> str:
        """SHA-256 (hex) over every field but `digest` and `signature`, as canonical JSON; later fields only where they say something."""
        silent = {name for name in _LATER if getattr(self, name) == type(self).model_fields[name].default}
        return canonical_digest(self.model_dump(mode="json", exclude={"digest", "signature", *silent}))

    @property
    def is_intact(self) -> bool:
        """Whether `digest` is that of the other fields, and a signature is there if one was made. Whether that one is true takes the public key."""
        try:
            return self.digest == self.expected_digest() and bool(self.signature) == bool(self.signed_by)
        except ValueError:  # a number that JSON has not, and so none that was sealed
            return False

    def raise_for_outcome(self) -> None:
        """Raise `CCExecutionError` unless the outcome is ok."""
        if not self.outcome.ok:
            raise CCExecutionError(self)
