"""How far two subjects agree: counts of equal codes, and distances between sounds."""

from __future__ import annotations

import io

import numpy as np
import pytest

from pipeline.evaluate.agreement import ClipAgreement, Made, compare
from pipeline.evaluate.results import ClipValues, to_results
from pipeline.evaluate.summary import summarize
from pipeline.evaluate.table import agreement_by_layer, percent
from pipeline.parquet import read_table

CODES = np.arange(12).reshape(3, 4)
SOUND = np.sin(np.arange(16_000) / 10).astype(np.float32)


def test_equal_codes_are_counted_by_layer_and_frames_over_all_layers():
    other = CODES.copy()
    other[1, 0] += 1
    other[2, :2] += 1
    found = compare(Made("a", CODES, SOUND), Made("b", other, SOUND))
    assert found == ClipAgreement("a", 4, [4, 3, 2], 2, 0.0, None)


def test_a_layer_of_a_lower_frame_rate_counts_for_each_frame():
    codes = (np.array([1, 2]), np.array([1, 2, 3, 4]))
    other = (np.array([1, 9]), np.array([1, 2, 3, 4]))
    assert compare(Made("a", codes, SOUND), Made("b", other, SOUND)).equal_codes == [2, 4]


def test_sounds_are_compared_with_each_other():
    noise = np.random.default_rng(0).standard_normal(len(SOUND)).astype(np.float32)
    noise *= np.linalg.norm(SOUND) / np.linalg.norm(noise) / 10
    found = compare(Made("a", CODES, SOUND), Made("b", CODES, SOUND + noise))
    assert found.sound_si_sdr == pytest.approx(20, abs=0.1)
    assert found.sound_mel > 0


def test_silence_against_sound_has_a_distance_and_no_ratio():
    found = compare(Made("a", CODES, SOUND), Made("b", CODES, np.zeros_like(SOUND)))
    assert found.sound_si_sdr is None
    assert found.sound_mel > 0


def row(clip: int, subject: str, count: int, agreement: ClipAgreement | None) -> ClipValues:
    return ClipValues(
        id=f"{clip:016x}-00000000",
        source="a.tar",
        key=str(clip),
        duration=1.0,
        subject=subject,
        num_quantizers=count,
        bits_per_second=100.0 * count,
        machine=f"kind of {subject}",
        values={"mel": 1.0},
        agreement=agreement,
    )


def test_shares_are_of_all_frames_and_distances_are_means_over_clips():
    rows = [row(clip, "a", count, None) for clip in (0, 1) for count in (1, 2)]
    rows += [
        row(0, "b", 1, ClipAgreement("a", 10, [10], 10, 0.0, None)),
        row(0, "b", 2, ClipAgreement("a", 10, [10, 5], 5, 0.5, 12.0)),
        row(1, "b", 1, ClipAgreement("a", 30, [30], 30, 0.0, None)),
        row(1, "b", 2, ClipAgreement("a", 30, [30, 25], 25, 1.5, 8.0)),
    ]
    summary = summarize(read_table(io.BytesIO(to_results(rows, ["mel"]))), ["mel"], 0)
    (found,) = summary.agreements
    assert (found.subject, found.reference, found.clips, found.frames) == ("b", "a", 2, 40)
    assert found.layers == [1.0, 0.75]
    one, two = found.sounds
    assert (one.equal_codes, one.equal_frames, one.equal_sounds, one.si_sdr) == (1.0, 1.0, 2, None)
    assert (two.equal_codes, two.equal_frames, two.equal_sounds) == (0.875, 0.75, 0)
    assert two.mel is not None
    assert (two.mel.mean, two.mel.clips) == (1.0, 2)
    assert summary.machines == {"a": ["kind of a"], "b": ["kind of b"]}
    assert agreement_by_layer(summary) == [["1", "100.000 %"], ["2", "75.000 %"]]


def test_almost_all_is_not_written_as_all():
    assert percent(1 - 1e-7) == "99.999 %"
