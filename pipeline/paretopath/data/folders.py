"""Folders of pictures: which files are in which split, and which are in none.

Splits are folders at the top, by name; `datasets` itself takes such words from anywhere in a file's
or a folder's name, so that ``rose/test_1.jpg`` would be in two splits.
"""

import glob
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from paretopath.data.saying import say
from paretopath.errors import DataError
from paretopath.quantities import counted

SPLIT_FOLDERS: Mapping[str, Sequence[str]] = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""Names of a split's folder, in any case of letters."""

_BESIDE = ("csv", "json", "jsonl", "parquet", "xml", "yaml", "yml", "txt", "md", "db", "ini", "zip")
"""Endings of files that are no pictures, and that nobody would take for some."""


def split_patterns(folder: Path, *, by_class: bool) -> dict[str, list[str]]:
    """Patterns of the files of each split; all are ``train`` where no folder has a split's name.

    Says which files are in no split and, by class, which classes come from several folders.

    Args:
        folder: with folders of pictures.
        by_class: whether the name of a picture's folder is its class.

    Raises:
        DataError: there is no picture in it.
    """
    splits: dict[str, list[Path]] = defaultdict(list)
    for inner in sorted(path for path in folder.iterdir() if path.is_dir()):
        for split, names in SPLIT_FOLDERS.items():
            if inner.name.lower() in names:
                splits[split].append(inner)
    splits = splits or {"train": [folder]}
    pictures = _pictures(folder)
    roots = {root: split for split, some in splits.items() for root in some}
    found: dict[str, list[Path]] = defaultdict(list)
    for place in pictures:
        root = next((r for r in (place, *place.parents) if r in roots), None)
        found[roots[root] if root else ""].append(place)
    if outside := found.pop("", []):
        number = sum(pictures[place] for place in outside)
        say(
            f"{counted(number, 'picture')} in {folder} {_are(number)} not used, being in none of "
            f"its splits ({', '.join(root.name for root in roots)}): see "
            f"{outside[0].relative_to(folder)}"
        )
    if by_class:
        for split, places in found.items():
            _say_mixed(folder, split, places)
    return {
        split: [f"{glob.escape(str(root))}/**" for root in some] for split, some in splits.items()
    }


def _pictures(folder: Path) -> dict[Path, int]:
    """The folders that have pictures, and how many; says what no picture is."""
    from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder

    found: Counter[Path] = Counter()
    others: Counter[str] = Counter()
    for place, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            ending = os.path.splitext(name)[1].lower()
            if ending in ImageFolder.EXTENSIONS:
                found[Path(place)] += 1
            elif not name.startswith("."):
                others[ending or "no ending"] += 1
    if not found:
        listed = f", only files with {', '.join(sorted(others)[:5])}" if others else ""
        raise DataError(
            f"data.data_dir must be a folder with a folder of pictures (.jpg, .png, …) for each "
            f"class, but there is no picture in {folder}{listed}"
        )
    odd = {end: number for end, number in others.items() if end.lstrip(".") not in _BESIDE}
    if number := sum(odd.values()):
        say(
            f"{counted(number, 'file')} in {folder} {_are(number)} not used, being no pictures "
            f"that can be read: {', '.join(sorted(odd)[:5])}"
        )
    return found


def _say_mixed(folder: Path, split: str, places: Sequence[Path]) -> None:
    """Says where a class of a split is read from several folders."""
    by_name: dict[str, list[str]] = defaultdict(list)
    for place in places:
        by_name[place.name].append(str(place.relative_to(folder)))
    mixed = {name: some for name, some in by_name.items() if len(some) > 1}
    if not mixed:
        return
    name, some = min(mixed.items())
    more = f"; likewise {len(mixed) - 1} more" if len(mixed) > 1 else ""
    say(
        f"a picture's class is the name of its own folder, so class {name!r} of {split} is read "
        f"from {len(some)} folders ({', '.join(some[:3])}{', …' if len(some) > 3 else ''}){more}"
    )


def _are(number: int) -> str:
    return "is" if number == 1 else "are"
