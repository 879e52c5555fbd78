"""Codes to steps and back, for any codes; and the delay pattern as it is published."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.export.tokens.layouts import delay, flatten, undelay, unflatten

CODEBOOK = 1024
codes_of_any_shape = st.tuples(st.integers(1, 6), st.integers(0, 9)).flatmap(
    lambda shape: arrays(np.int16, shape, elements=st.integers(0, CODEBOOK - 1))
)


@given(codes_of_any_shape, st.integers(0, 200_000), st.booleans())
def test_flat_codes_come_back(codes: np.ndarray, offset: int, separate: bool):
    ids = flatten(codes, offset, CODEBOOK, separate)
    assert ids.shape == (codes.size,)
    back = unflatten(ids, len(codes), offset, CODEBOOK, separate)
    assert back.dtype == np.int16
    np.testing.assert_array_equal(back, codes)


@given(codes_of_any_shape, st.data())
def test_delayed_codes_come_back(codes: np.ndarray, data: st.DataObject):
    delays = data.draw(st.lists(st.integers(0, 5), min_size=len(codes), max_size=len(codes)))
    steps = delay(codes, delays, CODEBOOK)
    np.testing.assert_array_equal(undelay(steps, delays), codes)
    assert np.count_nonzero(steps == CODEBOOK) == steps.size - codes.size


def test_flat_is_frame_after_frame():
    codes = np.array([[1, 2, 3], [4, 5, 6]], np.int16)
    assert flatten(codes, 100, 10, True).tolist() == [101, 114, 102, 115, 103, 116]
    assert flatten(codes, 100, 10, False).tolist() == [101, 104, 102, 105, 103, 106]


def test_the_delay_pattern_is_that_of_moss_tts():
    """Their apply_delay_pattern: frames + n_vq - 1 steps; stream i has its codes from step i on, else the pad code."""
    codes = np.arange(12, dtype=np.int16).reshape(3, 4)
    expected = np.full((4 + 3 - 1, 3), 1024)
    for layer in range(3):
        expected[layer : layer + 4, layer] = codes[layer]
    np.testing.assert_array_equal(delay(codes, (0, 1, 2), 1024), expected)


def test_ids_that_are_no_codes_are_an_error():
    with pytest.raises(ValueError, match="whole frames"):
        unflatten(np.arange(5), 2, 0, CODEBOOK, True)
    with pytest.raises(ValueError, match="codebook"):
        unflatten(np.array([0, 5]), 2, 0, CODEBOOK, True)
