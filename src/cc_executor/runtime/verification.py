"""Whether a receipt is true, as far as this machine can tell: against itself, the sealed one, the journal, and the agent's own transcript.

Reads files and starts nothing. What a receipt proves is said at `cc_executor.model.receipt.Receipt`: who can write receipt, journal and transcript
alike can forge all three, and who has the key can sign them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from cc_executor import __version__
from cc_executor.agents.claude.testimony import agrees
from cc_executor.errors import RunNotFound, StateUnusable
from cc_executor.model.fold import advance_all
from cc_executor.model.receipt import SCHEMA_VERSION, Receipt, signed_message
from cc_executor.model.state import RunState
from cc_executor.model.toolcall import one_line
from cc_executor.policy.redact import MASK
from cc_executor.runtime.plan import PLAN, Plan, removed
from cc_executor.runtime.reader import replay
from cc_executor.runtime.seal import receipt_over
from cc_executor.runtime.transcripts import compare
from cc_executor.shim import records
from cc_executor.store.home import RUN_ID, StateHome
from cc_executor.store.journal import RunFolder
from cc_executor.store.keys import NO_LIBRARY, Keys, holds, is_available, own_keys

SEALED: Final = (*records.STREAMS, records.CONTROL)
# Facts of the sealing itself, and what was looked at then and cannot be looked at again.
_NOT_IN_THE_JOURNAL: Final = frozenset(
    {
        "schema_version",
        "digest",
        "signed_by",
        "signature",
        "host",
        "cc_executor_version",
        "transcript",
        "files",
        "undo",
        "checks",
        "journal",
    }
)
# Copied, not decoded: another version of cc_executor reads them alike.
_COPIED: Final = frozenset(
    {
        "run_id",
        "request_digest",
        "agent",
        "prompt_sha256",
        "argv",
        "cwd",
        "env_names",
        "agent_path",
        "workspace_trusted",
        "rehearsed",
        "exit",
        "times",
    }
)
_SHOWN: Final = 60  # characters of a value in a reason


class Verdict(StrEnum):
    """What became of the examination."""

    VERIFIED = "verified"
    CONTRADICTED = "contradicted"
    UNVERIFIABLE = "unverifiable"  # nothing speaks against it, and something that would have to speak for it is not here


class SignatureStanding(StrEnum):
    """What became of the signature."""

    VALID = "valid"
    CONTRADICTED = "contradicted"
    UNSIGNED = "unsigned"
    UNKNOWN = "unknown key"  # the public half is not here, or the library to use it


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """The result for one receipt.

    Attributes
    ----------
    run_id : str
    verdict : Verdict
    reasons : tuple of str
        Sentences: what contradicts, what is missing, what was confirmed; in this order.
    where : str
        The place of the receipt in a notebook, e.g. ``"cell 3"``; empty for a receipt by itself.
    signature : SignatureStanding
    signed_by : str
        The fingerprint of the key, as the receipt says; empty when it is not signed.
    """

    run_id: str
    verdict: Verdict
    reasons: tuple[str, ...]
    where: str = ""
    signature: SignatureStanding = SignatureStanding.UNSIGNED
    signed_by: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "run_id": self.run_id,
            "verdict": self.verdict.value,
            "where": self.where,
            "signature": self.signature.value,
            "signed_by": self.signed_by,
            "reasons": list(self.reasons),
        }


@dataclass(slots=True)
class Findings:
    """What an examination has found so far."""

    against: list[str] = field(default_factory=list[str])
    missing: list[str] = field(default_factory=list[str])
    notes: list[str] = field(default_factory=list[str])
    signature: SignatureStanding = SignatureStanding.UNSIGNED
    signed_by: str = ""

    def verification(self, run_id: str, *, where: str = "") -> Verification:
        """The verdict: one contradiction is enough, and without what is missing nothing is verified."""
        verdict = Verdict.CONTRADICTED if self.against else Verdict.UNVERIFIABLE if self.missing else Verdict.VERIFIED
        reasons = (*self.against, *self.missing, *self.notes)
        return Verification(
            run_id=run_id, verdict=verdict, reasons=reasons, where=where, signature=self.signature, signed_by=self.signed_by
        )


def transcript_roots(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Where Claude Code keeps its transcripts: `CLAUDE_CONFIG_DIR`, or `.claude` at home."""
    chosen = environ.get("CLAUDE_CONFIG_DIR")
    return (Path(chosen),) if chosen else (Path(environ.get("HOME") or os.path.expanduser("~")) / ".claude",)


def verify(receipt: Receipt, *, home: StateHome, transcript_roots: Sequence[Path], keys: Keys | None = None) -> Verification:
    """Examine one receipt.

    Parameters
    ----------
    receipt : Receipt
    home : StateHome
        Where the runs of this machine are kept.
    transcript_roots : sequence of Path
        Configuration folders of the agent; the transcript is ``projects/*/<session id>.jsonl`` below one of them. A run that had a folder of
        its own for this (a rehearsal) is looked up there, too.

    keys : mapping of str to Ed25519PublicKey, optional
        By fingerprint: one of these must have signed the receipt. Where one has, the run's folder or its journal may be missing. If not given, the keys of
        this state folder are known, and nothing demands a signature.

    Returns
    -------
    Verification
        `verified`: digest, signature, sealed receipt and journal agree, and the transcript if there is one. `contradicted`: something disagrees.
        `unverifiable`: the digest holds, and the journal, the sealed receipt or the key is not on this machine.
    """
    return examine(receipt, home=home, transcript_roots=transcript_roots, keys=keys).verification(receipt.run_id)


def examine(receipt: Receipt, *, home: StateHome, transcript_roots: Sequence[Path], keys: Keys | None = None) -> Findings:
    """As `verify`, for callers that have more to add."""
    found = Findings(signed_by=receipt.signed_by)
    if not receipt.is_intact:
        found.signature = SignatureStanding.CONTRADICTED if receipt.signature or receipt.signed_by else SignatureStanding.UNSIGNED
        found.against.append("The receipt was changed after it was sealed: its digest is not that of its content.")
        return found
    found.notes.append("The receipt is as it was sealed: its digest is that of its content.")
    if receipt.schema_version > SCHEMA_VERSION:
        found.missing.append(
            f"The receipt has the form {receipt.schema_version}, and this version knows only {SCHEMA_VERSION}: update cc_executor."
        )
        return found
    _examine_signature(receipt, home, keys, found)
    folder = _folder(receipt.run_id, home)
    if folder is None and keys is not None and found.signature is SignatureStanding.VALID:
        found.notes.append(
            "Its journal is not on this machine: that the receipt says what the journal says is the word of whoever has the key."
        )
        return found
    if folder is None:
        found.missing.append(f"The journal of run {receipt.run_id} is not on this machine (looked in {home.root}).")
        return found
    _compare_sealed(receipt, folder, found)
    if said := removed(folder):
        is_vouched = keys is not None and found.signature is SignatureStanding.VALID  # as where the run's folder is not here
        (found.notes if is_vouched else found.missing).append(f"{said}: the receipt can no longer be compared with it.")
        return found
    whole = _compare_streams(receipt, folder, found)
    if whole and not found.against:
        _compare_decoded(receipt, folder, found, transcript_roots)
    return found


def _examine_signature(receipt: Receipt, home: StateHome, keys: Keys | None, found: Findings) -> None:
    """Whether a key that is known here has signed the digest, which was seen to be that of the content."""
    if not receipt.signed_by:
        (found.notes if keys is None else found.missing).append("It is not signed.")
        return
    found.signature = SignatureStanding.UNKNOWN
    if not is_available():
        found.missing.append(f"It is signed by key {receipt.signed_by}. {NO_LIBRARY}")
        return
    known = own_keys(home) if keys is None else keys
    key = known.get(receipt.signed_by)
    if key is not None and holds(key, receipt.signature, signed_message(receipt.digest)):
        found.signature = SignatureStanding.VALID
        found.notes.append(f"The signature of key {receipt.signed_by} is valid.")
    elif key is not None:
        found.signature = SignatureStanding.CONTRADICTED
        found.against.append(f"The signature is not one of key {receipt.signed_by}.")
    elif keys is not None:
        found.signature = SignatureStanding.CONTRADICTED
        found.against.append(f"It is signed by key {receipt.signed_by}, not by {' or '.join(keys)}.")
    else:
        found.missing.append(
            f"It is signed by key {receipt.signed_by}, which is not known here: ask its owner for the public key, and give it with --key."
        )


def _folder(run_id: str, home: StateHome) -> RunFolder | None:
    if not RUN_ID.match(run_id):
        return None
    try:
        return home.find(run_id)
    except (RunNotFound, StateUnusable, OSError):
        return None


def _compare_sealed(receipt: Receipt, folder: RunFolder, found: Findings) -> None:
    if not folder.has_receipt:
        found.missing.append("The sealed receipt is no longer in the run's folder.")
        return
    sealed = folder.receipt()
    if sealed is None or not sealed.is_intact:
        found.against.append("The sealed receipt in the run's folder was changed after it was sealed.")
    elif sealed.digest != receipt.digest:
        found.against.append(f"The run's folder holds another receipt (digest {sealed.digest[:12]}…, here {receipt.digest[:12]}…).")
    else:
        found.notes.append("It equals the sealed receipt in the run's folder.")


def _compare_streams(receipt: Receipt, folder: RunFolder, found: Findings) -> bool:
    """Bytes and SHA-256 of every file of the journal. True when all of them are there and as they were."""
    unknown = sorted(receipt.journal.keys() - {*SEALED, records.INDEX_FILE, records.EXIT})
    if unknown:
        found.missing.append(f"The receipt seals {', '.join(unknown)}, which this version of cc_executor does not know.")
    whole, size = True, 0
    for name in dict.fromkeys([*SEALED, *receipt.journal]):
        if name in unknown:
            continue
        sealed = receipt.journal.get(name)
        if sealed is None:
            found.against.append(f"The receipt does not say what {name} was.")
            whole = False
            continue
        if sealed.bytes and not (folder.path / name).exists():
            found.missing.append(f"The journal is not whole: {name} is no longer in the run's folder.")
            whole = False
            continue
        try:
            now = folder.digest(name)
        except StateUnusable as error:
            found.missing.append(f"The journal is not whole. {error}")
            whole = False
            continue
        size += now.bytes
        if now.bytes != sealed.bytes:
            found.against.append(f"{name} of the journal has {now.bytes:,} bytes, and had {sealed.bytes:,} when it was sealed.")
        elif now.sha256 != sealed.sha256:
            found.against.append(f"{name} of the journal was changed: its SHA-256 is {now.sha256[:12]}…, and was {sealed.sha256[:12]}….")
    if whole and not found.against:
        found.notes.append(f"The journal is the one that was sealed ({size:,} bytes).")
    return whole


def _compare_decoded(receipt: Receipt, folder: RunFolder, found: Findings, roots: Sequence[Path]) -> None:
    """Read the journal again and make the receipt anew; then ask the agent's own transcript."""
    for name in (records.REQUEST, PLAN):
        if not (folder.path / name).exists():
            found.missing.append(f"{name} is no longer in the run's folder, so the journal cannot be read again.")
            return
    try:
        request, plan, facts = folder.request(), Plan.of(folder), folder.exit_facts()
    except StateUnusable as error:
        found.against.append(f"The run's folder was changed. {str(error).splitlines()[0]}")
        return
    if facts is None and (folder.path / records.EXIT).exists():
        found.against.append("The exit record in the run's folder was changed: it cannot be read.")
        return
    if facts is None and (receipt.exit.code is not None or receipt.exit.signal is not None):
        found.missing.append("The exit record is no longer in the run's folder.")
        return
    state = RunState()
    for events in replay(folder, agent=request.agent):
        state = advance_all(state, events)
    again = receipt_over(
        folder, request, plan, state, facts,
        checks=receipt.checks, journal=receipt.journal, files=receipt.files, now=receipt.times.ended.timestamp(),
    )  # fmt: skip
    was_lost = facts is None
    differing = [name for name, said, decoded in _fields(receipt, again, was_lost=was_lost) if not agrees(said, decoded, mask=MASK)]
    if not differing:
        found.notes.append("Read again, the journal gives the same outcome, text, cost and session.")
    elif receipt.cc_executor_version != __version__ and _COPIED.isdisjoint(differing):
        found.missing.append(
            f"It was sealed by cc_executor {receipt.cc_executor_version or '?'}; version {__version__} reads otherwise: {', '.join(differing)}."
        )
    else:
        for name in differing:
            found.against.append(
                f"{name}: the journal gives {_shown(getattr(again, name))}, the receipt says {_shown(getattr(receipt, name))}."
            )
    if receipt.agent == "claude":
        own = [Path(plan.config_dir)] if plan.config_dir else []
        comparison = compare(
            folder,
            session_id=receipt.session_id,
            roots=own if receipt.rehearsed else [*own, *roots],
            ended_by_force=facts is None or facts.stop_reason is not None or facts.signal is not None or state.finished is None,
            mask=MASK,
        )
        found.against += comparison.against
        found.notes += comparison.notes
        if receipt.rehearsed and comparison.missing:
            found.notes.append("A rehearsal keeps its transcript in the run's own folder, and there it is gone.")


def _fields(receipt: Receipt, again: Receipt, *, was_lost: bool) -> Iterator[tuple[str, Any, Any]]:
    said, decoded = receipt.model_dump(mode="json"), again.model_dump(mode="json")
    for name, value in said.items():
        if name in _NOT_IN_THE_JOURNAL or (was_lost and name == "times"):  # the end of a lost run is when somebody noticed
            continue
        yield name, value, decoded[name]


def _shown(value: Any) -> str:
    return one_line(str(getattr(value, "kind", value)), _SHOWN)
