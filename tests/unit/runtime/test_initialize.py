"""The first values of parameters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nldsl.dims import symbol
from nldsl.ir.program import Axis, Initializer, ParamDecl, Program
from nldsl.ir.types import Type
from nldsl.runtime.initialize import initialize


def program(*params: ParamDecl) -> Program:
    return Program("p", (Axis("batch", None), Axis("heads", 3)), params=params)


def param(
    name: str, kind: str, *values: object, axes: tuple[str, ...] = (), shape: tuple[int, ...] = (4, 5)
) -> ParamDecl:
    return ParamDecl(name, Type(shape, axes), Initializer(kind, values))


def test_kinds() -> None:
    found = initialize(
        program(
            param("c", "constant", 2),
            param("n", "normal", 0.5, shape=(200, 200)),
            param("u", "uniform", -1.0, 3.0, shape=(200, 200)),
            param("i", "identity", 2.0, axes=("heads",)),
            param("v", "values", ((1.0, 2), (3, 4)), shape=(2, 2)),
        ),
        seed=1,
    )
    assert {name: value.dtype for name, value in found.items()} == dict.fromkeys("cnuiv", np.dtype(np.float64))
    assert (found["c"] == 2.0).all()
    assert found["n"].std() == pytest.approx(0.5, rel=0.02)
    assert found["u"].min() >= -1.0
    assert found["u"].max() <= 3.0
    assert found["u"].mean() == pytest.approx(1.0, abs=0.05)
    assert found["i"].shape == (3, 4, 5)
    assert (found["i"][1] == 2.0 * np.eye(4, 5)).all()
    assert found["v"].tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_copies_differ_and_seeds_differ() -> None:
    declared = program(param("w", "normal", 1.0, axes=("heads",)))
    one, two = initialize(declared, 1)["w"], initialize(declared, 2)["w"]
    assert one.shape == (3, 4, 5)
    assert not (one[0] == one[1]).any()
    assert not (one == two).any()
    assert (one == initialize(declared, 1)["w"]).all()


def test_another_parameter_changes_nothing() -> None:
    one = initialize(program(param("w", "normal", 1.0)), 7)
    two = initialize(program(param("a", "normal", 1.0), param("w", "normal", 1.0)), 7)
    assert (one["w"] == two["w"]).all()
    assert not (two["a"] == two["w"]).any()


def test_the_numbers_stay_the_same_from_version_to_version() -> None:
    found = initialize(program(param("w", "normal", 1.0, shape=(3,))), 0)["w"]
    np.testing.assert_allclose(found, FIRST, rtol=1e-12)


def test_a_size_that_is_not_known() -> None:
    declared = program(replace(param("w", "normal", 1.0), type=Type((symbol("d"),))))
    with pytest.raises(ValueError, match="parameter w: the size d is not a number"):
        initialize(declared, 0)


def test_an_unknown_kind() -> None:
    with pytest.raises(ValueError, match="unknown initializer cauchy"):
        initialize(program(param("w", "cauchy")), 0)


FIRST = [-0.17015625516143576, -0.6438542759445142, 0.07909336351831495]
