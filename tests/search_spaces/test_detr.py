"""DETR and its relatives: equal to mmdet's, and what holds for every space."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("mmdet", reason="the extra detection is not installed")

from paretopath.cost.table import CostTable
from paretopath.elastic import ElasticModel, ElasticSpace
from paretopath.elastic.exits import exit_paths
from paretopath.elastic.own import PathTensors
from paretopath.elastic.repair import Repair
from paretopath.errors import InvalidValueError
from paretopath.paths import ExecutionPath
from paretopath.tasks.detection.objects import NOTHING, PaddedImages
from paretopath.tracing import total_macs, trace_layers
from paretopath.weights.new import new_parameters
from search_spaces.detr.space import DetrSpace
from tests.search_spaces import detectors
from tests.search_spaces.space_contract import MacsOnly, SpaceContract, numbers


class DetectorContract(SpaceContract):
    """What holds for detectors besides."""

    paths = 1
    options: dict[str, Any]

    @pytest.fixture(scope="class")
    def space(self) -> ElasticSpace:
        return DetrSpace(**self.options)

    @pytest.fixture(scope="class")
    def both(self, space: ElasticSpace) -> tuple[Any, ElasticModel]:
        return detectors.original(space)

    @pytest.fixture(scope="class")
    def model(self, both: tuple[Any, ElasticModel]) -> ElasticModel:
        self._original = both[0]
        return both[1]

    def test_full_path_equals_the_original(  # type: ignore[override]
        self, both: tuple[Any, ElasticModel], images: torch.Tensor
    ) -> None:
        detector, model = both
        for given in (images, detectors.padded_images()):
            with torch.inference_mode():
                found, expected = model(given).predict(), detectors.mmdets(detector)(given)
            used = expected.labels.shape[1]
            torch.testing.assert_close(found.labels[:, :used], expected.labels)
            assert (found.labels[:, used:] == NOTHING).all()
            some = type(found)(found.boxes[:, :used], found.scores[:, :used], found.labels)
            torch.testing.assert_close(numbers(some), numbers(expected), rtol=1e-4, atol=1e-5)

    def nearly(self, output: Any) -> torch.Tensor:
        """Logits by size: rounding may change which proposal comes next."""
        logits: torch.Tensor = output.matched.logits.flatten(1).sort()[0]
        return logits

    def test_every_exit_learns_from_objects_and_crowds_are_left_out(
        self, model: ElasticModel
    ) -> None:
        trained = copy.deepcopy(model).train()
        images, objects = detectors.padded_images(), detectors.targets()
        given = type(images)(images.pixels, images.sizes, objects)
        for path in exit_paths(trained):
            with trained.active(path):
                output = trained(given)
            loss = output.loss(objects)
            assert loss.ndim == 0 and loss.isfinite()
            loss.backward()
        lacking = [n for n, p in trained.named_parameters() if p.requires_grad and p.grad is None]
        assert not lacking
        torch.manual_seed(3)
        without = copy.deepcopy(objects)
        without.labels[0, 2] = -1  # the crowd's
        outputs = []
        for some in (objects, without):
            torch.manual_seed(3)
            outputs.append(trained(type(images)(images.pixels, images.sizes, some)).loss(some))
        torch.testing.assert_close(*outputs)

    @torch.no_grad()
    def test_a_path_teaches_itself_nothing_and_others_something(
        self, space: ElasticSpace, model: ElasticModel
    ) -> None:
        images = detectors.padded_images()
        teacher = model(images)
        assert float(teacher.distill(teacher)) == pytest.approx(0, abs=1e-4)
        with model.active(space.smallest):
            student = model(images)
        assert float(student.distill(teacher)) > 1e-3


class TestDetr(DetectorContract):
    options = detectors.detr()


class TestConditionalDetr(DetectorContract):
    options = detectors.conditional("conditional-detr_r50_8xb2-50e_coco")


class TestDeformableDetr(DetectorContract):
    options = detectors.deformable("deformable-detr-refine_r50_16xb2-50e_coco")
    test_what_a_space_accepts_the_whole_way_works_for = None  # DINO's is the same way, and longer


class TestDino(DetectorContract):
    options = detectors.deformable("dino-4scale_r50_8xb2-12e_coco")

    @torch.inference_mode()
    def test_decoder_layers_are_repaired_for_queries_of_the_same_tokens(
        self, space: ElasticSpace, model: ElasticModel
    ) -> None:
        images = torch.randn(24, *space.input_shape, generator=torch.Generator().manual_seed(5))
        path = space.canonical({"queries": 5, "decoder.0.points": 1, "decoder.1.ffn_ratio": 0.25})
        own = Repair(model, images[:16])([path])[path]
        assert {name.split(".")[1] for name in own.tensors} == {"decoder_0", "decoder_1"}
        full = queries_of(model, space.full, None, images[16:])
        repaired = distance_by_keys(queries_of(model, path, own, images[16:]), full)
        assert repaired < 0.8 * distance_by_keys(queries_of(model, path, None, images[16:]), full)

    @torch.inference_mode()
    def test_points_left_out_are_as_points_that_no_head_looks_at(
        self, space: ElasticSpace, model: ElasticModel, images: torch.Tensor
    ) -> None:
        with model.active({"encoder.0.points": 1, "decoder.1.points": 1}):
            found = numbers(model(images))
        blind = copy.deepcopy(model)
        for name in ("encoder_0", "decoder_1"):
            layer = blind.units[name].body.attention.weights
            heads = layer.weight.unflatten(0, (4, 3, 4))  # heads, levels, points
            heads[:, :, 1:] = 0
            layer.bias.unflatten(0, (4, 3, 4))[:, :, 1:] = -1e4
        torch.testing.assert_close(numbers(blind(images)), found, rtol=1e-4, atol=1e-5)


def queries_of(
    model: ElasticModel, path: ExecutionPath, own: PathTensors | None, images: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens (B, Q) that queries come from, and the queries (B, Q, C) that reach the last exit."""
    state: Any = images
    for step in model.steps(path, own)[:-1]:
        state = step(state)
    return state.keys, state.x


def distance_by_keys(
    a: tuple[torch.Tensor, torch.Tensor], b: tuple[torch.Tensor, torch.Tensor]
) -> float:
    """Mean squared distance of queries that come from the same token."""
    image, one, other = (a[0][:, :, None] == b[0][:, None]).nonzero(as_tuple=True)
    assert len(image) > 20
    return float((a[1][image, one] - b[1][image, other]).square().mean())


class TestMaskRcnnOnSwin(DetectorContract):
    options = detectors.two_stage("mask-rcnn_swin-t-p4-w7_fpn_1x_coco", swin=True)

    def nearly(self, output: Any) -> torch.Tensor:
        """Logits of anchors: rounding may change which regions come next."""
        return torch.cat([logits.flatten(1) for logits in output.anchor_logits], 1)

    @torch.inference_mode()
    def test_heads_left_out_are_as_heads_of_which_nothing_is_read(
        self, model: ElasticModel, images: torch.Tensor
    ) -> None:
        name = "backbone.stages.0.blocks.1"  # of shifted windows
        with model.active({f"{name}.heads": 1}):
            found = self.nearly(model(images))
        blind = copy.deepcopy(model)
        attention = blind.units[name.replace(".", "_")].body.attention.w_msa
        attention.proj.weight[:, 4:] = 0  # the second head's channels
        torch.testing.assert_close(self.nearly(blind(images)), found, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(self.nearly(model(images)), found, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "options",
    [
        detectors.conditional("dab-detr_r50_8xb2-50e_coco"),
        detectors.deformable("deformable-detr_r50_16xb2-50e_coco"),
        detectors.two_stage("faster-rcnn_r50_fpn_1x_coco", swin=False),
    ],
    ids=["dab", "deformable without refinement", "faster r-cnn"],
)
def test_other_forms_equal_mmdets(options: dict[str, Any]) -> None:
    detector, model = detectors.original(DetrSpace(**options))
    images = detectors.padded_images()
    with torch.inference_mode():
        found, expected = model(images).predict(), detectors.mmdets(detector)(images)
    used = expected.scores.shape[1]
    torch.testing.assert_close(found.scores[:, :used], expected.scores, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.boxes[:, :used], expected.boxes, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("is_deformable", [False, True])
def test_subnets_of_once_for_all_and_smaller_images_build_price_learn_and_run(
    is_deformable: bool,
) -> None:
    options = detectors.detr()
    if is_deformable:
        options = detectors.deformable("dino-4scale_r50_8xb2-12e_coco")
    arguments = options["arguments"]
    arguments["backbone"] = {"out_indices": (1, 3) if is_deformable else (3,)}
    arguments["neck"]["in_channels"] = [512, 2048] if is_deformable else [2048]
    space = DetrSpace(**options, backbone="ofa_resnet50", input_scales=(0.5, 1.0))
    torch.manual_seed(0)
    model = space.build()
    rng = np.random.default_rng(0)
    paths = [space.full, space.smallest, space.sample(rng)]
    macs = CostTable(space, MacsOnly())(paths).macs
    assert macs[1] == macs.min() and macs[0] == macs.max() > 10 * macs[1]
    images, objects = detectors.padded_images(), detectors.targets()
    with torch.inference_mode():
        for path in paths[1:]:
            with model.active(path):
                expected = numbers(model(images))
            found = numbers(model.extract(path)(images))
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    model.train()
    with model.active(paths[2]):
        output = model(PaddedImages(images.pixels, images.sizes, objects))
    output.loss(objects).backward()
    steps = model.steps(paths[2])
    learnt = [any(p.grad is not None for p in s.unit.parameters()) for s in steps]
    assert all(has for has, s in zip(learnt, steps, strict=True) if list(s.unit.parameters()))


def test_boxes_stay_in_the_given_images_pixels_whatever_the_input_scale() -> None:
    space = DetrSpace(**detectors.detr(), input_scales=(0.5, 1.0))
    _, model = detectors.original(space)
    images = detectors.padded_images()
    with torch.inference_mode(), model.active({"input_scale": 0.5}):
        found = model(images).predict()
    widths = found.boxes[..., 2].amax(1)
    assert (widths <= images.sizes[:, 1]).all() and (widths > images.sizes[:, 1] / 2).all()


@pytest.mark.filterwarnings("ignore::paretopath.errors.UntrainedClassifier")
def test_mmdets_checkpoints_load_and_what_is_for_other_classes_is_new(tmp_path: Path) -> None:
    options = detectors.deformable("dino-4scale_r50_8xb2-12e_coco")
    space = DetrSpace(**options)
    detector, model = detectors.original(space)
    file, images = str(tmp_path / "epoch_12.pth"), detectors.padded_images()
    torch.save({"meta": {"epoch": 12}, "state_dict": detector.state_dict()}, file)
    with torch.inference_mode():
        torch.testing.assert_close(numbers(space.build(file)(images)), numbers(model(images)))
    other = DetrSpace(**{**options, "num_classes": 3}).build(file)
    new = {name.split(".")[1] for name in new_parameters(other)}
    assert new == {"queries", "exits_1", "exits_2"}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"config": "dino-4scale_r50_8xb2-12e_cocoo"}, "did you mean 'dino-4scale_r50_8xb2-12e_c"),
        ({"config": "retinanet_r50_fpn_1x_coco"}, "is of RetinaNet; legal: DETR"),
        ({"config": "nowhere.py"}, "there is no file nowhere.py"),
        ({"arguments": {"decoder": {"layers": 3}}}, "unexpected keyword argument 'layers'"),
        ({"exits": (1, 3)}, "exits must be decoder layers from 1 to 2, but got 3"),
        ({"skippable": ["encoder.2"]}, "there is no block 'encoder.2'"),
        ({"query_ratios": (0.5,)}, "query_ratios must include 1.0"),
    ],
)
def test_a_mistake_is_one_sentence(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidValueError) as error:
        DetrSpace(**{**detectors.detr(), **changed})
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_config_file_is_read_only_if_it_is_trusted(tmp_path: Path) -> None:
    file, ran = tmp_path / "own.py", tmp_path / "ran"
    content = f"model = {{'type': 'DETR'}}\nopen({str(ran)!r}, 'w').close()\n"
    file.write_text(content)
    with pytest.raises(InvalidValueError, match="set trust_config to true"):
        DetrSpace(config=str(file))
    assert not ran.exists()
    with pytest.raises(InvalidValueError, match="must make a detector"):
        DetrSpace(config=str(file), trust_config=True)
    assert ran.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "gmacs"),
    [
        ("detr_r50_8xb2-150e_coco", 92.0),
        ("conditional-detr_r50_8xb2-50e_coco", 96.2),
        ("deformable-detr_r50_16xb2-50e_coco", 185.4),
        ("dino-4scale_r50_8xb2-12e_coco", 264.9),
        ("faster-rcnn_r50_fpn_1x_coco", 196.7),
        ("mask-rcnn_swin-t-p4-w7_fpn_1x_coco", 203.4),
    ],
)
def test_published_detectors_have_the_macs_that_mmdets_own_forward_has(
    config: str, gmacs: float
) -> None:
    """Measured by ``benchmarks/detection_profile.py``; mmdet runs the heads of all layers."""
    space = DetrSpace(config=config, image_size=(800, 1216))
    assert total_macs(trace_layers(space, space.full)) / 1e9 == pytest.approx(gmacs, rel=0.005)
