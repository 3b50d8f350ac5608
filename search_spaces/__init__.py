"""The model families that can be searched, one file each, found by name."""

from paretopath.elastic.registry import create_space as create
from paretopath.elastic.registry import space_names as names

__all__ = ["create", "names"]
