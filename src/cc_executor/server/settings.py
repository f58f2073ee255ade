"""What an administrator can set, as traits of the extension.

Light: a server that never sees a run imports this, too, and `cc-executor config` does without jupyter_server, whose import takes more than a second.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitlets import Bool, Enum, Float, HasTraits, Int, List, TraitError, Unicode, default, validate

if TYPE_CHECKING:
    from cc_executor.server.policy import Rules


class ServerSettings(HasTraits):
    """The rules for requests, which can be narrower than they are, never wider; and how the extension treats people, cullers and proxies."""

    max_running = Int(8, min=1, help="Runs of one owner at the same time.").tag(config=True)
    max_queued = Int(
        0,
        min=0,
        max=10_000,
        help="Runs of one owner that may wait for their turn when max_running are at work; 0: none, and such a request is refused (429).",
    ).tag(config=True)
    max_cost = Float(None, allow_none=True, help="US dollars that one run may spend at most.").tag(config=True)
    max_cost_per_day = Float(None, allow_none=True, help="US dollars that the runs of one owner may spend on one day.").tag(config=True)
    max_tokens_per_day = Int(
        None,
        allow_none=True,
        help="Tokens (read, written, and put into caches) after which no further run of an owner is started that day.",
    ).tag(config=True)
    allowed_agents = List(Unicode(), help="Agents that may be run; empty: all. Without 'shell', no `verify` commands either.").tag(
        config=True
    )
    allowed_tools = List(Unicode(), help="Tools that a request may allow without asking, as 'Read' or 'Bash(git log *)'; empty: all.").tag(
        config=True
    )
    allowed_permission_modes = List(Unicode(), help="Permission modes that may be asked for; empty: all.").tag(config=True)
    allowed_folders = List(Unicode(), help="Folders in which agents may work, with everything below; empty: all.").tag(config=True)
    trusted_folders = List(Unicode(), help="Folders for which a request may say `trust_workspace`, with everything below; empty: all.").tag(
        config=True
    )
    allowed_webhook_hosts = List(
        Unicode(),
        help="Hosts to which a request may have messages sent (`notify`), as hooks.example.org or *.example.org, private ones too; none: nowhere;"
        " empty: every host that is not of this machine or of a private network.",
    ).tag(config=True)
    notify = List(
        Unicode(), help="Who is told of runs and lists whose request does not say so, as CCExecutor.notify; empty: as the environment says."
    ).tag(config=True)
    notify_after = Float(30.0, min=0.0, help="Seconds; of what took less nobody is told.").tag(config=True)
    notify_on = List(Unicode(), default_value=["done", "failed", "input"], help="What is told: done, failed, input.").tag(config=True)
    json_logs = Bool(False, help="Write what the extension logs as JSON lines with request ids.").tag(config=True)

    owner_mode = Enum(
        ["auto", "user", "server"],
        default_value="auto",
        help="How people are told apart: by the name of a real identity provider (user), not at all (server), or what fits the provider (auto).",
    ).tag(config=True)
    heartbeat = Float(
        min=1.0,
        help="Seconds between signs of activity while a run or a list is at work, so that no culler stops the server. 30, or a third of a hub's interval.",
    ).tag(config=True)
    max_activity = Float(
        24 * 3600.0,
        min=0.0,
        help="Seconds for which one run or list keeps the server alive at most, so that a hanging agent does not for ever.",
    ).tag(config=True)
    ping_interval = Float(
        20.0, min=0.1, help="Seconds between pings on a WebSocket: less than what proxies on the way close silent connections after."
    ).tag(config=True)

    @default("heartbeat")
    def _heartbeat_of_hub(self) -> float:
        return max(1.0, min(30.0, float(os.environ.get("JUPYTERHUB_ACTIVITY_INTERVAL") or 300) / 3))

    @validate("max_cost", "max_cost_per_day")
    def _is_bound(self, proposal: Any) -> float | None:
        name, value = proposal["trait"].name, proposal["value"]
        if value is None or 0 < value < math.inf or (value == 0 and name == "max_cost_per_day"):
            return value
        least = "greater than 0" if name == "max_cost" else "from 0 on"
        raise TraitError(
            f"{name} must be a number of US dollars {least}; leave it out for no bound, and allow no agent but shell where nothing may be spent."
        )

    def own_notify(self) -> dict[str, Any]:
        """The server's own wish, by the names of the options."""
        return {"notify": self.notify, "notify_after": self.notify_after, "notify_on": self.notify_on} if self.notify else {}

    def rules(self) -> Rules:
        """The rules, as the service keeps them."""
        from cc_executor.server.policy import Rules

        return Rules(
            running=self.max_running,
            queued=self.max_queued,
            max_cost=self.max_cost,
            day_cost=self.max_cost_per_day,
            day_tokens=self.max_tokens_per_day,
            agents=tuple(self.allowed_agents),
            tools=tuple(self.allowed_tools),
            permission_modes=tuple(self.allowed_permission_modes),
            folders=tuple(Path(folder).expanduser() for folder in self.allowed_folders),
            trusted=tuple(Path(folder).expanduser() for folder in self.trusted_folders),
            webhook_hosts=tuple(self.allowed_webhook_hosts),
        )
