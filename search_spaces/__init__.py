"""The model families that can be searched, one file each, found by name."""

from pipeline.registry import create_space as create
from pipeline.registry import space_names as names

__all__ = ["create", "names"]
