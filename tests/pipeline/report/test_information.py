"""Entropy and bit rates of counts whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.report.information import measure


def test_entropy_of_known_distributions():
    even, one, half = np.full(1024, 20), np.zeros(1024, int), np.zeros(1024, int)
    one[7] = 20 * 1024
    half[:2] = 10 * 1024
    information = measure(np.stack([even, one, half]), frame_rate=12.5)
    assert information is not None
    np.testing.assert_allclose(information.entropy, [10, 0, 1], atol=1e-12)
    np.testing.assert_allclose(information.used, [1, 1 / 1024, 2 / 1024])
    np.testing.assert_allclose(information.top, [1 / 1024, 1, 0.5])
    np.testing.assert_allclose(information.nominal_rate, [125, 250, 375])
    np.testing.assert_allclose(information.entropy_rate, [125, 125, 137.5])
    assert not information.too_few


def test_few_frames_are_said_to_be_few_and_none_are_nothing():
    few = measure(np.ones((2, 1024), int), 12.5)
    assert few is not None
    assert few.too_few
    assert measure(np.zeros((2, 1024), int), 12.5) is None


def test_an_estimate_from_enough_frames_is_near_the_truth():
    share = np.random.default_rng(0).dirichlet(np.ones(256))
    truth = -(share * np.log2(share)).sum()
    information = measure(np.random.default_rng(1).multinomial(100_000, share)[None], 12.5)
    assert information is not None
    assert information.entropy[0] == pytest.approx(truth, abs=0.01)
