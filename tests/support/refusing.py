"""Programs to which the kernel refuses a system call, as a file system that does not know it would (seccomp(2)). Linux alone.

Run as a program: ``refusing.py CALL ERROR PROGRAM ARGUMENT…``.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from pathlib import Path
from typing import Final, NamedTuple


class Call(NamedTuple):
    """Numbers of a call by machine, and which bit of which argument it is refused for (none: always)."""

    numbers: dict[str, tuple[int, ...]]
    argument: int = 0
    bit: int = 0


CALLS: Final = {
    "flock": Call({"x86_64": (73,), "aarch64": (32,)}),
    "bind": Call({"x86_64": (49,), "aarch64": (200,)}),
    "mmap shared": Call({"x86_64": (9,), "aarch64": (222,)}, argument=3, bit=1),  # MAP_SHARED
    "rmdir": Call({"x86_64": (84,)}),
    "unlinkat of a folder": Call({"x86_64": (263,), "aarch64": (35,)}, argument=2, bit=0x200),  # AT_REMOVEDIR
}
_LOAD, _EQUAL, _SET, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER = 38, 22, 2


def refusing(call: str, error: str, *program: str) -> list[str]:
    """The command that runs `program` so. `error`: the name of an error number."""
    return [sys.executable, str(Path(__file__)), call, error, *program]


def refuse(call: str, error: str) -> None:
    """From now on, in this process and in those that it starts."""
    chosen = CALLS[call]
    for number in chosen.numbers.get(platform.machine(), ()):
        program = [(_LOAD, 0, 0, 0), (_EQUAL, 0, 3 if chosen.bit else 1, number)]
        if chosen.bit:
            program += [(_LOAD, 0, 0, 16 + 8 * chosen.argument), (_SET, 0, 1, chosen.bit)]
        program += [(_RETURN, 0, 0, _ERRNO | getattr(errno, error)), (_RETURN, 0, 0, _ALLOW)]
        code = b"".join(struct.pack("HBBI", *step) for step in program)
        held = ctypes.create_string_buffer(code, len(code))
        filters = ctypes.create_string_buffer(struct.pack("HL", len(program), ctypes.addressof(held)))
        libc = ctypes.CDLL(None, use_errno=True)
        zero = ctypes.c_ulong(0)
        if libc.prctl(_NO_NEW_PRIVILEGES, ctypes.c_ulong(1), zero, zero, zero) or libc.prctl(
            _SECCOMP, ctypes.c_ulong(_FILTER), filters, zero, zero
        ):
            raise OSError(ctypes.get_errno(), "this system has no seccomp filters")


if __name__ == "__main__":
    for one in sys.argv[1].split(","):
        refuse(one, sys.argv[2])
    os.execvp(sys.argv[3], sys.argv[3:])  # noqa: S606 - the arguments as they were given: a shell would read them anew
