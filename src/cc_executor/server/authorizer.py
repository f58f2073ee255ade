"""Who may do what on a server that JupyterHub starts, by the hub's scopes. Knows jupyter_server's and the hub's conventions; knows nothing of runs.

The hub's own authorizer lets everybody in who has access to the server. This one asks for scopes of ours besides, for this very server: so a share can give
somebody access and no right to run an agent.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from jupyter_server.auth.authorizer import Authorizer
from traitlets import Bool

if TYPE_CHECKING:
    from jupyter_server.base.handlers import JupyterHandler

    from cc_executor.server.service import Service

SCOPE: Final = "custom:cc-executor:"
RESOURCE: Final = "cc_executor"
ADMIN_RESOURCE: Final = "cc_executor:admin"  # everybody's runs on one server
# Our routes by what they do, and the rights that let somebody do it. What writes starts or ends something that costs money, so there is no right between
# reading and that. The hub knows of such an order, too (subscopes), and does not follow it in shares.
_RIGHTS: Final[Mapping[str, tuple[str, ...]]] = {
    "read": ("read", "execute", "admin"),
    "write": ("execute", "admin"),
    "execute": ("execute", "admin"),
}


def name_of(handler: JupyterHandler, service: Service) -> str:
    """Who asks: the name under which their runs are kept, as an `Overseer` where the server's authorizer says so of them by a method ``oversees(user)``."""
    who = service.who(handler.current_user.username)
    oversees: Callable[[Any], bool] | None = getattr(handler.authorizer, "oversees", None)  # an authorizer that allows everything has none
    if oversees is None or not oversees(handler.current_user):
        return who
    from cc_executor.server.owners import Overseer

    return Overseer(who)


async def known_now(handler: JupyterHandler) -> Any:
    """Who has opened a connection that lasts, as they are known now; None: not any more."""
    renewed: Callable[[JupyterHandler], Awaitable[Any]] | None = getattr(handler.authorizer, "renewed", None)
    return handler.current_user if renewed is None else await renewed(handler)


class HubAuthorizer(Authorizer):
    """Asks for ``custom:cc-executor:read``, ``…:execute`` or ``…:admin``, each for this server; for everything else, for access to the server.

    The hub has to know these scopes (``c.JupyterHub.custom_scopes``), and has to pass them on (``c.Spawner.oauth_client_allowed_scopes``).
    """

    open_to_guests = Bool(
        True, help="Whether others than whom the server runs for may use what else it has: kernels, terminals, files."
    ).tag(config=True)

    def is_authorized(self, handler: Any, user: Any, action: str, resource: str) -> bool:
        """Whether the hub gives `user` the scope that `action` on `resource` needs here."""
        hub_auth = self._hub_auth
        if hub_auth is None or not hub_auth.check_scopes(hub_auth.access_scopes, getattr(user, "hub_user", {"scopes": ()})):
            return False  # whoever did not come through the hub has no scopes
        if resource == ADMIN_RESOURCE:
            return self.oversees(user)
        if resource.partition(":")[0] == RESOURCE:
            return any(self._has(user, SCOPE + right) for right in _RIGHTS.get(action, ()))
        return self.open_to_guests or user.username == os.environ.get("JUPYTERHUB_USER")

    @property
    def _hub_auth(self) -> Any:
        """The hub's own client; None where the server was not started by one."""
        return getattr(self.identity_provider, "hub_auth", None)

    def oversees(self, user: Any) -> bool:
        """Whether `user` may see everybody's runs on this server."""
        return self._has(user, SCOPE + "admin")

    async def renewed(self, handler: Any) -> Any:
        """Who has opened a connection that lasts, as the hub knows them now (for ``HubOAuth.cache_max_age`` seconds it is not asked).

        None: not any more, or not as somebody who oversees, which is what the connection was opened as.
        """
        hub_auth = self._hub_auth
        token = None if hub_auth is None else hub_auth.get_token(handler)
        if hub_auth is None or not token:
            return None
        told = await hub_auth.user_for_token(token, session_id=hub_auth.get_session_id(handler), sync=False)
        if told is None:
            return None
        user = type(handler.current_user)(told)
        return user if self.oversees(user) or not self.oversees(handler.current_user) else None

    def _has(self, user: Any, scope: str) -> bool:
        """Whether a scope is given without a filter, or with one that this server passes. Nobody has any who did not come through a hub."""
        hub_user: Mapping[str, Any] | None = getattr(user, "hub_user", None)
        hub_auth = self._hub_auth
        if hub_user is None or hub_auth is None:
            return False
        filters = {name.partition("!")[2] for name in hub_auth.access_scopes}  # as server=alice/ and user=alice
        return bool(hub_auth.check_scopes({f"{scope}!{each}" for each in filters}, hub_user))
