"""Search spaces over transformers' models: ``from_pretrained`` in, ``save_pretrained`` out."""

import inspect
import logging
from abc import abstractmethod
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from paretopath.elastic import ElasticModel, ElasticSpace, Unit
from paretopath.elastic.own import PathTensors, own_of, together, using
from paretopath.errors import CheckpointError
from paretopath.paths import ExecutionPath
from paretopath.weights.files import load_reference
from paretopath.weights.foreign import head_is_new, refuse, split_key

BASE_FIELDS = (*inspect.signature(PreTrainedConfig.__init__).parameters, "out_features")
"""Fields of every transformers configuration: none is about the model itself."""


class PretrainedModel(ElasticModel):
    """An elastic model whose full path extracts to the original transformers model.

    So ``save_pretrained`` works on it; called, it gives the logits as every other path does (its
    ``forward`` gives transformers' output object).
    """

    def _extracted(self, path: ExecutionPath, own: PathTensors | None) -> nn.Module:
        if path != self.space.full:
            static: nn.Module = super()._extracted(path, own)
            return static
        assert isinstance(self.space, PretrainedSpace)
        with using(together(step.own for step in self.steps(self.space.full, own))):
            original: nn.Module = self.space.to_pretrained(self).train(self.training)
        return original


class PretrainedSpace(ElasticSpace):
    """A search space over a transformers model.

    Attributes:
        original: the transformers class.
        replaceable: prefixes of parameters that a checkpoint may have in another shape: a
            classifier for another number of classes.
        heads: prefixes of which a checkpoint may lack all parameters: a backbone's.
        ignored: prefixes of parameters that a checkpoint may have and the model not: an auxiliary
            head.
    """

    original: ClassVar[type[PreTrainedModel]]
    replaceable: ClassVar[tuple[str, ...]] = ()
    heads: ClassVar[tuple[str, ...]] = ()
    ignored: ClassVar[tuple[str, ...]] = ()

    config: Any

    @abstractmethod
    def reference(self) -> PreTrainedModel:
        """The original model with new random weights, in evaluation mode."""

    @abstractmethod
    def units_of(self, model: nn.Module) -> list[Unit]:
        """The chain of units around the modules of an original model."""

    @abstractmethod
    def original_state(self, model: ElasticModel) -> dict[str, Tensor]:
        """The state dict of the original model with an elastic model's weights."""

    def units(self, checkpoint: str | None = None) -> list[Unit]:
        """See :meth:`ElasticSpace.units`; a folder is one that ``save_pretrained`` wrote."""
        if checkpoint is None:
            return self.units_of(self.reference())
        if Path(split_key(checkpoint)[0]).is_file():
            folder = Path(checkpoint).parent
            if Path(checkpoint).name == "model.safetensors" and (folder / "config.json").is_file():
                return self.units_of(self._from_pretrained(str(folder)))
            model = self.reference()
            load_reference(
                model,
                checkpoint,
                replaceable=self.replaceable,
                heads=self.heads,
                ignored=self.ignored,
            )
            return self.units_of(model)
        return self.units_of(self._from_pretrained(checkpoint))

    def around(self, units: Sequence[Unit]) -> PretrainedModel:
        """See :meth:`ElasticSpace.around`."""
        return PretrainedModel(self.whole, units)

    def to_pretrained(self, model: ElasticModel) -> PreTrainedModel:
        """The original transformers model with a copy of an elastic model's weights."""
        static = self.reference()
        state = {
            name: tensor.detach().clone() for name, tensor in self.original_state(model).items()
        }
        static.load_state_dict(state, assign=True)
        static.register_forward_hook(_logits)
        return static

    def _from_pretrained(self, checkpoint: str) -> PreTrainedModel:
        log = logging.getLogger("transformers.modeling_utils")
        level = log.level
        log.setLevel(logging.ERROR)  # its table of differences, which are told in a sentence below
        try:
            model, report = self.original.from_pretrained(
                checkpoint,
                config=self.config,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
        except Exception as error:  # network, missing files, unreadable ones
            raise CheckpointError(f"weights {checkpoint!r} can't be loaded: {error}") from error
        finally:
            log.setLevel(level)
        shapes = {str(name): tuple(map(tuple, pair)) for name, *pair in report["mismatched_keys"]}
        missing = {str(name) for name in report["missing_keys"]}
        random = {name for name in shapes if name.startswith(self.replaceable)}
        random |= {name for name in missing if name.startswith(self._lacking(model, missing))}
        refuse(
            checkpoint,
            sorted(missing - random),
            [
                f"{name!r} must have shape {wanted}, but got {got}"
                for name, (got, wanted) in sorted(shapes.items())
                if name not in random
            ],
            sorted(n for n in report["unexpected_keys"] if not n.startswith(self.ignored)),
        )
        new = sorted(name for name in random if not name.startswith(self.ignored))
        if new:
            known = next((shapes[name][0][0] for name in new if name in shapes), 0)
            head_is_new(model, checkpoint, new, known, int(self.config.num_labels))
        return model.eval()  # type: ignore[no-any-return]

    def _lacking(self, model: nn.Module, missing: Collection[str]) -> tuple[str, ...]:
        """Prefixes of heads of which a checkpoint lacks everything, and of what is not used."""
        names = [name for name, _ in model.named_parameters()]
        return self.ignored + tuple(
            head
            for head in (*self.heads, *self.replaceable)
            if all(name in missing for name in names if name.startswith(head))
        )


def plain_state(module: nn.Module, prefix: str) -> dict[str, Tensor]:
    """A module's state dict under a prefix, without the moments of compensated layers.

    With what its layers have for themselves, where a path is extracted that has something.
    """
    state = {
        prefix + name: tensor
        for name, tensor in module.state_dict().items()
        if ".compensation." not in f".{name}"
    }
    for layer, part in module.named_modules(prefix=prefix.removesuffix(".")):
        state |= {f"{layer}.{name}": t for name, t in own_of(part).items() if t is not None}
    return state


def _logits(module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> Tensor:
    """A forward hook that gives the logits alone."""
    logits: Tensor = output.logits
    return logits


__all__ = ["PretrainedModel", "PretrainedSpace", "plain_state"]
