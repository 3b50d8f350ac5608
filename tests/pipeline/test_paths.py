"""Decisions, paths and spaces as plain data."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretopath.errors import InvalidPathError, InvalidValueError
from paretopath.paths import (
    ABSENT,
    Condition,
    Decision,
    ExecutionPath,
    SearchSpace,
    match_values,
)

SPACE = SearchSpace(
    [
        Decision("depth", (1, 2, 3)),
        Decision("width", (8, 16, 24), aliases={16: 8}),
        Decision("block.run", (False, True), Condition("depth", (2, 3))),
        Decision("block.ratio", (0.25, 0.5, 1.0), Condition("block.run", (True,))),
    ]
)

choices = st.fixed_dictionaries(
    {}, optional={d.name: st.sampled_from(d.values) for d in SPACE.decisions}
)
rows = st.lists(
    st.tuples(*[st.integers(ABSENT, len(d.values) - 1) for d in SPACE.decisions]),
    min_size=1,
    max_size=20,
)


@given(choices)
def test_canonical_is_idempotent_and_round_trips_through_its_encoding(choice) -> None:
    path = SPACE.canonical(choice)
    assert SPACE.canonical(path) == path
    assert SPACE.decode(SPACE.encode([path])) == [path]
    assert ExecutionPath(dict(reversed(list(path.items())))).id == path.id


@given(rows)
def test_canonical_matrices_agree_with_canonical_paths(matrix) -> None:
    encoded = SPACE.canonical_encoded(matrix)
    for row, out in zip(matrix, SPACE.decode(encoded), strict=True):
        given_values = {
            d.name: d.values[i] for d, i in zip(SPACE.decisions, row, strict=True) if i != ABSENT
        }
        assert out == SPACE.canonical(given_values)
    assert (SPACE.canonical_encoded(encoded) == encoded).all()


def test_size_is_the_number_of_distinct_paths() -> None:
    grid = np.stack(np.meshgrid(*[range(len(d.values)) for d in SPACE.decisions]), -1).reshape(
        -1, 4
    )
    paths = set(SPACE.decode(SPACE.canonical_encoded(grid)))
    assert len(paths) == SPACE.size == 2 * (1 + 2 * (1 + 3))


def test_decisions_that_are_not_named_take_their_fullest_value() -> None:
    assert SPACE.full == {"depth": 3, "width": 24, "block.run": True, "block.ratio": 1.0}
    assert SPACE.smallest == {"depth": 1, "width": 8}
    assert SPACE.canonical({"width": 8})["depth"] == 3


def test_aliases_are_one_path() -> None:
    assert SPACE.canonical({"width": 16}) == SPACE.canonical({"width": 8})
    assert 16 not in {
        p["width"] for p in SPACE.decode(SPACE.sample_encoded(np.random.default_rng(0), 99))
    }


def test_the_same_generator_gives_the_same_sample() -> None:
    first, second = (SPACE.sample(np.random.default_rng(3)) for _ in range(2))
    assert first == second and hash(first) == hash(second)


def test_equal_numbers_of_another_type_give_the_spaces_own_value() -> None:
    path = SPACE.canonical({"block.run": 1, "depth": 2.0})
    assert path["block.run"] is True and type(path["depth"]) is int


def test_wrong_choices_are_refused_by_name() -> None:
    with pytest.raises(InvalidPathError, match=r"decision 'depth' can't be 4; legal: 1, 2, 3"):
        SPACE.canonical({"depth": 4})
    with pytest.raises(InvalidPathError, match=r"no decision 'dept'.*did you mean 'depth'"):
        SPACE.canonical({"dept": 1})


def test_wrong_spaces_are_refused() -> None:
    with pytest.raises(InvalidValueError, match="distinct"):
        Decision("a", (1, 1))
    with pytest.raises(InvalidValueError, match="distinct names"):
        SearchSpace([Decision("a", (1,)), Decision("a", (2,))])
    with pytest.raises(InvalidValueError, match="must stand after 'b'"):
        SearchSpace([Decision("a", (1,), Condition("b", (1,))), Decision("b", (1,))])


@given(choices)
def test_a_restricted_space_is_a_space(choice) -> None:
    small = SPACE.restricted({"depth": (1, 3), "width": (16,), "block.ratio": (0.5, 0.25)})
    paths = {
        path
        for path in SPACE.decode(
            SPACE.canonical_encoded(
                np.array(np.meshgrid(*[range(len(d.values)) for d in SPACE.decisions]))
                .reshape(4, -1)
                .T
            )
        )
        if path["depth"] in (1, 3) and path["width"] == 8 and path.get("block.ratio") != 1.0
    }
    assert small.size == len(paths) == 1 + 1 + 2
    assert {small.sample(np.random.default_rng(i)) for i in range(40)} == paths
    assert small.decode(small.encode(paths)) == list(paths)
    assert small.full == {"depth": 3, "width": 8, "block.run": True, "block.ratio": 0.5}
    assert small.smallest == {"depth": 1, "width": 8}
    legal = {n: v for n, v in choice.items() if v in small[n].values}
    assert small.canonical(legal) in paths
    assert SPACE.canonical(small.canonical(legal)) == small.canonical(legal)
    assert small.whole is SPACE and small.restricted({"depth": (1,)}).whole is SPACE


def test_a_decision_whose_condition_never_holds_is_absent_from_a_restricted_space() -> None:
    shallow = SPACE.restricted({"depth": (1,)})
    assert shallow.size == 2
    assert set(shallow.full) == {"depth", "width"}
    rows = shallow.sample_encoded(np.random.default_rng(0), 8)
    assert (rows[:, 2:] == ABSENT).all()


def test_a_restriction_must_name_values_that_the_decision_has() -> None:
    with pytest.raises(InvalidPathError, match="'depth' can't be 4"):
        SPACE.restricted({"depth": (4,)})
    with pytest.raises(InvalidValueError, match="at least one"):
        SPACE.restricted({"depth": ()})


def test_patterns_name_values_of_many_decisions() -> None:
    found = match_values(SPACE, {"block.*": ("full",), "block.ratio": ("smallest", 0.5)})
    assert found == {"block.run": (True,), "block.ratio": (0.25, 0.5)}
    with pytest.raises(InvalidPathError, match=r"no decision matches 'blok\.\*'"):
        match_values(SPACE, {"blok.*": ("full",)})
