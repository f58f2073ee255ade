"""What is against the rules of a server, as something to raise, and the numbers by which errors are told. Knows HTTP's numbers and nothing else of it."""

from __future__ import annotations

from typing import Final

from cc_executor.errors import CCExecutorError, ControlFailed, InvalidRequest, InvalidTaskList, RunNotFound, TaskListNotFound

_STATUS: Final[tuple[tuple[type[CCExecutorError], int], ...]] = (
    (RunNotFound, 404),
    (TaskListNotFound, 404),
    (InvalidRequest, 400),
    (InvalidTaskList, 400),
    (ControlFailed, 409),
)


class Refused(Exception):
    """What somebody wants is against the server's rules.

    Attributes
    ----------
    status : int
        The HTTP status that says so.
    kind : str
        One word for programs.
    retry_after : int or None
        Seconds after which the same request may be taken; None where waiting does not help.
    """

    def __init__(self, status: int, kind: str, message: str, *, retry_after: int | None = None) -> None:
        self.status, self.kind, self.retry_after = status, kind, retry_after
        super().__init__(message)


def told_as(error: Exception) -> tuple[int, str]:
    """The HTTP status and the word by which programs are told of an error of ours."""
    if isinstance(error, Refused):
        return error.status, error.kind
    if not isinstance(error, CCExecutorError):
        return 500, "InternalError"
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 503), type(error).__name__
