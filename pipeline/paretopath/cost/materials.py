"""Real modules and inputs made from what was traced on the meta device, with random values."""

import math

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from paretopath.cost.device_setup import Setup
from paretopath.elastic import State


def random_module(module: nn.Module, setup: Setup, generator: torch.Generator) -> nn.Module:
    """Gives a module random weights where it has none; on the device, in evaluation mode, in place.

    Matrices are normal with variance 1 / fan-in, so that activations neither vanish into slow
    denormal numbers nor overflow; vectors (biases, norms and their statistics) are one; integers
    are zero.

    Args:
        module: on the meta device, or with some of its buffers real.
        setup: where and how.
        generator: on the CPU.
    """
    kept = {name: value for name, value in module.named_buffers() if not value.is_meta}
    module.to_empty(device="cpu")
    for tensor in [*module.parameters(), *module.buffers()]:
        _fill(tensor.data, generator)
    for name, buffer in module.named_buffers():
        if name in kept:
            buffer.copy_(kept[name])
    for part in module.modules():  # tensors that are neither parameters nor buffers
        for name, value in vars(part).items():
            if isinstance(value, Tensor) and value.is_meta:
                real = _fill(torch.empty_like(value, device="cpu"), generator)
                setattr(part, name, real.to(setup.place))
    return setup.prepare(module.requires_grad_(False))


def random_state(state: State, setup: Setup, generator: torch.Generator) -> State:
    """Random values in the shape of a traced state, for the setup's batch, on the device.

    Args:
        state: meta tensors for a batch of one.
        setup: where and how.
        generator: on the CPU.
    """

    def filled(tensor: Tensor) -> Tensor:
        shape = (tensor.shape[0] * setup.batch_size, *tensor.shape[1:])
        real = torch.empty(shape, dtype=tensor.dtype)
        if real.is_floating_point():
            return real.normal_(generator=generator)
        return _fill(real, generator)

    return setup.place_state(tree_map_only(Tensor, filled, state))


def _fill(tensor: Tensor, generator: torch.Generator) -> Tensor:
    if not tensor.is_floating_point():
        # a mask that lets everything pass, or index 0, which every table has
        return tensor.fill_(tensor.dtype == torch.bool)
    if tensor.ndim < 2:
        return tensor.fill_(1)
    return tensor.normal_(0, 1 / math.sqrt(max(1, tensor.shape[1:].numel())), generator=generator)
