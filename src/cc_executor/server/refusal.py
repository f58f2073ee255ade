"""What is against the rules of a server, as something to raise. Knows HTTP's numbers and nothing else."""

from __future__ import annotations


class Refused(Exception):
    """What somebody wants is against the server's rules. `status`: the HTTP status that says so; `kind`: one word for programs."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        self.status, self.kind = status, kind
        super().__init__(message)
