"""The container's files: that they are well formed, name what there is, and open nothing. They are built and run by hand (docs/deployment.md)."""

from __future__ import annotations

import re
import runpy
import shlex
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from traitlets.config import Config

from support.environments import CHECKOUT

FOLDER: Final = CHECKOUT / "docs" / "deployment"
Instruction = tuple[str, str]


@pytest.fixture(scope="module")
def instructions() -> list[Instruction]:
    text = (FOLDER / "Containerfile").read_text(encoding="utf-8")
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#")).replace("\\\n", "").splitlines()
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in lines if line)]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))


def all_of(instructions: list[Instruction], name: str) -> list[str]:
    return [rest for each, rest in instructions if each == name]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Config:
    """What the hub reads, for two people."""
    config = Config()
    (tmp_path / "password").write_text("not a secret\n", encoding="utf-8")
    for name, value in {"PEOPLE": "alice bob", "PASSWORD_FILE": str(tmp_path / "password"), "CC_EXECUTOR_REDIS": "unix:///x"}.items():
        monkeypatch.setenv(name, value)
    runpy.run_path(str(FOLDER / "jupyterhub_config.py"), {"get_config": lambda: config})
    return config


def test_the_image_is_made_of_what_there_is(instructions: list[Instruction]) -> None:
    known = {"ARG", "FROM", "RUN", "WORKDIR", "COPY", "ENV", "USER", "EXPOSE", "ENTRYPOINT", "CMD"}
    assert {name for name, _ in instructions} == known
    sources = [source for rest in all_of(instructions, "COPY") for source in shlex.split(rest)[:-1]]
    assert "src" in sources
    assert [source for source in sources if not (CHECKOUT / source).exists()] == []
    extras = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    [chosen] = [rest.removeprefix("EXTRAS=") for rest in all_of(instructions, "ARG") if rest.startswith("EXTRAS=")]
    assert set(chosen.split(",")) <= set(extras)
    assert all_of(instructions, "FROM") == ["${BASE}"]
    [shared] = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"]["wheel"][
        "shared-data"
    ]
    assert shared.split("/")[0] in sources, "without it the extension is not enabled"


def test_nobody_in_the_container_has_rights(instructions: list[Instruction], compose: dict[str, Any]) -> None:
    assert all_of(instructions, "USER") == ["1000:1000"]
    after = instructions[instructions.index(("USER", "1000:1000")) :]
    assert "RUN" not in {name for name, _ in after}
    for service in compose["services"].values():
        assert "user" not in service
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "privileged" not in service


def test_nothing_is_published_but_on_loopback(instructions: list[Instruction], compose: dict[str, Any], hub: Config) -> None:
    [port] = all_of(instructions, "EXPOSE")
    assert hub.JupyterHub.bind_url == f"http://:{port}"
    published = [each for service in compose["services"].values() for each in service.get("ports", [])]
    assert published == [f"127.0.0.1:${{PORT:-8000}}:{port}"]
    assert compose["services"]["redis"]["network_mode"] == "none"
    assert f":{port}/hub/health" in compose["services"]["hub"]["healthcheck"]["test"][-1]


def test_what_is_kept_lies_in_volumes_that_the_user_owns(instructions: list[Instruction], compose: dict[str, Any], hub: Config) -> None:
    [made] = [rest for rest in all_of(instructions, "RUN") if "useradd" in rest]
    folders = set(re.findall(r" (/\S+)", made.partition("install --directory")[2]))
    mounts = {each for service in compose["services"].values() for each in service["volumes"]}
    assert {mount.partition(":")[2] for mount in mounts} == folders
    assert {mount.partition(":")[0] for mount in mounts} == set(compose["volumes"])
    kept = (
        hub.JupyterHub.db_url.removeprefix("sqlite:///"),
        hub.JupyterHub.cookie_secret_file,
        hub.SimpleLocalProcessSpawner.home_dir_template,
    )
    assert {str(Path(path).parent) for path in kept} == {"/srv/hub", "/people"}
    assert hub.Authenticator.allowed_users == {"alice", "bob"}


def test_a_later_container_settles_the_runs_of_the_one_before_it(compose: dict[str, Any]) -> None:
    """It is known by the name of its host, which would be another random one each time."""
    assert compose["services"]["hub"]["hostname"]
    assert "--hostname" in (CHECKOUT / "docs" / "deployment.md").read_text(encoding="utf-8")


def test_each_service_says_whether_it_is_well(compose: dict[str, Any], instructions: list[Instruction]) -> None:
    built = compose["services"]["hub"]["build"]
    assert (FOLDER / built["context"]).resolve() == CHECKOUT
    assert (CHECKOUT / built["dockerfile"]).is_file()
    for service in compose["services"].values():
        assert service["image"] == compose["services"]["hub"]["image"], "one image"
        assert service["healthcheck"]["test"][0] == "CMD"
    config = shlex.split(all_of(instructions, "COPY")[-1])[1]
    assert config in all_of(instructions, "CMD")[0]
    redis = compose["services"]["redis"]
    socket = redis["command"][redis["command"].index("--unixsocket") + 1]
    assert socket in redis["healthcheck"]["test"]
    assert f"unix://{socket}" in (CHECKOUT / "docs" / "deployment.md").read_text(encoding="utf-8")
