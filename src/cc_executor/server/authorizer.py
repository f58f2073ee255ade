"""Who may do what on a server that JupyterHub starts, by the hub's scopes. Knows jupyter_server's and the hub's conventions; knows nothing of runs.

The hub's own authorizer lets everybody in who has access to the server. This one asks for scopes of ours besides, for this very server: so a share can give
somebody access and no right to run an agent.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from jupyter_server.auth.authorizer import Authorizer
from traitlets import Bool

if TYPE_CHECKING:
    from jupyter_server.base.handlers import JupyterHandler

    from cc_executor.server.service import Service

SCOPE: Final = "custom:cc-executor:"
RESOURCE: Final = "cc_executor"
ADMIN_RESOURCE: Final = "cc_executor:admin"  # everybody's runs on one server
# Our routes by what they do; what writes starts or ends something that costs money, so there is no right between reading and that.
_RIGHTS: Final[Mapping[str, str]] = {"read": "read", "write": "execute", "execute": "execute"}


def name_of(handler: JupyterHandler, service: Service) -> str:
    """Who asks: the name under which their runs are kept, as an `Overseer` where the server's authorizer says so of them by a method ``oversees(user)``."""
    who = service.who(handler.current_user.username)
    oversees: Callable[[Any], bool] | None = getattr(handler.authorizer, "oversees", None)  # an authorizer that allows everything has none
    if oversees is None or not oversees(handler.current_user):
        return who
    from cc_executor.server.owners import Overseer

    return Overseer(who)


class HubAuthorizer(Authorizer):
    """Asks for ``custom:cc-executor:read``, ``…:execute`` or ``…:admin``, each for this server; for everything else, for access to the server.

    The hub has to know these scopes (``c.JupyterHub.custom_scopes``), and has to pass them on (``c.Spawner.oauth_client_allowed_scopes``).
    """

    open_to_guests = Bool(
        True, help="Whether others than whom the server runs for may use what else it has: kernels, terminals, files."
    ).tag(config=True)

    def is_authorized(self, handler: Any, user: Any, action: str, resource: str) -> bool:
        """Whether the hub gives `user` the scope that `action` on `resource` needs here."""
        if not self._has(user, "access:servers"):
            return False
        if resource == ADMIN_RESOURCE:
            return self.oversees(user)
        if resource.partition(":")[0] == RESOURCE:
            return action in _RIGHTS and self._has(user, SCOPE + _RIGHTS[action])
        return self.open_to_guests or user.username == os.environ.get("JUPYTERHUB_USER")

    def oversees(self, user: Any) -> bool:
        """Whether `user` may see everybody's runs on this server."""
        return self._has(user, SCOPE + "admin")

    def _has(self, user: Any, scope: str) -> bool:
        """Whether a scope is given without a filter, or with one that this server passes. Nobody has any who did not come through a hub."""
        hub_user: Mapping[str, Any] | None = getattr(user, "hub_user", None)
        hub_auth: Any = getattr(self.identity_provider, "hub_auth", None)
        if hub_user is None or hub_auth is None:
            return False
        filters = {name.partition("!")[2] for name in hub_auth.access_scopes}  # as server=alice/ and user=alice
        return bool(hub_auth.check_scopes({f"{scope}!{each}" for each in filters}, hub_user))
