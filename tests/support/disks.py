"""Disks of a command's own: one so small that it is full when a test wants it to be, or whatever else is to be mounted for it alone."""

from __future__ import annotations

import os
from pathlib import Path


def on_small_disk(folder: Path, size: str) -> tuple[str, ...]:
    """What goes before a command for which `folder` is a disk of this size (of mount(8): `2m`). It is gone with the command, and nobody else sees it."""
    return with_mount(f'mount -t tmpfs -o size={size},mode=0700 none "$0"', str(folder))


def with_mount(mount: str, name: str = "sh") -> tuple[str, ...]:
    """What goes before a command for which `mount` (of a shell, `name` is its ``$0``) was done. It is gone with the command, and nobody else sees it."""
    namespace = ("unshare", "--mount") if os.geteuid() == 0 else ("unshare", "--user", "--map-root-user", "--mount")
    return (*namespace, "sh", "-c", f'{mount} && exec "$@"', name)
