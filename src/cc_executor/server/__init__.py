"""The Jupyter server's side: what is done where the kernel cannot reach. Knows jupyter_server's conventions; owns no process.

Importing this costs nothing: jupyter_server imports it at every start, in environments where no notebook of ours is ever opened.
"""

from __future__ import annotations

from cc_executor.server.extension import (
    _jupyter_server_extension_points,  # pyright: ignore[reportPrivateUsage] - the names are jupyter_server's
    _load_jupyter_server_extension,  # pyright: ignore[reportPrivateUsage] - as above
    _start_jupyter_server_extension,  # pyright: ignore[reportPrivateUsage] - as above
)

__all__ = ["_jupyter_server_extension_points", "_load_jupyter_server_extension", "_start_jupyter_server_extension"]
