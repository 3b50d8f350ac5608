"""ZigZag's formats of accelerators, mappings and layers (zigzag-dse 3), read and written."""

from collections.abc import Mapping
from typing import Any

from paretopath.cost.hardware import LOOPS, Hardware, Port, parse_hardware
from paretopath.cost.loopnest import loop_sizes
from paretopath.errors import HardwareError, nearest
from paretopath.tracing import Layer

# ZigZag counts cycles and gives no clock; at 1 GHz a cycle is a nanosecond.
CLOCK_MHZ = 1000.0
MOVES = {"fh": "from_higher", "tl": "to_lower", "fl": "from_lower", "th": "to_higher"}
NAMES = {
    "array.mac_energy_pj": "operational_array.unit_energy",
    "array.dimensions": "operational_array.sizes",
    "size_bits": "size",
    "read_energy_pj": "r_cost",
    "write_energy_pj": "w_cost",
    "min_bits": "bandwidth_min",
    "max_bits": "bandwidth_max",
}
LINKS = {"O": "O", "W": "I2", "I": "I1"}


def is_zigzag(data: Any) -> bool:
    """Whether a hardware file's content is in ZigZag's format."""
    return isinstance(data, dict) and "operational_array" in data


def parse_zigzag(data: Any, mapping: Any, *, origin: str, mapping_origin: str) -> Hardware:
    """An accelerator from the contents of ZigZag's hardware and mapping files.

    The mapping's entry ``Conv`` is used, else ``default``. What ZigZag's files don't say is set so:
    1 GHz; partial sums have twice a value's bits, as in ZigZag's own workloads; the vector unit has
    a lane for each unit of the array's longest dimension, and an operation takes the energy of a
    multiply-accumulate.

    Args:
        data, mapping: as read from YAML.
        origin, mapping_origin: the files' names, for errors.

    Raises:
        HardwareError: what can't be read, with file and field.
    """
    array = _field(data, "operational_array", origin)
    where = f"{origin}: operational_array"
    if isinstance(array, Mapping) and array.get("is_imc"):
        raise HardwareError(f"{where}.is_imc: in-memory-computing arrays are not modelled")
    names, sizes = _field(array, "dimensions", where), _field(array, "sizes", where)
    if len(names) != len(sizes):
        raise HardwareError(f"{where} needs a size for each dimension, got {names} and {sizes}")
    dimensions = dict(zip(names, sizes, strict=True))
    entry = _entry(mapping, mapping_origin)
    links = {
        memory: operand for operand, memory in entry.get("memory_operand_links", LINKS).items()
    }
    memories = _field(data, "memories", origin)
    energy = _field(array, "unit_energy", where)
    return parse_hardware(
        {
            "name": _field(data, "name", origin),
            "clock_mhz": CLOCK_MHZ,
            "guard_bits": 0,
            "array": {
                "mac_energy_pj": energy,
                "dimensions": dimensions,
                "systolic": array.get("systolic_dimensions") or [],
                **_unrolling(entry, mapping_origin, dimensions),
            },
            "memories": [
                _memory(name, memory, links, outermost=name == list(memories)[-1], origin=origin)
                for name, memory in memories.items()
            ],
            "vector_unit": {"lanes": max(sizes), "operation_energy_pj": energy},
        },
        origin=origin,
        names=NAMES,
    )


def _field(data: Any, name: str, where: str) -> Any:
    if not isinstance(data, Mapping):
        raise HardwareError(f"{where} must hold a mapping of fields, got {type(data).__name__}")
    if name not in data:
        has = ", ".join(map(str, data)) or "none"
        raise HardwareError(f"{where} lacks the field {name!r}; it has {has}")
    return data[name]


def _entry(mapping: Any, origin: str) -> Mapping[str, Any]:
    listed = mapping if isinstance(mapping, list) else []
    entries = {entry.get("name"): entry for entry in listed if isinstance(entry, Mapping)}
    found = entries.get("Conv", entries.get("default"))
    if found is None:
        raise HardwareError(
            f"{origin} must be a list with an entry named 'default'; it has {list(entries)}"
        )
    if found.get("temporal_ordering"):
        raise HardwareError(
            f"{origin}: a fixed temporal_ordering is not supported, since every order is tried"
        )
    return found


def _unrolling(
    entry: Mapping[str, Any], origin: str, dimensions: Mapping[str, int]
) -> dict[str, dict[str, Any]]:
    """The array's ``unrolling`` and, for dimensions that the mapping leaves open, ``choices``."""
    spatial = entry.get("spatial_mapping") or {}
    hints = entry.get("spatial_mapping_hint") or {}
    unrolling: dict[str, Any] = {}
    for name, factors in spatial.items():
        place = f"{origin}: spatial_mapping"
        if name not in dimensions:
            raise HardwareError(f"{place} names {name!r}; {nearest(name, dimensions)}")
        unrolling[name] = {}
        for factor in factors:
            loop, _, size = str(factor).replace(" ", "").partition(",")
            if loop not in LOOPS or not size.isdigit():
                raise HardwareError(
                    f"{place}.{name} must hold entries like 'K, 32' over a convolution's loops, "
                    f"got {factor!r}; {nearest(loop, LOOPS)}"
                )
            unrolling[name][loop] = int(size)
    return {
        "unrolling": unrolling,
        "choices": {name: hints.get(name, LOOPS) for name in dimensions if name not in spatial},
    }


def _memory(
    name: str, memory: Any, links: Mapping[str, str], *, outermost: bool, origin: str
) -> dict[str, Any]:
    where = f"{origin}: memories.{name}"
    if not isinstance(memory, Mapping):
        raise HardwareError(f"{where} must hold a mapping of fields, got {type(memory).__name__}")
    if memory.get("auto_cost_extraction"):
        raise HardwareError(
            f"{where}.auto_cost_extraction needs CACTI, which is not there: give r_cost and w_cost"
        )
    size = _field(memory, "size", where)
    ports = []
    for port in _field(memory, "ports", where):
        place = f"{where}.ports"
        moves = []
        for allocation in _field(port, "allocation", place):
            operand, _, move = str(allocation).replace(" ", "").partition(",")
            if operand not in links or move not in MOVES:
                raise HardwareError(
                    f"{place}.allocation must hold entries like 'I1, tl', got {allocation!r}; "
                    f"{nearest(move, MOVES)}"
                )
            moves.append(f"{links[operand]} {MOVES[move]}")
        ports.append(
            {
                "name": _field(port, "name", place),
                "min_bits": _field(port, "bandwidth_min", place),
                "max_bits": _field(port, "bandwidth_max", place),
                "moves": moves,
            }
        )
    operands = _field(memory, "operands", where)
    unknown = [operand for operand in operands if operand not in links]
    if unknown:
        raise HardwareError(f"{where}.operands names {unknown[0]!r}; {nearest(unknown[0], links)}")
    return {
        "name": name,
        "level": "dram" if outermost else _level(size),
        "size_bits": size,
        "read_energy_pj": _field(memory, "r_cost", where),
        "write_energy_pj": _field(memory, "w_cost", where),
        "operands": [links[operand] for operand in operands],
        "serves": _field(memory, "served_dimensions", where),
        "double_buffered": memory.get("force_double_buffering", False),
        "ports": ports,
    }


def _level(size_bits: int) -> str:
    """Where a memory's energy is reported: below 1 KiB registers, from 512 KiB a global buffer."""
    if size_bits < 8 * 2**10:
        return "registers"
    return "buffers" if size_bits < 8 * 512 * 2**10 else "global_buffer"


def zigzag_accelerator(design: Hardware) -> dict[str, Any]:
    """The design in ZigZag's accelerator format."""
    numbered = _numbered(design)
    return {
        "name": design.name.replace("-", "_"),
        "operational_array": {
            "unit_energy": design.array.mac_energy_pj,
            "unit_area": 1,
            "dimensions": list(numbered.values()),
            "sizes": list(design.array.dimensions.values()),
            "systolic_dimensions": [numbered[name] for name in design.array.systolic],
        },
        "memories": {
            memory.name: {
                "size": memory.size_bits,
                "r_cost": memory.read_energy_pj,
                "w_cost": memory.write_energy_pj,
                "area": 0,
                "latency": 1,
                "operands": [LINKS[operand] for operand in memory.operands],
                "force_double_buffering": memory.double_buffered,
                "ports": [_zigzag_port(i, port) for i, port in enumerate(memory.ports, start=1)],
                "served_dimensions": [numbered[name] for name in memory.serves],
            }
            for memory in design.memories
        },
    }


def zigzag_mapping(design: Hardware) -> list[dict[str, Any]]:
    """The design's unrolling in ZigZag's mapping format."""
    numbered = _numbered(design)
    spatial = {
        numbered[name]: [f"{loop}, {factor}" for loop, factor in factors.items()]
        for name, factors in design.array.unrolling.items()
    }
    entry = {"name": "default", "spatial_mapping": spatial, "memory_operand_links": dict(LINKS)}
    if design.array.choices:
        open_dimensions = design.array.choices.items()
        entry["spatial_mapping_hint"] = {numbered[d]: list(loops) for d, loops in open_dimensions}
    return [entry]


def zigzag_workload(layer: Layer, design: Hardware) -> dict[str, Any]:
    """A layer in ZigZag's workload format."""
    sizes = dict(zip(LOOPS, loop_sizes(layer), strict=True))
    group = "[g]" if layer.groups > 1 else ""
    if layer.groups == 1:
        del sizes["G"]
    return {
        "id": 0,
        "name": "layer",
        "operator_type": "Conv",
        "equation": f"O[b]{group}[k][oy][ox]+=W{group}[k][c][fy][fx]*I[b]{group}[c][iy][ix]",
        "dimension_relations": [f"ix={layer.stride}*ox+1*fx", f"iy={layer.stride}*oy+1*fy"],
        "loop_dims": list(sizes),
        "loop_sizes": list(sizes.values()),
        "operand_precision": {
            "W": layer.stationary_bits,
            "I": layer.activation_bits,
            "O": layer.stationary_bits + layer.activation_bits + design.guard_bits,
            "O_final": layer.activation_bits,
        },
        "operand_source": {"W": 0, "I": 0},
        "pr_loop_dims": ["IX", "IY"],
        "pr_loop_sizes": [layer.ix, layer.iy],
        "padding": [[0, 0], [0, 0]],
    }


def _numbered(design: Hardware) -> dict[str, str]:
    return {name: f"D{i}" for i, name in enumerate(design.array.dimensions, start=1)}


def _zigzag_port(number: int, port: Port) -> dict[str, Any]:
    reads = any(move in ("to_lower", "to_higher") for _, move in port.moves)
    writes = any(move in ("from_lower", "from_higher") for _, move in port.moves)
    short = {move: name for name, move in MOVES.items()}
    return {
        "name": f"{'r' * reads}{'w' * writes}_port_{number}",
        "type": "read_write" if reads and writes else "read" if reads else "write",
        "bandwidth_min": port.min_bits,
        "bandwidth_max": port.max_bits,
        "allocation": [f"{LINKS[operand]}, {short[move]}" for operand, move in port.moves],
    }
