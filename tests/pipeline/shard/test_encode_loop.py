"""The loop between many readers and one encoder, with encoders that fail, dawdle and run short of memory."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, cast

import numpy as np
import pytest
import torch

from moss_tok import MossAudioTokenizerModel
from moss_tok.attention import TiledAttention
from moss_tok.execution import Execution
from pipeline.codecs import CodecError, moss_codec
from pipeline.codecs.moss_codec import MossCodec
from pipeline.concurrency import completed
from pipeline.items import Clip, CodedClip
from pipeline.shard.encode_loop import EncodeLoop
from pipeline.shard.long_clip import Encoded, LongClip
from pipeline.steps.encode import Encoder, device_of, gpu_is_lost
from tests.support import DEADLINE_SECONDS, info_of

SAMPLES_PER_FRAME = 1920


def clip_of(index: int, frames: int) -> Clip:
    noise = np.random.default_rng(index).standard_normal((1, frames * SAMPLES_PER_FRAME), dtype=np.float32) * 0.1
    return Clip(info_of(index, noise.shape[1]), noise)


class Recorder:
    """Stands in for the encoder where the loop is what is tested: notes the batches, and may fail or wait."""

    def __init__(self, poison: int | None = None, gate: threading.Event | None = None) -> None:
        self.batches: list[list[int]] = []
        self.poison = poison
        self.gate = gate

    def launch(self, clips: Sequence[Clip]) -> Future[list[CodedClip]]:
        if self.gate is not None:
            assert self.gate.wait(DEADLINE_SECONDS)
        self.batches.append([clip.info.origin.index for clip in clips])
        if self.poison in self.batches[-1]:
            raise RuntimeError("the kernel has a bad day")
        return completed([CodedClip(clip.info, np.zeros((1, 1), np.int16)) for clip in clips])


def started(encoder: Any, max_frames: int) -> EncodeLoop:
    loop = EncodeLoop(encoder, max_frames)
    loop.start()
    return loop


def test_every_clip_of_many_threads_comes_back_once_in_its_own_future():
    loop = started(Recorder(), max_frames=10)
    futures: dict[int, list[Future[Encoded]]] = {shard: [] for shard in range(4)}

    def feed(shard: int) -> None:
        for number in range(50):
            frames = 1 + number % 3
            futures[shard].append(loop.submit(clip_of(shard * 50 + number, frames), frames))

    threads = [threading.Thread(target=feed, args=(shard,)) for shard in futures]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    loop.close()
    for shard, own in futures.items():
        indices = [future.result().clip.info.origin.index for future in own]
        assert indices == list(range(shard * 50, shard * 50 + 50))


def test_a_batch_that_fails_raises_its_error_and_the_loop_goes_on():
    loop = started(Recorder(poison=1), max_frames=1)
    first, second, third = (loop.submit(clip_of(index, 1), 1) for index in range(3))
    loop.close()
    assert isinstance(first.result(0).clip, CodedClip)
    assert isinstance(third.result(0).clip, CodedClip)
    assert str(second.exception(0)) == "the kernel has a bad day"


def test_readers_are_held_back_while_enough_waits():
    gate = threading.Event()
    loop = started(Recorder(gate=gate), max_frames=2)
    accepted: list[int] = []

    def feed() -> None:
        for index in range(100):
            loop.submit(clip_of(index, 1), 1)
            accepted.append(index)

    reader = threading.Thread(target=feed)
    reader.start()
    reader.join(0.3)
    assert reader.is_alive(), "nothing held the reader back"
    assert len(accepted) < 30
    gate.set()
    reader.join(DEADLINE_SECONDS)
    loop.close()
    assert len(accepted) == 100


class Gpu:
    """Encodes as a GPU does: `launch` returns at once, the codes are there when they are waited for."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def launch(self, clips: Sequence[Clip]) -> Future[list[CodedClip]]:
        name = str(clips[0].info.origin.index)
        self.events.append(f"launch {name}")
        events = self.events

        class Waited(Future[list[CodedClip]]):
            """Is done when it is waited for."""

            def exception(self, timeout: float | None = None) -> BaseException | None:
                events.append(f"wait {name}")
                if name == "2":
                    self.set_exception(RuntimeError("an error that the GPU reports late"))
                else:
                    self.set_result([CodedClip(clip.info, np.zeros((1, 1), np.int16)) for clip in clips])
                return super().exception(timeout)

        return Waited()


def test_the_next_batch_is_launched_before_the_last_is_waited_for():
    gpu = Gpu()
    loop = EncodeLoop(cast(Encoder, gpu), max_frames=2)
    futures = [loop.submit(clip_of(index, 2), 2, rank=index) for index in range(3)]
    loop.start()
    loop.close()
    assert gpu.events == ["launch 0", "launch 1", "wait 0", "launch 2", "wait 1", "wait 2"]
    assert [future.exception(0) is None for future in futures] == [True, True, False]


def test_a_closed_loop_takes_nothing_more():
    loop = started(Recorder(), max_frames=2)
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        loop.submit(clip_of(0, 1), 1)


def test_short_of_memory_the_batch_is_halved_until_it_fits(monkeypatch: pytest.MonkeyPatch):
    model = MossAudioTokenizerModel.from_pretrained("cat-tiny", parts="encoder")
    clips = [clip_of(index, frames=2 + index) for index in range(5)]
    whole = Encoder(MossCodec(model), 4, max_frames=1000).encode(clips)
    sizes: list[int] = []
    encode = model.encode_step

    def small(waveforms: Sequence[torch.Tensor], states: None, **options: Any) -> Any:
        sizes.append(len(waveforms))
        if len(waveforms) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(waveforms, states, **options)

    monkeypatch.setattr(model, "encode_step", small)
    encoder = Encoder(MossCodec(model), 4, max_frames=1000)
    halved = encoder.encode(clips)
    assert sizes == [5, 2, 1, 1, 1]  # of 20 frames, then of at most 10
    sizes.clear()
    again = encoder.encode(clips)
    assert sizes == [2, 1, 1, 1], "what did not fit once is not tried again"
    for one, other, third in zip(whole, halved, again, strict=True):
        assert one.info is other.info
        assert np.array_equal(one.codes, other.codes)
        assert np.array_equal(one.codes, third.codes)


class OutOfMemoryOnce:
    """Has a batch in memory when it runs out of it, and notes whether that is gone when it is called again."""

    def __init__(self, step: Any) -> None:
        self.step, self.failed, self.freed = step, None, False

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        if self.failed is None:
            batch = torch.zeros(1)
            self.failed = weakref.ref(batch)
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.freed = self.failed() is None
        return self.step(*arguments, **options)


def test_what_failed_for_want_of_memory_has_left_it_before_the_next_attempt(monkeypatch: pytest.MonkeyPatch):
    """The traceback of an error holds all variables of the functions that it went through."""
    model = MossAudioTokenizerModel.from_pretrained("cat-tiny", parts="encoder")
    once = OutOfMemoryOnce(model.encode_step)
    monkeypatch.setattr(model, "encode_step", once)
    assert len(Encoder(MossCodec(model), 4, max_frames=1000).encode([clip_of(index, 4) for index in range(2)])) == 2
    assert once.freed
    stream = Encoder(MossCodec(model), 4, max_frames=1000).stream()
    once = OutOfMemoryOnce(stream._stream._encoder.step_with_latents)
    monkeypatch.setattr(stream._stream._encoder, "step_with_latents", once)
    stream.step(clip_of(0, 250).waveform)
    assert once.freed


def test_a_batch_is_not_halved_below_one_group_of_rows(monkeypatch: pytest.MonkeyPatch):
    """A smaller one would be padded to the same size."""
    model = MossAudioTokenizerModel.from_pretrained("cat-tiny", parts="encoder")
    model.execution = Execution(static_frames=16, attention=TiledAttention)
    sizes: list[int] = []

    def full(waveforms: Sequence[torch.Tensor], *rest: Any, **options: Any) -> Any:
        sizes.append(sum(waveform.shape[1] for waveform in waveforms) // SAMPLES_PER_FRAME)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(model, "encode_step", full)
    with pytest.raises(torch.OutOfMemoryError, match=r"groups of 16 frames\. .* model\.static_frames"):
        Encoder(MossCodec(model), 4, max_frames=1000).encode([clip_of(index, 6) for index in range(5)])
    assert sizes == [30, 12]


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx(...)`"), True),
        (RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"), True),
        (RuntimeError("CUDA driver error: unspecified launch failure"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), False),
        (RuntimeError("shape '[3]' is invalid for input of size 4"), False),
        (ValueError("CUDA error: said by someone else"), False),
    ],
)
def test_an_error_that_no_call_survives_is_told_from_others(error: Exception, lost: bool):
    assert gpu_is_lost(error) is lost


def test_a_gpu_that_is_there_and_cannot_be_used_is_no_reason_for_the_cpu(monkeypatch: pytest.MonkeyPatch):
    def too_old() -> None:
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 12020)")

    monkeypatch.setattr(torch.cuda, "init", too_old)
    with pytest.raises(CodecError, match=r"driver on your system is too old .*nvidia-smi"):
        device_of("cuda")
    assert device_of("cpu") == "cpu"


def test_a_clip_over_the_budget_is_streamed_to_the_same_codes():
    model = MossAudioTokenizerModel.from_pretrained("cat-tiny", parts="encoder")
    clip = clip_of(0, frames=180)
    (streamed,) = Encoder(MossCodec(model), 4, max_frames=100).encode([clip])
    (whole,) = Encoder(MossCodec(model), 4, max_frames=1000).encode([clip])
    assert streamed.codes.shape == (4, 180)
    assert streamed.codes.dtype == np.int16
    assert np.array_equal(streamed.codes, whole.codes)


def test_the_oldest_shard_is_let_in_where_younger_ones_have_to_wait():
    """Else the shards that are open together are read to their ends together, and the encoder waits for the next."""
    gate = threading.Event()
    recorder = Recorder(gate=gate)
    loop = started(recorder, max_frames=2)

    def feed(rank: int, count: int) -> threading.Thread:
        def run() -> None:
            for index in range(count):
                loop.submit(clip_of(100 * rank + index, 1), 1, rank)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    with loop.register_shard() as old, loop.register_shard() as young:
        younger = feed(young, count=40)
        younger.join(0.3)
        assert younger.is_alive(), "the loop is not full"
        older = feed(old, count=3)
        older.join(DEADLINE_SECONDS)
        assert not older.is_alive()
    gate.set()
    younger.join(DEADLINE_SECONDS)
    loop.close()
    first_after_the_wait = recorder.batches[1] + recorder.batches[2]
    assert [index for index in first_after_the_wait if index < 100] == [0, 1, 2]


def test_the_loop_knows_how_long_its_encoder_was_at_work_and_what_waits():
    gate = threading.Event()
    loop = started(Recorder(gate=gate), max_frames=2)
    for index in range(5):
        loop.submit(clip_of(index, 1), 1)
    assert loop.waiting_frames >= 3
    gate.set()
    loop.close()
    assert loop.waiting_frames == 0
    assert loop.encoded_frames == 5
    assert loop.busy_seconds > 0


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(MossCodec(MossAudioTokenizerModel.from_pretrained("cat-tiny", parts="encoder")), 4, max_frames=40)


def push_in_parts(loop: EncodeLoop, clip: LongClip, whole: Clip, frames: int) -> None:
    for start in range(0, whole.waveform.shape[1], frames * SAMPLES_PER_FRAME):
        part = whole.waveform[:, start : start + frames * SAMPLES_PER_FRAME]
        loop.push(clip, part, -(-part.shape[1] // SAMPLES_PER_FRAME))


def test_long_clips_in_parts_between_short_ones_get_the_codes_of_the_whole(encoder: Encoder):
    loop = started(encoder, max_frames=40)
    clips = [clip_of(index, frames) for index, frames in enumerate((150, 7, 203, 12))]
    futures: list[Future[Encoded]] = []

    def feed(index: int, part_frames: int) -> None:
        long = loop.open_long_clip()
        push_in_parts(loop, long, clips[index], part_frames)
        futures.append(loop.submit(clips[index + 1], 12))
        futures.append(loop.end(long, clips[index].info))

    threads = [threading.Thread(target=feed, args=arguments) for arguments in ((0, 30), (2, 50))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    loop.close()
    whole = Encoder(encoder._codec, 4, max_frames=1000).encode(clips)
    results = [future.result(0).clip for future in futures]
    found = {result.info.origin.index: result.codes for result in results}
    assert found.keys() == {0, 1, 2, 3}
    for coded in whole:
        assert np.array_equal(found[coded.info.origin.index], coded.codes)
    assert loop.encoded_frames == 150 + 203 + 2 * 12


def test_a_dropped_clip_has_no_codes_and_its_capacity_is_free_again(encoder: Encoder):
    loop = started(encoder, max_frames=4)  # capacity for 32 frames
    futures: list[Future[Encoded]] = []
    for _ in range(3):
        dropped = loop.open_long_clip()
        futures.append(dropped.future)
        push_in_parts(loop, dropped, clip_of(0, 60), frames=20)
        loop.drop(dropped)
    kept = loop.open_long_clip()
    push_in_parts(loop, kept, clip_of(1, 60), frames=20)
    futures.append(loop.end(kept, clip_of(1, 60).info))
    loop.close()
    assert [future.done() for future in futures] == [False, False, False, True]
    assert isinstance(futures[-1].result().clip, CodedClip)


def test_a_part_that_fails_is_the_clips_error_and_later_parts_are_ignored(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
):
    loop = started(encoder, max_frames=4)

    def fail(waveform: np.ndarray) -> None:
        raise RuntimeError("the kernel has a bad day")

    long = loop.open_long_clip()
    monkeypatch.setattr(long.stream, "step", fail)
    push_in_parts(loop, long, clip_of(0, 20), frames=20)
    assert str(long.future.exception(DEADLINE_SECONDS)) == "the kernel has a bad day"
    push_in_parts(loop, long, clip_of(0, 400), frames=20)
    ended = loop.end(long, clip_of(0, 400).info)
    loop.close()
    assert str(ended.exception(0)) == "the kernel has a bad day"
    assert loop.waiting_frames == 0


def test_a_part_is_halved_until_it_fits_the_memory(encoder: Encoder, monkeypatch: pytest.MonkeyPatch):
    """At whole blocks of attention, of 125 frames."""
    encoder = Encoder(encoder._codec, 4, max_frames=1000)
    (whole,) = encoder.encode([clip_of(0, 400)])
    stream = encoder.stream()
    step, sizes = stream._stream._encoder.step_with_latents, []

    def small(chunks: Sequence[torch.Tensor], states: Any) -> Any:
        sizes.append(chunks[0].shape[1] // SAMPLES_PER_FRAME)
        if sizes[-1] > 150:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return step(chunks, states)

    monkeypatch.setattr(stream._stream._encoder, "step_with_latents", small)
    stream.step(clip_of(0, 400).waveform)
    coded = stream.finish(clip_of(0, 400).info)
    assert sizes == [375, 125, 250, 125, 125, 25]
    assert np.array_equal(coded.codes, whole.codes)


@pytest.mark.parametrize("latents", [False, True])
def test_the_next_part_is_launched_before_the_codes_of_the_last_are_waited_for(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch, latents: bool
):
    """So that a GPU has work all the time. Latents are a second copy."""
    codec = MossCodec(encoder._codec.model, latents)
    (whole,) = Encoder(codec, 4, max_frames=1000).encode([clip_of(0, 400)])
    stream = Encoder(codec, 4, max_frames=125).stream()
    step, done = stream._stream._encoder.step_with_latents, []

    def launched(*arguments: Any) -> Any:
        done.append("launched")
        return step(*arguments)

    def copying(tensor: torch.Tensor) -> Any:
        return lambda: done.append("waited for") or tensor

    monkeypatch.setattr(stream._stream._encoder, "step_with_latents", launched)
    monkeypatch.setattr(moss_codec, "to_host", copying)
    stream.step(clip_of(0, 400).waveform)
    coded = stream.finish(clip_of(0, 400).info)
    waits = ["waited for"] * (1 + latents)
    assert done == ["launched", *["launched", *waits] * 3, *waits]
    assert np.array_equal(coded.codes, whole.codes)
    assert not latents or np.array_equal(coded.latents, whole.latents)


def test_a_long_clip_is_cut_at_whole_blocks_wherever_its_parts_end(encoder: Encoder, monkeypatch: pytest.MonkeyPatch):
    stream = encoder.stream()
    step, sizes = stream._stream._encoder.step_with_latents, []

    def noted(chunks: Sequence[torch.Tensor], states: Any) -> Any:
        sizes.append(chunks[0].shape[1] / SAMPLES_PER_FRAME)
        return step(chunks, states)

    monkeypatch.setattr(stream._stream._encoder, "step_with_latents", noted)
    clip = clip_of(0, 300)
    for start in range(0, clip.waveform.shape[1], 100_001):
        stream.step(clip.waveform[:, start : start + 100_001])
    stream.finish(clip.info)
    assert sizes == [125, 125, 50]
