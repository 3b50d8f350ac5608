"""Every option of every family, and every argument of its library: taken, or refused by name."""

import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest
from timm.models.vision_transformer import VisionTransformer
from transformers import SegformerConfig, SwinConfig, UperNetConfig

import search_spaces
from paretopath.elastic.options import options_of
from paretopath.errors import InvalidValueError
from search_spaces.family import FamilySpace
from search_spaces.ofa_resnet import OfaResNet50Space
from search_spaces.segformer import SegformerSpace
from search_spaces.upernet import UpernetSwinSpace
from search_spaces.vit import VitSpace

VIT = {"img_size": 8, "patch_size": 4, "embed_dim": 8, "depth": 2, "num_heads": 2}
STAGES = {"depths": (1, 1, 1, 1), "hidden_sizes": (8, 8, 8, 8), "num_attention_heads": (1, 2, 2, 2)}
SWIN = {"embed_dim": 8, "depths": (1, 1), "num_heads": (1, 2), "window_size": 4}
SMALL: dict[str, dict[str, Any]] = {
    "vit": {"arguments": VIT},
    "segformer": {"arguments": STAGES, "image_size": 64},
    "upernet_swin": {"backbone": SWIN, "arguments": {"hidden_size": 8}, "image_size": 64},
    "ofa_resnet50": {"resolutions": [32]},
    "family": {"members": {"a": {"space": "vit", "options": {"arguments": VIT}}}},
}
CLASSES = {
    "vit": VitSpace,
    "segformer": SegformerSpace,
    "upernet_swin": UpernetSwinSpace,
    "ofa_resnet50": OfaResNet50Space,
    "family": FamilySpace,
}
WRONG: list[Any] = ["x", "8", -1, 0, 2.5, True, [], ["x"], [None], {"x": 1}, float("nan"), 10**9]
LIBRARIES = [
    ("vit", "arguments", VisionTransformer),
    ("segformer", "arguments", SegformerConfig),
    ("upernet_swin", "backbone", SwinConfig),
    ("upernet_swin", "arguments", UperNetConfig),
]

# what Python and the libraries say for themselves
FOREIGN = re.compile(
    r"unexpected keyword|positional|not supported between|object (is|has)|__\w+__|NoneType"
    r"|formatting|unhashable|Traceback|Error\b|\n"
)


def said(name: str, options: dict[str, Any], option: str) -> str | None:
    """The sentence with which a space is refused; None if it is taken."""
    try:
        search_spaces.create(name, **options)
    except InvalidValueError as error:
        assert f"search space {name!r}" in str(error)
        assert re.search(option, str(error)), error
        return str(error)
    return None


def options() -> Iterator[tuple[str, str]]:
    for name, space_class in CLASSES.items():
        for option in options_of(space_class):
            yield name, option


@pytest.mark.parametrize(("name", "option"), list(options()))
def test_a_wrong_value_of_an_option_is_refused_in_a_sentence_of_ours(
    name: str, option: str
) -> None:
    refused = [
        sentence
        for value in WRONG
        if (sentence := said(name, {**SMALL[name], option: value}, option)) is not None
    ]
    assert len(refused) >= 6  # some of them mean something to some options
    for sentence in refused:
        assert not FOREIGN.search(sentence), sentence


@pytest.mark.parametrize(("name", "field", "constructor"), LIBRARIES)
def test_a_wrong_argument_of_a_library_is_refused_in_a_sentence_that_names_it(
    name: str, field: str, constructor: Any
) -> None:
    for argument in inspect.signature(constructor).parameters:
        for value in ["x", -1, 2.5, ["x"], {"x": 1}]:
            own = {**SMALL[name].get(field, {}), argument: value}
            sentence = said(name, {**SMALL[name], field: own}, rf"{field}.*{argument}|{argument}")
            assert sentence is None or not re.search(r"unexpected keyword|\n", sentence), sentence


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("vit", {"arguments": {**VIT, "embed_dim": 9}}, r"embed_dim must be a multiple .* 8"),
        ("vit", {"arguments": {**VIT, "depth": 0}}, r"arguments\.depth must be at least 1"),
        ("vit", {"arguments": {**VIT, "img_size": "8"}}, r"img_size must be .* '8' \(text\)"),
        ("vit", {"arguments": {**VIT, "dpeth": 2}}, r"arguments\.dpeth .* mean 'depth'"),
        ("vit", {"arguments": VIT, "skippable": ["x"]}, r"skippable\[0\] must be a whole number"),
        ("vit", {"model": "resnet50"}, r"model must be a timm VisionTransformer.*a ResNet"),
        ("vit", {"arguments": {**VIT, "scale_attn_norm": True}}, r"scale_attn_norm of this"),
        ("segformer", {"arguments": {**STAGES, "num_attention_heads": (3,) * 4}}, r"nearest: 9"),
        ("segformer", {"arguments": {"depths": (1, 1)}}, r"depths must have .* 4 stages"),
        ("segformer", {"arguments": {"hidden_act": "gleu"}}, r"with hidden_act 'gleu'"),
        ("upernet_swin", {"backbone": {**SWIN, "num_heads": (3, 3)}}, r"embed_dim.* nearest: 9"),
        ("family", {"members": {"a": {"space": "vti"}}}, r"members: 'a'.*did you mean 'vit'"),
    ],
)
def test_rules_name_the_option_and_the_nearest_legal_value(
    name: str, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InvalidValueError, match=sentence):
        search_spaces.create(name, **options)
