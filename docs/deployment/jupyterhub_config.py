"""The hub of the container: who gets in, and where each one's files lie. Everything else is JupyterHub's default."""

import os
from pathlib import Path

c = get_config()  # noqa: F821 # pyright: ignore[reportUndefinedVariable] - JupyterHub's, when it reads this file

c.JupyterHub.bind_url = "http://:8000"  # of the container; compose.yaml publishes it on the machine's loopback alone
c.JupyterHub.db_url = "sqlite:////srv/hub/jupyterhub.sqlite"
c.JupyterHub.cookie_secret_file = "/srv/hub/cookie_secret"  # noqa: S105 - a path
c.ConfigurableHTTPProxy.pid_file = "/srv/hub/proxy.pid"

# One password for all who are named. For others: an OAuthenticator (https://oauthenticator.readthedocs.io).
c.JupyterHub.authenticator_class = "shared-password"
c.SharedPasswordAuthenticator.user_password = (
    Path(os.environ.get("PASSWORD_FILE", "/run/secrets/password")).read_text(encoding="utf-8").strip()
)
c.Authenticator.allowed_users = set(os.environ["PEOPLE"].split())

# Processes of the hub's own user, each in a home of its own: one container is for people who trust each other (docs/deployment.md).
c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = "/people/{username}"
c.Spawner.default_url = "/lab"
c.Spawner.environment = {name: value for name in ("CC_EXECUTOR_REDIS",) if (value := os.environ.get(name))}
