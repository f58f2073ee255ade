"""JupyterHub 6 with cc_executor. Put it beside the hub's own settings, or `load_subconfig` it from them; docs/hub.md says what each part is for."""

import sys

c = get_config()  # noqa: F821 # pyright: ignore[reportUndefinedVariable] - traitlets gives it to the file

# What there is to be allowed. Who may do the upper may do the lower.
SCOPE = "custom:cc-executor"
c.JupyterHub.custom_scopes = {
    f"{SCOPE}:admin": {"description": "See and end everybody's runs of agents", "subscopes": [f"{SCOPE}:execute"]},
    f"{SCOPE}:execute": {"description": "Start and end runs of agents", "subscopes": [f"{SCOPE}:read"]},
    f"{SCOPE}:read": {"description": "See one's own runs of agents"},
}

# Who is allowed it. `!user`: on servers of one's own; `shares!user`: to let others onto them.
c.JupyterHub.load_groups = {"agents": {"users": []}, "agent-admins": {"users": []}}
c.JupyterHub.load_roles = [
    {"name": "agents", "groups": ["agents"], "scopes": [f"{SCOPE}:execute!user", "shares!user", "read:users:name", "read:groups:name"]},
    {"name": "agent-admins", "groups": ["agent-admins"], "scopes": ["access:servers", f"{SCOPE}:admin"]},
    {"name": "idle-culler", "services": ["idle-culler"], "scopes": ["list:users", "read:users:activity", "read:servers", "delete:servers"]},
]

# What a browser's login at a server may be used for, besides access to that server; without it no browser has the scopes.
c.Spawner.oauth_client_allowed_scopes = sorted(c.JupyterHub.custom_scopes)
c.Spawner.args = [
    "--ServerApp.authorizer_class=cc_executor.server.authorizer.HubAuthorizer",
    "--HubOAuth.cache_max_age=60",  # seconds for which a share or token that was revoked still works; 300 without
    "--CCExecutorServer.max_activity=43200",  # seconds for which one run keeps a server from the culler, at most
]
c.Spawner.environment = {"JUPYTERHUB_ACTIVITY_INTERVAL": "60"}  # seconds; the culler's timeout has to be a few of these

# Servers where nothing happens are stopped. A run or a list at work is something.
c.JupyterHub.services = [{"name": "idle-culler", "command": [sys.executable, "-m", "jupyterhub_idle_culler", "--timeout=3600"]}]
