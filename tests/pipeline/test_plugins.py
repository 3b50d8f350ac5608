"""What others add by name: what is found, and what a name that finds nothing says."""

from pathlib import Path

import pytest

from paretopath import plugins
from paretopath.errors import InvalidValueError


def test_names_of_a_group_are_those_that_packages_register() -> None:
    tasks = ["classification", "detection", "segmentation"]
    assert plugins.names("paretopath.tasks") == tasks


def test_a_registered_name_and_the_class_itself_are_the_same() -> None:
    section = "paretopath.tasks.classification.section:ClassificationSection"
    by_name = plugins.find("paretopath.tasks", "classification", kind="task")
    assert by_name is plugins.find("paretopath.tasks", section, kind="task")


def test_a_name_that_nobody_registers_gets_the_nearest_one() -> None:
    with pytest.raises(InvalidValueError, match=r"no task 'segmention'.*did you mean 'segmenta"):
        plugins.find("paretopath.tasks", "segmention", kind="task")


def test_a_group_without_names_says_what_to_do() -> None:
    with pytest.raises(InvalidValueError, match="install it again"):
        plugins.find("paretopath.nothing", "x", kind="thing")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nowhere_at_all:Task", "No module named 'nowhere_at_all'"),
        ("paretopath.errors:Tusk", "no attribute 'Tusk'"),
        ("paretopath.errors:", "AttributeError"),
        (":Task", "ValueError"),
        ("broken_module:Task", "ZeroDivisionError: division by zero"),
    ],
)
def test_what_can_not_be_imported_is_named_with_the_reason(
    name: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_module.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InvalidValueError, match=reason):
        plugins.find("paretopath.tasks", name, kind="task")
