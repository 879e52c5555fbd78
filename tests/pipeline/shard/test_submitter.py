"""From prepared items to futures of codes: what is begun again, what is rejected late, and an encoder that fails."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import cast

import numpy as np
import pytest

from moss_tok import MossAudioTokenizerModel
from pipeline.codecs.moss_codec import MossCodec
from pipeline.items import Clip, ClipEnd, ClipPart, CodedClip, Origin, Prepared, Reject
from pipeline.shard.encode_loop import EncodeLoop
from pipeline.shard.long_clip import Encoded
from pipeline.shard.submitter import ClipSubmitter
from pipeline.steps.encode import Encoder
from pipeline.steps.prepare import Target
from tests.support import DEADLINE_SECONDS, info_of

TARGET = Target(sample_rate=24_000, channels=1, samples_per_frame=1920)


def clip_of(index: int, frames: int) -> Clip:
    noise = np.random.default_rng(index).standard_normal((1, frames * 1920), dtype=np.float32) * 0.1
    return Clip(info_of(index, noise.shape[1]), noise)


def parts_of(clip: Clip, frames: int) -> Iterator[ClipPart]:
    step = frames * 1920
    for start in range(0, clip.waveform.shape[1], step):
        yield ClipPart(origin=clip.info.origin, start=start, waveform=clip.waveform[:, start : start + step])


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(MossCodec(MossAudioTokenizerModel.from_pretrained("cat-tiny", parts="encoder")), 4, max_frames=1000)


def codes_of(encoder: Encoder, items: Sequence[Prepared]) -> list[CodedClip]:
    with EncodeLoop(encoder, 1000) as loop:
        with ClipSubmitter(loop, TARGET) as submitter:
            for item in items:
                submitter.submit(item)
        return [encoded.clip for encoded in submitter.results()]


def test_a_long_clip_that_is_begun_again_has_the_codes_of_the_whole_once(encoder: Encoder):
    first, long, last = clip_of(0, 12), clip_of(1, 300), clip_of(2, 7)
    cut_off = list(parts_of(long, 90))[:2]
    coded = codes_of(encoder, [first, *cut_off, *parts_of(long, 120), ClipEnd(long.info), last])
    assert [clip.info.origin.index for clip in coded] == [0, 1, 2]
    for clip, whole in zip(coded, encoder.encode([first, long, last]), strict=True):
        assert np.array_equal(clip.codes, whole.codes)


def test_a_long_clip_that_is_rejected_late_leaves_nothing(encoder: Encoder):
    long, last = clip_of(0, 200), clip_of(1, 7)
    reject = Reject(origin=long.info.origin, stage="prepare", reason="non_finite", message="a sample is not a number")
    coded = codes_of(encoder, [*parts_of(long, 90), reject, last])
    assert [clip.info.origin.index for clip in coded] == [1]


@pytest.mark.parametrize(
    "item",
    [
        ClipPart(origin=Origin(index=0, source="a", key="a"), start=1920, waveform=np.zeros((1, 1920), np.float32)),
        ClipEnd(info_of(0, 1920)),
    ],
)
def test_a_part_without_its_beginning_is_an_error(encoder: Encoder, item: Prepared):
    with pytest.raises(ValueError, match="before its first part"):
        codes_of(encoder, [item])


class FailsOnce:
    """An encoder whose first batch fails; the others wait until they are allowed."""

    def __init__(self) -> None:
        self.batches = 0
        self.allowed = threading.Event()

    def launch(self, clips: Sequence[Clip]) -> Future[list[CodedClip]]:
        self.batches += 1
        future: Future[list[CodedClip]] = Future()
        if self.batches == 1:
            future.set_exception(RuntimeError("the kernel has a bad day"))
        else:
            assert self.allowed.wait(DEADLINE_SECONDS)
            future.set_result([CodedClip(clip.info, np.zeros((1, 1), np.int16)) for clip in clips])
        return future


def test_after_an_error_what_waits_is_not_encoded():
    """The error of one clip ends the shard, so the loop must not first encode the clips that wait behind it."""
    encoder = FailsOnce()

    class Loop(EncodeLoop):
        def close(self) -> None:
            encoder.allowed.set()
            super().close()

    futures: list[Future[Encoded]] = []

    def shard() -> None:
        with Loop(cast(Encoder, encoder), max_frames=1) as loop:
            futures.extend(loop.submit(clip_of(index, 1), 1) for index in range(8))
            futures[0].result()

    with pytest.raises(RuntimeError, match="bad day"):
        shard()
    assert encoder.batches <= 2
    assert not futures[-1].done()
