"""Finds a hardware description: a preset by name, a file of ours, or a pair of ZigZag's files."""

from pathlib import Path

import yaml

from paretopath.cost.hardware import Hardware, parse_hardware, read_yaml
from paretopath.cost.zigzag_format import is_zigzag, parse_zigzag
from paretopath.errors import HardwareError, nearest
from paretopath.recipe.presets import preset_names, presets, require_preset


def load_design(
    *,
    preset: str | None = None,
    hardware: str | Path | None = None,
    mapping: str | Path | None = None,
) -> Hardware:
    """An accelerator by name or from files.

    Args:
        preset: one of :func:`preset_names`.
        hardware: a YAML file, of this package's schema or of ZigZag's.
        mapping: ZigZag's mapping YAML; only with ZigZag's hardware.

    Raises:
        HardwareError: not exactly one of preset and hardware, an unknown name, or a file that can't
            be read.
    """
    if (preset is None) == (hardware is None):
        raise HardwareError(
            f"give either a preset or a hardware file; {nearest(preset, preset_names())}"
        )
    if preset is not None:
        if mapping is not None:
            raise HardwareError(
                "a preset brings its mapping; give a hardware file to use another one"
            )
        return read_preset(preset)
    assert hardware is not None
    data = read_yaml(hardware)
    if is_zigzag(data):
        if mapping is None:
            raise HardwareError(
                f"{hardware} is a ZigZag accelerator: it needs ZigZag's mapping file too"
            )
        return parse_zigzag(
            data, read_yaml(mapping), origin=str(hardware), mapping_origin=str(mapping)
        )
    if mapping is not None:
        raise HardwareError(
            f"{hardware} says in array.unrolling how it is mapped: it takes no mapping file"
        )
    return parse_hardware(data, origin=str(hardware))


def read_preset(name: str) -> Hardware:
    """Hardware by name; HardwareError if there is none."""
    text = (presets() / f"{require_preset(name)}.yaml").read_text()
    return parse_hardware(yaml.safe_load(text), origin=f"preset {name}")
