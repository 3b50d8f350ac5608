"""What an accelerator is made of: the schema of a hardware file, with units in its field names."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.errors import HardwareError, nearest

Floats = npt.NDArray[np.float64]
Operand = Literal["W", "I", "O"]
OPERANDS: tuple[Operand, ...] = ("O", "W", "I")
Loop = Literal["B", "G", "K", "C", "OY", "OX", "FY", "FX"]
Move = Literal["to_lower", "from_lower", "to_higher", "from_higher"]
LOOP_NAMES: tuple[Loop, ...] = ("B", "G", "K", "C", "OY", "OX", "FY", "FX")
LevelKind = Literal["registers", "buffers", "global_buffer", "dram"]
LEVELS: tuple[str, ...] = ("mac", "registers", "buffers", "global_buffer", "dram", "vector")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Port(_Strict):
    """One physical port of a memory.

    Attributes:
        name: unique in its memory.
        min_bits: the narrowest access: a smaller one costs as much.
        max_bits: bits a cycle; an access of this width costs the memory's read or write energy.
        moves: what it carries: ``I to_lower`` is inputs read towards the multipliers, ``O from_lower``
            results written from below, ``O to_lower`` partial sums read back.
    """

    name: str
    min_bits: int = Field(gt=0)
    max_bits: int = Field(gt=0)
    moves: tuple[tuple[Operand, Move], ...]

    @model_validator(mode="before")
    @classmethod
    def _split_moves(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and isinstance(data.get("moves"), list):
            moves = [
                tuple(move.split()) if isinstance(move, str) else move for move in data["moves"]
            ]
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
        operands: what it holds.
        serves: array dimensions that one instance feeds (or collects from); none means one instance a multiplier.
        double_buffered: whether a tile must fit twice.
        ports: at least one for each direction that data takes.
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

    def port(self, operand: Operand, move: Move) -> Port | None:
        """The port that carries an operand in a direction; the last one named, where several do."""
        found = [port for port in self.ports if (operand, move) in port.moves]
        return found[-1] if found else None


class VectorUnit(_Strict):
    """Does what has no multiply-accumulates: normalisations, activations, additions, pooling, resizing.

    Attributes:
        lanes: operations a cycle.
        operation_energy_pj: of one operation, registers included.
        fused: operators (torch's names) applied to results on their way out of the array: no memory traffic.
        source: where the numbers come from.
    """

    lanes: int = Field(gt=0)
    operation_energy_pj: float = Field(ge=0)
    fused: tuple[str, ...] = ()
    source: str = ""


class Array(_Strict):
    """The multipliers.

    Attributes:
        mac_energy_pj: of one 8-bit multiply-accumulate; other widths scale with the square of the bits.
        dimensions: size of each dimension, innermost first.
        systolic: dimensions that data crosses a unit a cycle, so that results leave late.
        unrolling: for each dimension, which loops run along it and how far.
        source: where the numbers come from.
    """

    mac_energy_pj: float = Field(ge=0)
    dimensions: dict[str, int]
    systolic: tuple[str, ...] = ()
    unrolling: dict[str, dict[Loop, int]]
    source: str = ""


class Hardware(_Strict):
    """An accelerator: what a hardware file describes.

    Attributes:
        name: for files and pictures.
        clock_mhz: cycles a microsecond.
        guard_bits: a partial sum has twice a value's bits, and these.
        array, memories, vector_unit: its parts; memories from the multipliers outwards.
        source: what is modelled, and where it was published.
    """

    name: str
    clock_mhz: float = Field(gt=0)
    guard_bits: int = Field(ge=0)
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
        ]:
            for dimension in used:
                if dimension not in dimensions:
                    raise ValueError(
                        f"{where} names array dimension {dimension!r}; {nearest(dimension, dimensions)}"
                    )
        for operand in OPERANDS:
            if not self.levels(operand):
                raise ValueError(f"no memory holds operand {operand!r}")
            self._check_ports(operand)
        return self

    def _check_ports(self, operand: Operand) -> None:
        levels = self.levels(operand)
        inner: tuple[Move, ...] = ("from_lower", "to_lower") if operand == "O" else ("to_lower",)
        outer: tuple[Move, ...] = (
            ("from_higher", "to_higher") if operand == "O" else ("from_higher",)
        )
        for m, memory in enumerate(levels):
            for move in inner + (outer if m < len(levels) - 1 else ()):
                if memory.port(operand, move) is None:
                    raise ValueError(f"memory {memory.name!r} has no port for '{operand} {move}'")

    def levels(self, operand: Operand) -> list[Memory]:
        """The memories of one operand, innermost first."""
        return [memory for memory in self.memories if operand in memory.operands]

    def partial_bits(self, bits: Floats) -> Floats:
        """Bits of a partial sum of values of so many bits."""
        return 2 * bits + self.guard_bits

    @cached_property
    def outermost(self) -> Memory:
        """The last memory: where layers' inputs come from and outputs go to."""
        return self.memories[-1]


def read_yaml(path: str | Path) -> Any:
    """A YAML file's content; HardwareError names the file and the line."""
    try:
        return yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise HardwareError(f"can't read {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise HardwareError(f"{path} is not YAML: {' '.join(str(error).split())}") from error


def parse_hardware(data: Any, *, origin: str) -> Hardware:
    """Checks a hardware description against the schema.

    Args:
        data: as read from YAML.
        origin: the file's name, for errors.

    Raises:
        HardwareError: with file, field, the value got and the rule.
    """
    if not isinstance(data, dict):
        raise HardwareError(f"{origin} must hold a mapping of fields, got {type(data).__name__}")
    try:
        return Hardware.model_validate(data)
    except ValidationError as error:
        raise HardwareError(f"{origin}: {_sentence(error, data)}") from error


def _sentence(error: ValidationError, data: Mapping[str, Any]) -> str:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        model = _model_at(first["loc"][:-1])
        return f"there is no field {place!r}; {nearest(first['loc'][-1], model.model_fields)}"
    value = "" if first["type"] in ("missing", "value_error") else f", got {first['input']!r}"
    return f"field {place!r}: {message}{value}" if place else message


def _model_at(location: tuple[int | str, ...]) -> type[BaseModel]:
    models: dict[str, type[BaseModel]] = {
        "array": Array,
        "memories": Memory,
        "ports": Port,
        "vector_unit": VectorUnit,
    }
    names = [part for part in location if part in models]
    return models[str(names[-1])] if names else Hardware
