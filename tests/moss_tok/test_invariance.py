"""The codes of a clip are a function of the clip alone: not of its batch, order, padding, threads or chunks.

The same clip alone and in a batch gets different codes in other implementations (sgl-project/sglang-omni issues 774
and 812).
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from moss_tok import MossAudioTokenizerModel

RATE = 24_000


def assert_clips_equal(
    model: MossAudioTokenizerModel, clips: list[Tensor], alone: list[tuple[Tensor, Tensor]], **options
):
    batch = model.batch_encode(clips, **options)
    for index, (codes, hidden) in enumerate(alone):
        length = int(batch.audio_codes_lengths[index])
        assert torch.equal(batch.audio_codes[:, index, :length], codes)
        assert torch.equal(batch.encoder_hidden_states[index, :, :length], hidden)


def encode_alone(model: MossAudioTokenizerModel, clip: Tensor) -> tuple[Tensor, Tensor]:
    output = model.encode(clip)
    return output.audio_codes[:, 0], output.encoder_hidden_states[0]


def random_clip(draw: torch.Generator, longest: float) -> Tensor:
    """Noise of a random length from one frame on, log-uniform, and of random loudness."""
    duration = 0.08 * (longest / 0.08) ** float(torch.rand((), generator=draw))
    loudness = 10 ** float(torch.empty(()).uniform_(-3, 0, generator=draw))
    return torch.randn(max(1, int(duration * RATE)), generator=draw) * loudness


@pytest.mark.slow
def test_random_batches_of_real_and_random_clips(cat_tiny, real_clips):
    """200 batches from a pool of clips of 0.08 to 75 s, each compared with the clip alone."""
    draw = torch.Generator().manual_seed(6)
    pool = [clip[: 75 * RATE] for clip in real_clips] + [random_clip(draw, 12) for _ in range(30)]
    pool += [random_clip(draw, 12)[:1920], torch.randn(75 * RATE, generator=draw) / 10]
    alone = [encode_alone(cat_tiny, clip) for clip in pool]
    assert max(codes.shape[1] for codes, _ in alone) == 938
    short = [index for index, clip in enumerate(pool) if len(clip) < 12 * RATE]
    for batch in range(200):
        candidates = range(len(pool)) if batch % 40 == 0 else short
        size = 1 + int(torch.randint(6, (), generator=draw))
        chosen = [candidates[int(i)] for i in torch.randint(len(candidates), (size,), generator=draw)]
        assert_clips_equal(cat_tiny, [pool[i] for i in chosen], [alone[i] for i in chosen])


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2, 3, 5, 16])
def test_any_number_of_threads(golden, threads):
    torch.set_num_threads(1)
    alone = [encode_alone(golden.model, clip) for clip in golden.clips]
    audio = golden.model.decode(alone[2][0]).audio
    torch.set_num_threads(threads)
    assert_clips_equal(golden.model, golden.clips, alone)
    for clip, expected in zip(golden.clips, alone, strict=True):
        assert_clips_equal(golden.model, [clip], [expected])
    assert torch.equal(golden.model.decode(alone[2][0]).audio, audio)


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    frames=st.lists(st.integers(1, 140), min_size=1, max_size=5),
    missing=st.integers(0, 1919),
    which=st.integers(0, 5),
    threads=st.sampled_from([1, 1, 2, 3]),
    chunk=st.sampled_from([None, 7, 31, 125]),
    padding=st.integers(0, 40_000),
    seed=st.integers(0, 2**31),
)
def test_no_neighbour_padding_thread_or_chunk_is_seen(cat_tiny, frames, missing, which, threads, chunk, padding, seed):
    """A property: the clip `which` comes out of any batch as it does alone on one thread."""
    which %= len(frames)
    draw = torch.Generator().manual_seed(seed)
    clips = [torch.randn(count * 1920 - missing, generator=draw) / 8 for count in frames]
    torch.set_num_threads(1)
    codes, hidden = encode_alone(cat_tiny, clips[which])
    torch.set_num_threads(threads)
    longest = max(len(clip) for clip in clips)
    padded = torch.stack(
        [torch.nn.functional.pad(clip, (0, longest + padding - len(clip)), value=0.3) for clip in clips]
    )
    mask = torch.arange(longest + padding) < torch.tensor([len(clip) for clip in clips])[:, None]
    output = cat_tiny.encode(padded, mask, chunk_duration=None if chunk is None else chunk * 0.08)
    assert torch.equal(output.audio_codes[:, which, : codes.shape[1]], codes)
    assert torch.equal(output.encoder_hidden_states[which, :, : codes.shape[1]], hidden)


def test_the_future_is_not_seen(cat_tiny):
    """The codec is causal, to the bit: a longer clip begins with the codes of its beginning."""
    clip = torch.randn(30 * RATE, generator=torch.Generator().manual_seed(7)) / 8
    codes, hidden = encode_alone(cat_tiny, clip)
    for frames in (1, 2, 16, 63, 124, 125, 126, 250, 374):
        early, early_hidden = encode_alone(cat_tiny, clip[: frames * 1920])
        assert torch.equal(early, codes[:, :frames])
        assert torch.equal(early_hidden, hidden[:, :frames])


def test_an_overflowing_neighbour_does_no_harm(cat_tiny):
    """Samples of 1e38 are finite and overflow inside; a masked key that is NaN would spread, were it ever read."""
    quiet = torch.randn(3 * RATE, generator=torch.Generator().manual_seed(8)) / 8
    expected = encode_alone(cat_tiny, quiet)
    loud = torch.full((2 * RATE + 7,), 3e38)
    assert not torch.isfinite(encode_alone(cat_tiny, loud)[1]).all()
    batch = cat_tiny.batch_encode([loud, quiet, loud])
    frames = expected[0].shape[1]
    assert torch.equal(batch.audio_codes[:, 1, :frames], expected[0])
    assert torch.equal(batch.encoder_hidden_states[1, :, :frames], expected[1])


@pytest.mark.slow
def test_bfloat16_codes_do_not_depend_on_the_batch(cat_tiny_bfloat16, real_clips):
    model = cat_tiny_bfloat16
    clips = [clip[: 14 * RATE] for clip in real_clips[:8]]
    alone = [encode_alone(model, clip) for clip in clips]
    assert_clips_equal(model, clips, alone)
    assert_clips_equal(model, clips[::-1], alone[::-1])
    assert_clips_equal(model, clips, alone, chunk_duration=10)
    assert_clips_equal(model, clips, alone, chunk_duration=0.4)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_batch_is_not_seen_on_any_device(device, dtype, v1_tiny):
    """The same on every device of this machine; on a GPU the fixed budget of rows is what keeps kernels the same."""
    model = MossAudioTokenizerModel.from_pretrained(v1_tiny.folder, dtype=dtype, device=device)
    clips = [clip.to(device) for clip in v1_tiny.clips]
    alone = [encode_alone(model, clip) for clip in clips]
    assert alone[0][0].device.type == device.type
    assert_clips_equal(model, clips, alone)
    assert_clips_equal(model, clips[::-1], alone[::-1])
    assert_clips_equal(model, clips, alone, chunk_duration=10)
    if dtype == "float32":
        expected = torch.cat([v1_tiny.vectors[f"{index}.codes"].long() for index in range(len(clips))], 1)
        found = torch.cat([codes.cpu() for codes, _ in alone], 1)
        assert (found != expected).float().mean() <= 1e-4
