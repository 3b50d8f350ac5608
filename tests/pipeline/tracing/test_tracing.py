"""What is recorded of units that run."""

import pytest
import torch
import torchvision
from torch import nn

from paretopath.elastic import Choice, ElasticSpace, State, Unit
from paretopath.paths import Decision
from paretopath.tracing import build_on_meta, total_macs, trace_units
from paretopath.tracing.recorder import Recorder


class Wide(Unit):
    """Twelve features become four; the twelve are passed on as well."""

    def __init__(self) -> None:
        super().__init__("wide", decisions=("width",))
        self.up, self.down = nn.Linear(12, 64), nn.Linear(64, 4)

    def forward(self, state: State, choice: Choice) -> State:
        width, x = int(choice["width"]), state.flatten(1)
        hidden = torch.relu(nn.functional.linear(x, self.up.weight[:width]))  # (1, width)
        return nn.functional.linear(hidden, self.down.weight[:, :width]), x

    def extract(self, choice: Choice) -> nn.Module:
        width = int(choice["width"])
        return nn.Sequential(
            nn.Linear(12, width, bias=False), nn.ReLU(), nn.Linear(width, 4, bias=False)
        )


class Head(Unit):
    is_exit = True

    def __init__(self) -> None:
        super().__init__("head")

    def forward(self, state: State, choice: Choice) -> State:
        return state[0] + state[0]

    def extract(self, choice: Choice) -> nn.Module:
        return nn.Identity()


class WideSpace(ElasticSpace):
    def __init__(self) -> None:
        super().__init__([Decision("width", (16, 64))], input_shape=(3, 2, 2))

    def units(self, checkpoint: str | None = None) -> list[Unit]:
        return [Wide(), Head()]


def test_activation_memory_is_what_comes_in_goes_out_and_the_largest_between() -> None:
    space = WideSpace()
    model = build_on_meta(space)
    for width in (16, 64):
        wide, head = trace_units(model, space.canonical({"width": width}))
        # the twelve that come in go out too: the same memory, counted once
        assert wide.activation_bytes == 12 + 4 + width
        assert wide.weight_bytes == wide.params == 16 * width
        assert head.activation_bytes == (4 + 12) + 4
        assert head.weight_bytes == 0


@pytest.mark.parametrize("groups", [1, 2])
def test_convolutions_along_a_line_and_transposed_ones_are_recorded(groups: int) -> None:
    along = nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=groups, device="meta")
    transposed = nn.ConvTranspose2d(4, 6, (2, 3), stride=2, groups=groups, device="meta")
    with torch.no_grad(), Recorder() as recorder:  # it holds each to torch's own count
        along(torch.empty(1, 4, 10, device="meta"))
        transposed(torch.empty(1, 4, 5, 7, device="meta"))
    line, spread = [layer for layer in recorder.layers if layer.kind == "convolution"]
    assert total_macs([line]) == 5 * 4 * 6 * 3 // groups
    assert total_macs([spread]) == 5 * 7 * 4 * 6 * (2 * 3) // groups


def test_sampling_and_suppression_are_passes_over_what_they_read() -> None:
    features = torch.empty(1, 8, 20, 30, device="meta")
    grid = torch.empty(1, 5, 7, 2, device="meta")
    rois = torch.empty(6, 5, device="meta")
    with Recorder() as recorder:
        sampled = torch.nn.functional.grid_sample(features, grid, align_corners=False)
        pooled = torchvision.ops.roi_align(features, rois, (7, 7), sampling_ratio=2)
    first, *_, last = recorder.layers
    assert (first.operator, last.operator) == ("grid_sampler_2d", "roi_align")
    # four neighbours of each result, and where it lies; not the whole map
    assert first.reads == 4 * sampled.numel() + grid.numel()
    assert first.writes == sampled.numel() and first.macs == 0
    assert last.reads == 4 * 4 * pooled.numel() + rois.numel()
    assert first.operations < first.reads * 2 and last.operations > last.writes
