"""Any model as a search space: its units and what they may do are found, not written.

A model's graph is cut at its blocks (:mod:`search_spaces.blocks.cutting`), the channels that live
inside a piece are found by torch-pruning (:mod:`search_spaces.blocks.groups`) and tried
(:mod:`search_spaces.blocks.planning`). Elastic layers stand in the model's own modules
(:mod:`search_spaces.blocks.unit`).
"""

import copy
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from paretopath.elastic import ElasticModel, ElasticSpace, Unit
from paretopath.elastic.options import Count, Listed, Names, Shares, checked
from paretopath.elastic.proposal import Proposal
from paretopath.errors import InvalidValueError
from paretopath.paths import Condition, Decision, Value
from paretopath.weights.files import load_reference
from paretopath.weights.new import mark_new
from search_spaces.blocks.attention import SplitAttention
from search_spaces.blocks.heads import HeadwiseLinear
from search_spaces.blocks.layers import can_be_narrowed
from search_spaces.blocks.leaving import chosen_exits, head_behind
from search_spaces.blocks.models import Original
from search_spaces.blocks.models import input_shape as shape_for
from search_spaces.blocks.planning import UnitPlan, plan
from search_spaces.blocks.proposing import proposal
from search_spaces.blocks.sizes import check_scale
from search_spaces.blocks.spanning import Stream, find_streams
from search_spaces.blocks.spans import Group
from search_spaces.blocks.unit import BlockUnit
from search_spaces.exit_heads import Exit
from search_spaces.resizing import SCALE, Resize
from search_spaces.widths import entries_kept, fractions, skippable_blocks

Values = dict[Value, dict[str, int]]
"""For each value of a decision, the entries that each group keeps."""

Shape = Annotated[tuple[Count, Count, Count], Listed]

_log = logging.getLogger(__name__)


class BlocksSpace(ElasticSpace):
    """The paths of any model that can be traced.

    Decisions: ``input_scale`` (the share of the images' height and width that it works on) and
    ``exit`` (behind which unit the path ends), where there are some; for a unit U, ``U.run``
    (whether it runs, where it adds to its input), ``U.head_ratio`` (the share of its attention
    heads that it keeps) and ``U.keep_ratio`` (the share of the channels inside it).

    Args:
        model: a name of timm's, of torchvision's, ``module:callable``, or a folder that
            transformers' ``save_pretrained`` wrote.
        arguments: for its constructor (``num_classes``, ``in_chans``, ``img_size`` …).
        input_shape: (C, Y, X) of an image; what timm says of the model by default, or 3 x 224 x
            224.
        keep_ratios: shares, in (0, 1], of the channels that a unit may keep.
        head_ratios: shares, in (0, 1], of the attention heads that a unit may keep; rounded up.
        skippable: names of the units that a path may skip, ``all`` that can be, or ``none``.
        divisor: channels that are kept are a multiple of it, where there are enough.
        exits: names of the units behind which an exit sits, ``stages`` for the last of each stage,
            or ``none``. A head is the mean of the features, a norm and a linear layer, and is
            trained, or solved, on the frozen rest.
        input_scales: shares, in (0, 1], of the images' height and width that a path may work on.
        stream_ratios: shares, in (0, 1], of the channels between units that may be kept, such as
            those of a stage's residual stream; not beside ``exits``, whose heads read all of them.

    Raises:
        InvalidValueError: an option outside its range, or a model in which nothing can be searched.
    """

    @checked
    def __init__(
        self,
        *,
        model: str,
        arguments: Mapping[str, Any] | None = None,
        input_shape: Shape | None = None,
        keep_ratios: Shares = (0.25, 0.5, 0.75, 1.0),
        head_ratios: Shares = (0.5, 1.0),
        skippable: Names | str = "all",
        divisor: Count = 8,
        exits: Names | str = "none",
        input_scales: Shares = (1.0,),
        stream_ratios: Shares = (1.0,),
    ) -> None:
        self.original = Original(model, arguments or {})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            example = self.original()
            shape = input_shape or shape_for(example, arguments or {})
            images = _images(example, shape)
            found = plan(example, images)
            _check_without_content(example, images)
            self.scales = fractions("input_scales", input_scales)
            for scale in self.scales[:-1]:
                check_scale(example, [unit.piece for unit in found.units], images, scale)
            of_streams = fractions("stream_ratios", stream_ratios)
            streams: tuple[Stream, ...] = ()
            not_streams: dict[str, str] = {}
            if len(of_streams) > 1:
                streams, not_streams = find_streams(example, images, found)
        self.plan = found.units
        self._names = frozenset(example.state_dict())
        self.left = dict(found.left) | not_streams
        self.classifiers = found.classifiers
        self.batch_norm_per_path = any(isinstance(m, nn.BatchNorm2d) for m in example.modules())
        ratios = fractions("keep_ratios", keep_ratios)
        can_skip = [unit.piece.name for unit in found.units if unit.adds]
        self.skippable = skippable_blocks(skippable, can_skip)
        of_heads = fractions("head_ratios", head_ratios)
        self.kept = {
            unit.piece.name: _kept(unit.groups, ratios, of_heads, divisor) for unit in found.units
        }
        self.streams = {
            f"streams.{number}.keep_ratio": (stream, values)
            for number, stream in enumerate(streams)
            if len(values := _distinct(_widths((stream.whole,), of_streams, divisor))) > 1
        }
        self.num_classes = _classes(found.output)
        self.exits = chosen_exits(exits, found.units)
        if self.exits and (self.num_classes is None or found.output.ndim != 2):
            raise InvalidValueError(
                f"exits need a classifier's output, (images, classes), but {model!r} gives another"
            )
        if self.exits and len(of_streams) > 1:
            raise InvalidValueError(
                "exits and stream_ratios can't be searched together, since a head reads all "
                "channels of a stream; leave out one of them"
            )
        self._last = found.units[-1].piece.name
        ends = (*self.exits, self._last)
        decisions = [Decision(SCALE, self.scales)] if len(self.scales) > 1 else []
        decisions += [Decision("exit", ends)] if self.exits else []
        decisions += [Decision(name, tuple(kept)) for name, (_, kept) in self.streams.items()]
        for unit in found.units:
            decisions += self._decisions(unit.piece.name)
        if not decisions:
            reasons = "; ".join(f"{name}: {why}" for name, why in list(self.left.items())[:3])
            raise InvalidValueError(f"nothing of model {model!r} can be searched: {reasons}")
        super().__init__(decisions, input_shape=shape)
        for name, why in self.left.items():
            _log.info("%s keeps its form: %s", name, why)

    def _runs(self, name: str) -> Condition | None:
        """Where a unit runs."""
        if name in self.skippable:
            return Condition(f"{name}.run", (True,))
        return self._reached(name)

    def _reached(self, name: str) -> Condition | None:
        """Where a unit stands before the exit."""
        names = [unit.piece.name for unit in self.plan]
        beyond = [end for end in self.exits if names.index(end) >= names.index(name)]
        before = len(beyond) < len(self.exits)
        return Condition("exit", (*beyond, self._last)) if before else None

    def _decisions(self, name: str) -> list[Decision]:
        decisions = []
        if name in self.skippable:
            decisions.append(Decision(f"{name}.run", (False, True), self._reached(name)))
        for kind, values in self.kept[name].items():
            decisions.append(Decision(f"{name}.{kind}", tuple(values), self._runs(name)))
        return decisions

    @classmethod
    def propose(cls, model: str, *, classes: int, size: int | None, pixels: int) -> Proposal:
        """See :meth:`ElasticSpace.propose`."""
        return proposal(model, classes=classes, size=size, pixels=pixels)

    def reference(self) -> nn.Module:
        """The original model with new random weights, in evaluation mode."""
        return self.original()

    def units(self, checkpoint: str | None = None) -> list[Unit]:
        """See :meth:`ElasticSpace.units`."""
        model = self.reference()
        if checkpoint is not None:
            load_reference(
                model,
                checkpoint,
                replaceable=tuple(f"{name}." for name in self.classifiers),
                adapt=lambda state: self.original.convert(state, model),
            )
        units = self.units_of(model)
        if self.exits:
            units = self._with_exits(units, is_given=checkpoint is not None)
        return [Resize(SCALE), *units] if self._around else units

    @property
    def _around(self) -> list[str]:
        """The decisions on which the shape of every state depends."""
        return [SCALE] if len(self.scales) > 1 else []

    def _with_exits(self, units: Sequence[Unit], *, is_given: bool) -> list[Unit]:
        """The chain with an exit behind some units; a checkpoint has none but the last."""
        assert self.num_classes is not None
        found: list[Unit] = []
        for unit, planned in zip(units, self.plan, strict=True):
            found.append(unit)
            if unit.name in self.exits:
                requires = Condition("exit", (unit.name,))
                head = head_behind(planned, self.num_classes)
                exit_ = Exit(f"exits.{unit.name}", head, requires, decisions=self._around)
                if is_given:
                    mark_new(exit_, "no exits but the last")
                found.append(exit_.eval())
        found[-1].is_exit = True
        return found

    def units_of(self, model: nn.Module) -> list[Unit]:
        """The chain of units around the modules of a given model, changed in place."""
        for module in model.modules():
            if hasattr(module, "inplace"):
                # a state may be needed again: by another path's unit
                module.inplace = False  # type: ignore[assignment]
        return [self._unit(unit, model) for unit in self.plan]

    def _unit(self, unit: UnitPlan, model: nn.Module) -> BlockUnit:
        name = unit.piece.name
        kept: dict[str, Values] = {around: {} for around in self._around}
        kept |= {f"{name}.{kind}": values for kind, values in self.kept[name].items()}
        parts = []
        for decision, (stream, values) in self.streams.items():
            if name in stream.parts:
                kept[decision] = values
                parts.append(stream.parts[name])
        body = unit.piece.body(model)
        return BlockUnit(
            name,
            body,
            groups=(*unit.groups, *parts),
            kept=kept,
            writers=unit.writers,
            classifiers=self._classifiers_of(body) if name == self._last else (),
            block=unit.piece.block if unit.piece.only_calls else None,
            requires=self._runs(name),
        )

    def _classifiers_of(self, body: nn.Module) -> list[str]:
        """The layers of the last unit that give the classes, and can be solved for them."""
        modules = dict(body.named_modules())
        return [n for n in self.classifiers if n in modules and can_be_narrowed(modules[n])]

    def original_state(self, model: ElasticModel) -> dict[str, Tensor]:
        """The state dict of the original model with an elastic model's weights."""
        state = {
            name: tensor
            for name, tensor in model.state_dict().items()
            if ".compensation." not in name
        }
        for name, module in model.named_modules():
            if isinstance(module, HeadwiseLinear | SplitAttention):
                state = {n: tensor for n, tensor in state.items() if not n.startswith(f"{name}.")}
                state |= {f"{name}.{key}": value for key, value in module.original_state().items()}
        named = {name.partition(".body.")[2]: tensor for name, tensor in state.items()}
        return {name: tensor for name, tensor in named.items() if name in self._names}


def _check_without_content(model: nn.Module, images: Tensor) -> None:
    """InvalidValueError where a model can't run on the meta device, on which paths are priced."""
    try:
        with torch.no_grad():
            copy.deepcopy(model).to("meta")(images.to("meta"))
    except Exception as error:  # whatever a model's code does with a tensor that has no content
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise InvalidValueError(
            f"model must run without looking at what its tensors hold, as it is priced without "
            f"images, but {said}"
        ) from error


def _images(model: nn.Module, shape: tuple[int, int, int]) -> Tensor:
    """Two images on a model's device."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    return torch.randn(2, *shape, device=device)


def _kept(
    groups: tuple[Group, ...],
    ratios: tuple[float, ...],
    head_ratios: tuple[float, ...],
    divisor: int,
) -> dict[str, Values]:
    """For each kind of decision that a unit has, what its values keep."""
    heads = [group for group in groups if group.is_heads]
    widths = [group for group in groups if not group.is_heads]
    found: dict[str, Values] = {
        "head_ratio": {r: {g.name: math.ceil(g.entries * r) for g in heads} for r in head_ratios},
        "keep_ratio": _widths(widths, ratios, divisor),
    }
    return {kind: kept for kind, values in found.items() if len(kept := _distinct(values)) > 1}


def _widths(groups: Sequence[Group], ratios: Sequence[float], divisor: int) -> Values:
    """What shares of channels keep of some groups."""
    return {
        ratio: {g.name: entries_kept(g.entries, g.width, ratio, divisor) for g in groups}
        for ratio in ratios
    }


def _distinct(values: Values) -> Values:
    """Those that make a difference; of two that keep the same, the fuller one."""
    kept: Values = {}
    for value, entries in reversed(values.items()):
        if entries not in kept.values():
            kept[value] = entries
    return dict(reversed(kept.items()))


def _classes(output: Any) -> int | None:
    """How many classes a model tells apart, by its output (B, classes, …)."""
    return int(output.shape[1]) if isinstance(output, Tensor) and output.ndim > 1 else None
