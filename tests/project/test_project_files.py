"""The project's own files: what lies at the top, what the lock pins, what the wheel enables."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path
from typing import Any, Final

import pytest

from support.environments import CHECKOUT

TOP_LEVEL: Final = {
    "CHANGELOG.md", "LICENSE", "Makefile", "README.md", "docs", "jupyter-config", "notebooks", "pyproject.toml", "requirements.lock", "src", "tests",
}  # fmt: skip
ALLOWED: Final = {"benchmarks", "build", "dist", "node_modules"}  # the latter three are made by tools


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))


def requirement_name(requirement: str) -> str:
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name, requirement
    return re.sub(r"[-_.]+", "-", name.group()).lower()


def test_the_top_level_holds_what_it_should_and_nothing_else() -> None:
    found = {path.name for path in CHECKOUT.iterdir() if not path.name.startswith(".")}
    assert found - ALLOWED == TOP_LEVEL


def test_the_lock_names_versions_and_no_place_to_fetch_them_from() -> None:
    line = re.compile(r"[a-z0-9-]+==[0-9][0-9A-Za-z.+!]*( ; [^@:/]+)?")
    for text in (CHECKOUT / "requirements.lock").read_text(encoding="utf-8").splitlines():
        assert line.fullmatch(text), text


def test_the_lock_pins_every_requirement(project: dict[str, Any]) -> None:
    locked = {line.partition("==")[0] for line in (CHECKOUT / "requirements.lock").read_text(encoding="utf-8").splitlines()}
    asked = list(project["project"]["dependencies"])
    for extra in project["project"]["optional-dependencies"].values():
        asked += extra
    assert {requirement_name(item) for item in asked} - {"cc-executor"} <= locked


def test_a_server_with_holes_that_are_known_is_not_taken(project: dict[str, Any]) -> None:
    """CVE-2026-44727 is mended in 2.20, CVE-2026-40934, -40110 and -35397 in 2.18."""
    (floor,) = [each for each in project["project"]["optional-dependencies"]["server"] if requirement_name(each) == "jupyter-server"]
    wanted = re.search(r">=(\d+)\.(\d+)", floor)
    assert wanted is not None
    assert tuple(map(int, wanted.groups())) >= (2, 20)


def test_every_optional_part_is_known(project: dict[str, Any]) -> None:
    assert set(project["project"]["optional-dependencies"]) == {"claude", "server", "mcp", "signing", "redis", "otel", "dev"}


def test_the_wheel_enables_the_server_extension(project: dict[str, Any]) -> None:
    [(source, target)] = project["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"].items()
    assert target == "etc/jupyter/jupyter_server_config.d"
    [file] = sorted((CHECKOUT / source).iterdir())
    assert json.loads(file.read_text(encoding="utf-8")) == {"ServerApp": {"jpserver_extensions": {"cc_executor": True}}}


@pytest.mark.parametrize(
    ("group", "name", "kind"),
    [("jupyter_server_mcp.tools", "cc_executor", ast.FunctionDef), ("jupyter_ai.personas", "cc-executor", ast.ClassDef)],
)
def test_neighbours_find_what_is_for_them(project: dict[str, Any], group: str, name: str, kind: type[ast.AST]) -> None:
    """Read and not imported: one of them needs a package that is not here (`make neighbours` has it)."""
    [(found, place)] = project["project"]["entry-points"][group].items()
    module, _, wanted = place.partition(":")
    tree = ast.parse((CHECKOUT / "src" / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
    assert found == name
    assert [each for each in tree.body if isinstance(each, kind) and getattr(each, "name", "") == wanted]


def test_scripts_at_the_top_can_be_executed() -> None:
    for path in sorted((CHECKOUT / ".ci").iterdir()):
        assert path.stat().st_mode & 0o111, path
        assert path.read_text(encoding="utf-8").startswith("#!/usr/bin/env bash\n"), path


def test_setting_up_leaves_to_pip_what_only_pip_is_told_of_and_needs_no_python_where_all_is_there(tmp_path: Path) -> None:
    made, asked, tools = tmp_path / ".venvs" / "uv", tmp_path / "asked", tmp_path / "tools"
    venv.create(made, with_pip=True)
    (made / "bin" / "uv").write_text(f"#!/bin/sh\necho > {asked}\nexit 1\n")
    (made / "bin" / "uv").chmod(0o755)
    tools.mkdir()
    for name in ("bash", "grep", "rm"):
        (tools / name).symlink_to(shutil.which(name) or name)
    index = tmp_path / "pip.conf"
    index.write_text("[global]\nindex-url = https://packages.example/simple\n")

    def set_up(configured: Path) -> bool:
        """Whether uv was asked."""
        asked.unlink(missing_ok=True)
        argv = ["bash", CHECKOUT / ".ci" / "venv", made, "pip"]  # which is there already: nothing is fetched
        environ = {"PATH": str(tools), "PIP_CONFIG_FILE": str(configured), "CONSTRAINTS": ""}
        subprocess.run(argv, cwd=tmp_path, env=environ, check=True, timeout=60)
        return asked.exists()

    assert not set_up(Path(os.devnull))
    (tools / "python3").write_text(
        f'#!/bin/sh\n[ "$2" = pip ] && exit 1\nexec {sys.executable} "$@"\n'
    )  # without a pip of its own, as Debian's
    (tools / "python3").chmod(0o755)
    assert not set_up(index)
    assert set_up(Path(os.devnull))


def test_the_license_names_its_holders() -> None:
    text = Path(CHECKOUT / "LICENSE").read_text(encoding="utf-8")
    assert text.startswith("BSD 3-Clause License")
    assert "The cc_executor authors" in text
