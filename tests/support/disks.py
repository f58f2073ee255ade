"""A disk of its own, so small that it is full when a test wants it to be."""

from __future__ import annotations

import os
from pathlib import Path


def on_small_disk(folder: Path, size: str) -> tuple[str, ...]:
    """What goes before a command for which `folder` is a disk of this size (of mount(8): `2m`). It is gone with the command, and nobody else sees it."""
    namespace = ("unshare", "--mount") if os.geteuid() == 0 else ("unshare", "--user", "--map-root-user", "--mount")
    return (*namespace, "sh", "-c", f'mount -t tmpfs -o size={size},mode=0700 none "$0" && exec "$@"', str(folder))
