"""What is against the rules of a server, as something to raise. Knows HTTP's numbers and nothing else."""

from __future__ import annotations


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
