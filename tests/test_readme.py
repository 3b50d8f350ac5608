"""What the README tells people to type."""

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from paretopath.cli.app import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.strip().split(" # ")[0]
    for block in re.findall(r"(?:^    .+\n)+|```bash\n(?:.+\n)+?```", README, flags=re.MULTILINE)
    for line in block.splitlines()
    if "paretopath " in line
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_parses(command: str) -> None:
    words = shlex.split(command[command.index("paretopath ") :])[1:]
    name, *arguments = words
    group = get_command(app)
    found = group.commands[name]  # type: ignore[attr-defined]
    found.make_context(name, [a.rstrip(",") for a in arguments])  # raises on a wrong option


def test_the_readme_has_commands_for_all_three_things_that_users_do() -> None:
    names = {shlex.split(c[c.index("paretopath ") :])[1] for c in COMMANDS}
    assert {"search", "retrain", "front"} <= names


def test_files_that_the_readme_names_exist() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    missing = [link for link in links if "://" not in link and not (ROOT / link).exists()]
    assert not missing
    for command in COMMANDS:
        for recipe in re.findall(r"recipes/\S+\.yaml", command):
            assert (ROOT / recipe).is_file(), recipe
