"""DETR and its relatives: equal to mmdet's, and what holds for every space."""

import copy
from typing import Any

import pytest
import torch

pytest.importorskip("mmdet", reason="the extra detection is not installed")

from paretopath.elastic import ElasticModel, ElasticSpace
from search_spaces.detr.space import DetrSpace
from tests.search_spaces import detectors
from tests.search_spaces.space_contract import SpaceContract, numbers


class DetectorContract(SpaceContract):
    """What holds for detectors besides."""

    paths = 2
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
            torch.testing.assert_close(found.labels, expected.labels)
            torch.testing.assert_close(numbers(found), numbers(expected), rtol=1e-4, atol=1e-5)

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
        for value in trained.space["exit"].values:
            with trained.active({"exit": value}):
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

    def test_a_path_teaches_itself_nothing_and_others_something(
        self, space: ElasticSpace, model: ElasticModel
    ) -> None:
        images = detectors.padded_images()
        teacher = torch.no_grad()(model)(images)
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


class TestDino(DetectorContract):
    options = detectors.deformable("dino-4scale_r50_8xb2-12e_coco")
