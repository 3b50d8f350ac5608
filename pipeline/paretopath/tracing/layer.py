"""One operator as hardware sees it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

Kind = Literal["convolution", "linear", "matmul", "normalisation", "other"]
BITS = 8  # of a weight and of an activation, where nothing else is said
KINDS: tuple[Kind, ...] = ("convolution", "linear", "matmul", "normalisation", "other")


@dataclass(frozen=True)
class Layer:
    """One operator as hardware sees it: a loop nest of multiply-accumulates, or a pass over
    elements.

    A linear layer is a 1x1 convolution over its tokens (``oy``); a batched matrix product is a
    grouped one whose weights are activations. Normalisations, activations, additions and resizing
    have no multiply-accumulates; they have ``operations`` and the elements that they read and
    write.

    Attributes:
        kind: the kind of operator.
        b: batch size.
        k, c: output and input channels, over all groups.
        oy, ox: output height and width.
        fy, fx: filter height and width.
        groups: groups of channels that don't mix.
        stride: of the filter, both directions.
        iy, ix: input height and width as stored, without padding.
        reads, writes: elements that a pass reads (weights included) and writes; 0 where loops say
            it.
        operations: arithmetic operations of a pass; 0 where loops say it.
        weight_bits: bits of a weight.
        activation_bits: bits of an activation: what comes in, what goes out, and what a product of
            two activations has in place of weights.
        operator: torch's name of the operator.
    """

    kind: Kind
    b: int = 1
    k: int = 1
    c: int = 1
    oy: int = 1
    ox: int = 1
    fy: int = 1
    fx: int = 1
    groups: int = 1
    stride: int = 1
    iy: int = 1
    ix: int = 1
    reads: int = 0
    writes: int = 0
    operations: int = 0
    weight_bits: int = BITS
    activation_bits: int = BITS
    operator: str = ""

    @classmethod
    def conv(
        cls,
        *,
        k: int,
        c: int,
        oy: int,
        ox: int,
        fy: int = 1,
        fx: int = 1,
        stride: int = 1,
        groups: int = 1,
        batch: int = 1,
        iy: int | None = None,
        ix: int | None = None,
        kind: Kind = "convolution",
        bits: int = BITS,
        weight_bits: int | None = None,
        activation_bits: int | None = None,
        operator: str = "",
    ) -> Self:
        """A convolution; a linear layer is a 1x1 one over its tokens. Input size from the output's
        if not given; ``bits`` is for both weights and activations where they aren't given apart.
        """
        return cls(
            kind=kind,
            b=batch,
            k=k,
            c=c,
            oy=oy,
            ox=ox,
            fy=fy,
            fx=fx,
            groups=groups,
            stride=stride,
            iy=iy if iy is not None else (oy - 1) * stride + fy,
            ix=ix if ix is not None else (ox - 1) * stride + fx,
            weight_bits=bits if weight_bits is None else weight_bits,
            activation_bits=bits if activation_bits is None else activation_bits,
            operator=operator,
        )

    def __str__(self) -> str:
        """As people read it: ``3x3 convolution, 64 to 128 channels, 28x28 outputs, 8 bits``."""
        bits = f"{self.activation_bits} bits"
        if self.stationary_bits != self.activation_bits:
            bits = f"weights of {self.weight_bits} bits, activations of {bits}"
        if self.is_pass:
            name = self.operator or self.kind
            return f"{name}, {self.reads} elements read, {self.writes} written, {bits}"
        if self.kind == "convolution":
            groups = f" in {self.groups} groups" if self.groups > 1 else ""
            stride = f", stride {self.stride}" if self.stride > 1 else ""
            return (
                f"{self.fy}x{self.fx} convolution{stride}, {self.c} to {self.k} channels{groups}, "
                f"{self.oy}x{self.ox} outputs, {bits}"
            )
        if self.kind == "linear":
            return f"linear layer, {self.c} to {self.k} features, {self.oy} tokens, {bits}"
        inner, columns = self.c // self.groups, self.k // self.groups
        product = f"{self.oy}x{inner} by {inner}x{columns}"
        return f"{self.groups} products of {product} matrices, {bits}"

    @property
    def is_pass(self) -> bool:
        """Whether this is a pass over elements: no multiply-accumulates."""
        return self.kind in ("normalisation", "other")

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        if self.is_pass:
            return 0
        return self.b * self.k * (self.c // self.groups) * self.oy * self.ox * self.fy * self.fx

    @property
    def weight_elements(self) -> int:
        """Elements of the stationary operand: weights, or the second matrix of a product."""
        return 0 if self.is_pass else self.k * (self.c // self.groups) * self.fy * self.fx

    @property
    def stationary_bits(self) -> int:
        """Bits of an element of the stationary operand."""
        return self.activation_bits if self.kind == "matmul" else self.weight_bits

    @property
    def input_elements(self) -> int:
        """Elements of the input activations, padding not counted."""
        return self.reads if self.is_pass else self.b * self.c * self.iy * self.ix

    @property
    def output_elements(self) -> int:
        """Elements of the output activations."""
        return self.writes if self.is_pass else self.b * self.k * self.oy * self.ox


def total_macs(layers: Sequence[Layer]) -> int:
    """Multiply-accumulates of all layers."""
    return sum(layer.macs for layer in layers)
