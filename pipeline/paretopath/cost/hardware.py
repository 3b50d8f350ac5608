"""What an accelerator is made of: the schema of a hardware file, with units in its field names."""

import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from paretopath.cost.plausible import (
    BANDWIDTH,
    CLOCK,
    COUNT,
    DRAM_BIT,
    DRAM_SIZE,
    GUARD,
    ON_CHIP_BIT,
    ON_CHIP_SIZE,
    OPERATION,
    plausible,
)
from paretopath.errors import HardwareError, nearest
from paretopath.recipe.document import parse_yaml

Floats = npt.NDArray[np.float64]
Operand = Literal["W", "I", "O"]
OPERANDS: tuple[Operand, ...] = ("O", "W", "I")
Loop = Literal["B", "G", "K", "C", "OY", "OX", "FY", "FX"]
LOOPS: tuple[Loop, ...] = ("B", "G", "K", "C", "OY", "OX", "FY", "FX")
Move = Literal["to_lower", "from_lower", "to_higher", "from_higher"]
READS: tuple[Move, ...] = ("to_lower", "to_higher")
LevelKind = Literal["registers", "buffers", "global_buffer", "dram"]
LEVELS: tuple[str, ...] = ("mac", "registers", "buffers", "global_buffer", "dram", "vector")

# Functions of one tensor's elements, batch normalisation's scale and shift among them: what the
# post-processing unit of an accelerator applies to results on their way out of the array.
FUSED_OPERATORS = (
    "native_batch_norm",
    "_native_batch_norm_legit_no_training",
    "relu",
    "relu_",
    "hardtanh",
    "hardtanh_",
    "gelu",
    "silu",
    "silu_",
    "hardswish",
    "hardswish_",
    "sigmoid",
    "mul",  # by a scalar, as attention's scale
    "div",
)
# Functions of two tensors: one is on its way out of the array, the other is read for it.
JOINED_OPERATORS = ("add", "add_", "sub")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Port(_Strict):
    """One physical port of a memory.

    Attributes:
        name: unique in its memory.
        min_bits: the narrowest access; a smaller one costs as much.
        max_bits: bits a cycle; an access of this width costs the memory's read or write energy.
        moves: what it carries: ``I to_lower`` is inputs read towards the multipliers,
            ``O from_lower`` results written from below, ``O to_lower`` partial sums read back.
    """

    name: str
    min_bits: Annotated[int, Field(gt=0), plausible(BANDWIDTH)]
    max_bits: Annotated[int, Field(gt=0), plausible(BANDWIDTH)]
    moves: tuple[tuple[Operand, Move], ...]

    @model_validator(mode="before")
    @classmethod
    def _split_moves(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and isinstance(data.get("moves"), list):
            moves = [tuple(m.split()) if isinstance(m, str) else m for m in data["moves"]]
            return {**data, "moves": moves}
        return data

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_bits > self.max_bits:
            raise ValueError(
                f"min_bits must not exceed max_bits, got {self.min_bits} > {self.max_bits}"
            )
        return self


class Memory(_Strict):
    """One memory, repeated over the array dimensions that it does not serve.

    Attributes:
        name: unique.
        level: where its energy is reported.
        size_bits: capacity of one instance.
        read_energy_pj, write_energy_pj: of one access of the port's full width.
        operands: what it holds: weights W, inputs I, outputs O.
        serves: array dimensions that one instance feeds (or collects from); with none there is one
            instance a multiplier.
        double_buffered: whether a tile must fit twice.
        ports: one at least for each direction that data takes.
        source: where the numbers come from.
    """

    name: str
    level: LevelKind
    size_bits: int = Field(gt=0)
    read_energy_pj: float = Field(ge=0)
    write_energy_pj: float = Field(ge=0)
    operands: tuple[Operand, ...] = Field(min_length=1)
    serves: tuple[str, ...]
    double_buffered: bool = False
    ports: tuple[Port, ...] = Field(min_length=1)
    source: str = ""

    @model_validator(mode="after")
    def _plausible(self) -> Self:
        is_dram = self.level == "dram"
        faults = {"size_bits": (DRAM_SIZE if is_dram else ON_CHIP_SIZE).fault(self.size_bits)}
        width, bit = max(port.max_bits for port in self.ports), DRAM_BIT if is_dram else ON_CHIP_BIT
        for name in ("read_energy_pj", "write_energy_pj"):
            fault = bit.fault(getattr(self, name) / width, what="a bit")
            faults[name] = fault and f"of {width} bits {fault}"
        for name, fault in faults.items():
            if fault is not None:
                raise ValueError(f"{name} of {self.name!r} {fault}")
        return self

    def port(self, operand: Operand, move: Move) -> Port | None:
        """The port that carries an operand in a direction; the last one, where several do."""
        found = [port for port in self.ports if (operand, move) in port.moves]
        return found[-1] if found else None


class VectorUnit(_Strict):
    """Does what has no multiply-accumulates: normalising, activation, addition, pooling, resizing.

    Attributes:
        lanes: operations a cycle.
        operation_energy_pj: of one operation.
        fused: operators (torch's names) that cost operations but no memory traffic, because they
            are applied to results on their way out of the array.
        joined: operators that read one of two operands, the other being on its way out.
        source: where the numbers come from.
    """

    lanes: Annotated[int, Field(gt=0), plausible(COUNT)]
    operation_energy_pj: Annotated[float, Field(ge=0), plausible(OPERATION)]
    fused: tuple[str, ...] = FUSED_OPERATORS
    joined: tuple[str, ...] = JOINED_OPERATORS
    source: str = ""


class Array(_Strict):
    """The multipliers.

    Attributes:
        mac_energy_pj: of one 8-bit multiply-accumulate; others scale with the product of the bits
            of a weight and of an activation.
        dimensions: units along each dimension.
        systolic: dimensions that data crosses a unit a cycle, so that results leave late.
        unrolling: for a dimension, which loops run along it and how far at most.
        choices: for a dimension without an unrolling, loops of which the best one runs along it.
        source: where the numbers come from.
    """

    mac_energy_pj: Annotated[float, Field(ge=0), plausible(OPERATION)]
    dimensions: dict[str, Annotated[int, Field(gt=0), plausible(COUNT)]]
    systolic: tuple[str, ...] = ()
    unrolling: dict[str, dict[Loop, int]] = Field(default_factory=dict)
    choices: dict[str, tuple[Loop, ...]] = Field(default_factory=dict)
    source: str = ""


class Hardware(_Strict):
    """An accelerator: what a hardware file describes.

    Attributes:
        name: for files and pictures.
        clock_mhz: cycles a microsecond.
        guard_bits: a partial sum has a weight's bits, an activation's, and these.
        array, memories, vector_unit: its parts; memories from the multipliers outwards.
        source: what is modelled, and where it was published.
    """

    name: str
    clock_mhz: Annotated[float, Field(gt=0), plausible(CLOCK)]
    guard_bits: Annotated[int, Field(ge=0), plausible(GUARD)]
    array: Array
    memories: tuple[Memory, ...] = Field(min_length=1)
    vector_unit: VectorUnit
    source: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [memory.name for memory in self.memories]
        if len(set(names)) != len(names):
            raise ValueError(f"memories must have distinct names, got {names}")
        dimensions = self.array.dimensions
        for where, used in [
            *((f"memory {memory.name!r}", memory.serves) for memory in self.memories),
            ("array.systolic", self.array.systolic),
            ("array.unrolling", tuple(self.array.unrolling)),
            ("array.choices", tuple(self.array.choices)),
        ]:
            for name in used:
                if name not in dimensions:
                    raise ValueError(
                        f"{where} names the array dimension {name!r}; {nearest(name, dimensions)}"
                    )
        for name in dimensions:
            if (name in self.array.unrolling) == bool(self.array.choices.get(name)):
                raise ValueError(f"array dimension {name!r} needs either unrolling or choices")
        for operand in OPERANDS:
            self._check_ports(operand)
        return self

    def _check_ports(self, operand: Operand) -> None:
        levels = self.levels(operand)
        if not levels:
            raise ValueError(f"no memory holds operand {operand!r}")
        inner: tuple[Move, ...] = ("to_lower",)
        outer: tuple[Move, ...] = ("from_higher",)
        if operand == "O":
            inner, outer = ("from_lower", "to_lower"), ("from_higher", "to_higher")
        for m, memory in enumerate(levels):
            for move in inner + (outer if m < len(levels) - 1 else ()):
                if memory.port(operand, move) is None:
                    raise ValueError(f"memory {memory.name!r} has no port for '{operand} {move}'")

    def levels(self, operand: Operand) -> list[Memory]:
        """The memories of one operand, innermost first."""
        return [memory for memory in self.memories if operand in memory.operands]

    def partial_bits(self, bits: Mapping[Operand, Floats]) -> Floats:
        """Bits of a partial sum of products of a weight and an input of so many bits."""
        return bits["W"] + bits["I"] + self.guard_bits

    @cached_property
    def outermost(self) -> Memory:
        """The last memory: where layers' inputs come from and outputs go to."""
        return self.memories[-1]

    def variants(self) -> Iterator["Hardware"]:
        """The design with every combination of its choices made; itself if it has none."""
        sizes, choices = self.array.dimensions, self.array.choices
        for loops in product(*choices.values()):
            made = {name: {loop: sizes[name]} for name, loop in zip(choices, loops, strict=True)}
            array = self.array.model_copy(
                update={"unrolling": {**self.array.unrolling, **made}, "choices": {}}
            )
            yield self.model_copy(update={"array": array})


def read_yaml(path: str | Path) -> Any:
    """A YAML file's content; HardwareError names the file and the line, a key given twice too."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise HardwareError(f"can't read {path}: {reason}") from error
    return parse_yaml(text, Path(path), HardwareError)[1]


def parse_hardware(data: Any, *, origin: str, names: Mapping[str, str] | None = None) -> Hardware:
    """Checks a hardware description against the schema.

    Args:
        data: as read from YAML.
        origin: the file's name, for errors.
        names: what that file calls fields that have another name here.

    Raises:
        HardwareError: with file, field, the value got and the rule.
    """
    if not isinstance(data, dict):
        raise HardwareError(f"{origin} must hold a mapping of fields, got {type(data).__name__}")
    try:
        return Hardware.model_validate(data)
    except ValidationError as error:
        sentence = _sentence(error)
        for ours, theirs in (names or {}).items():
            sentence = re.sub(rf"\b{ours}\b", theirs, sentence)
        raise HardwareError(f"{origin}: {sentence}") from error


def _sentence(error: ValidationError) -> str:
    # a misspelt field is also a missing one: what was misspelt says more
    first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        fields = _model_at(first["loc"][:-1]).model_fields
        return f"there is no field {place!r}; {nearest(first['loc'][-1], fields)}"
    message = first["msg"].removeprefix("Value error, ")
    got = "" if first["type"] in ("missing", "value_error") else f", got {first['input']!r}"
    return f"field {place!r}: {message}{got}" if place else message


def _model_at(location: tuple[int | str, ...]) -> type[BaseModel]:
    models: dict[int | str, type[BaseModel]] = {
        "array": Array,
        "memories": Memory,
        "ports": Port,
        "vector_unit": VectorUnit,
    }
    return next((models[part] for part in reversed(location) if part in models), Hardware)
