"""The lines for configuration files that pages show can be put into one as they stand, and take nothing away that another page has told to put there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest
from traitlets.config import Config
from traitlets.config.loader import PyFileConfigLoader

from cc_executor.server.authorizer import HubAuthorizer
from cc_executor.server.settings import ServerSettings
from support.environments import CHECKOUT
from support.pages import PAGES, Block, Kind, blocks

SHIPPED: Final = CHECKOUT / "docs" / "hub" / "jupyterhub_config.py"
_LINE: Final = re.compile(r"(?m)^c\.\w+\.\w+")
AUTHORIZER: Final = f"--ServerApp.authorizer_class={HubAuthorizer.__module__}.{HubAuthorizer.__name__}"


SETTINGS: Final = [block for page in PAGES for block in blocks(page) if block.kind is Kind.TEXT and _LINE.search(block.text)]


def loaded(folder: Path, text: str) -> Config:
    """What a file with these lines says, where the shipped file was loaded before them."""
    place = folder / "config.py"
    text = text.replace("/path/to/docs/hub/jupyterhub_config.py", str(SHIPPED)).replace("/var/log/", f"{folder}/")
    place.write_text(f"load_subconfig({str(SHIPPED)!r})\n{text}", encoding="utf-8")
    return PyFileConfigLoader(place.name, path=str(folder)).load_config()


@pytest.mark.parametrize("block", SETTINGS, ids=lambda block: Path(block.place).name)
def test_what_a_page_tells_to_set_can_be_set_beside_the_rest(block: Block, tmp_path: Path) -> None:
    config = loaded(tmp_path, block.text)
    assert AUTHORIZER in config.Spawner.args
    assert config.JupyterHub.load_roles[0]["name"] == "agents"
    ServerSettings(**config.CCExecutorServer)  # a trait refuses what it does not take
    names = [argument.removeprefix("--").partition("=")[0].split(".") for argument in config.Spawner.args]
    said = {*config.CCExecutorServer, *(name for owner, name in names if owner == "CCExecutorServer")}
    assert said <= set(ServerSettings.class_trait_names(config=True))
