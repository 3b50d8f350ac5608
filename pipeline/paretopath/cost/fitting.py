"""Why a layer can't run on a design: which memory is too small for the least that it must hold."""

from paretopath.cost.hardware import Hardware, Memory
from paretopath.cost.loopnest import Workload, unroll
from paretopath.cost.nests import Nests
from paretopath.cost.orders import schedules
from paretopath.tracing import Layer

_NAMES = {"O": "outputs", "W": "weights", "I": "inputs"}


def why_unfit(design: Hardware, layer: Layer) -> str:
    """What a layer that no mapping fits needs, and what there is, as the end of a sentence."""
    work = Workload.of([layer])
    variant = next(design.variants())
    unrolling = unroll(variant, work)
    schedule = next(schedules(work, unrolling, max_factors=1, max_cells=1))
    nests = Nests.build(variant, work.take(schedule.rows), unrolling, schedule)
    for memory in variant.memories:
        needed = _least_bits(variant, nests, memory)
        if needed > memory.size_bits:
            held = " and ".join(_NAMES[operand] for operand in memory.operands)
            return (
                f"memory {memory.name!r} must hold at least {_bits(needed)} of {held} at once, "
                f"but has {_bits(memory.size_bits)}"
            )
    return "the tiles of its operands don't fit into the memories that they share"


def _least_bits(design: Hardware, nests: Nests, memory: Memory) -> float:
    """Bits of the smallest tiles of a memory's operands: what one step needs; of an operand's
    outermost memory, all of it.
    """
    total = 0.0
    for operand in memory.operands:
        levels = design.levels(operand)
        m = levels.index(memory)
        sizes = nests.elements(operand, nests.exact[operand][m])  # (f + 1, N), rising
        is_last = m == len(levels) - 1
        bits = nests.bits[operand]
        if operand == "O" and not is_last:
            bits = nests.partial_bits
        elements = nests.elements(operand, nests.exact[operand][-1])[-1] if is_last else sizes[0]
        total += float((elements * bits).min())
    return total


def _bits(count: float) -> str:
    for size, name in ((8e9, "GB"), (8e6, "MB"), (8e3, "kB")):
        if count >= size:
            return f"{count / size:.3g} {name}"
    return f"{count:.0f} bits"
