"""Streams give the codes and the sound of the whole clip, whatever the chunks, and hold a bounded state."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load, save

from moss_tok import (
    MossAudioTokenizerModel,
    StreamingDecoder,
    StreamingEncoder,
    StreamState,
    decode_stream,
    encode_stream,
)


@pytest.mark.slow
@pytest.mark.parametrize("chunk_duration", [0.08, 0.4, 2, 10])
def test_streaming_equals_offline_past_every_window(golden, chunk_duration):
    """Clips of 13 and 31 s (mono) and 9 s (stereo, windows from 1 s), bit for bit: codes, hidden states and sound."""
    for index in (3, 4) if golden.folder.name == "v1_tiny" else (2,):
        clip = golden.clips[index][None]
        whole = golden.model.encode(clip)
        chunked = golden.model.encode(clip, chunk_duration=chunk_duration)
        assert torch.equal(chunked.audio_codes, golden.vectors[f"{index}.codes"].long()[:, None])
        assert torch.equal(chunked.encoder_hidden_states, whole.encoder_hidden_states)
        assert torch.equal(
            golden.model.decode(whole.audio_codes, chunk_duration=chunk_duration).audio,
            golden.model.decode(whole.audio_codes).audio,
        )


def test_a_batch_of_clips_streams_together(v1_tiny):
    whole = v1_tiny.model.batch_encode(v1_tiny.clips)
    chunked = v1_tiny.model.batch_encode(v1_tiny.clips, chunk_duration=2)
    assert torch.equal(chunked.audio_codes, whole.audio_codes)
    assert torch.equal(chunked.encoder_hidden_states, whole.encoder_hidden_states)


def test_streams_start_and_end_at_different_times(cat_tiny):
    draw = torch.Generator().manual_seed(4)
    frame = cat_tiny.downsample_rate
    clips = [torch.randn(1, frames * frame, generator=draw) / 10 for frames in (40, 7, 23)]
    starts, sizes = (0, 3, 5), (4, 1, 7)
    encoder = StreamingEncoder(cat_tiny)
    states: list[StreamState | None] = [None] * 3
    sent = [0] * 3
    codes: list[list[torch.Tensor]] = [[], [], []]
    for step in range(20):
        active = [i for i in range(3) if step >= starts[i] and sent[i] < clips[i].shape[1]]
        if not active:
            continue
        chunks = [clips[i][:, sent[i] : sent[i] + sizes[i] * frame] for i in active]
        results, advanced = encoder.step_batch(chunks, [states[i] for i in active])
        for i, result, state in zip(active, results, advanced, strict=True):
            codes[i].append(result)
            states[i] = state
            sent[i] += sizes[i] * frame
    for clip, parts in zip(clips, codes, strict=True):
        assert torch.equal(torch.cat(parts, 1), cat_tiny.encode(clip).audio_codes[:, 0])


def test_a_state_is_a_value_that_can_be_saved_and_used_twice(v1_tiny):
    clip = v1_tiny.clips[3][:, : 160 * 1920]
    encoder = StreamingEncoder(v1_tiny.model)
    first, state = encoder.step(clip[:, : 90 * 1920])
    once, _ = encoder.step(clip[:, 90 * 1920 :], state)
    restored = StreamState.from_tensors(load(save(state.tensors()))).to("cpu")
    again, _ = encoder.step(clip[:, 90 * 1920 :], restored)
    assert torch.equal(once, again)
    assert torch.equal(torch.cat([first, once], 1), v1_tiny.model.encode(clip).audio_codes[:, 0])


def test_a_damaged_saved_state_is_refused():
    with pytest.raises(ValueError, match="'frames'"):
        StreamState.from_tensors({"0.0": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"gap before tensor 1\.1"):
        StreamState.from_tensors({"frames": torch.tensor(3), "0.0": torch.zeros(1), "1.1": torch.zeros(1)})


def test_state_stays_within_the_context(v1_tiny):
    """Once past the window, a stream's state no longer grows, to within one tile of queries per layer."""
    encoder = StreamingEncoder(v1_tiny.model)
    chunk = torch.randn(1, 25 * 1920, generator=torch.Generator().manual_seed(5)) / 10
    state, sizes = None, []
    for _ in range(20):
        _, state = encoder.step(chunk, state)
        sizes.append(state.nbytes)
    stages = [stage.config for stage in v1_tiny.model.encoder.stages]
    bound = sum(config.num_layers * (config.context + 64) * 2 * config.d_model * 4 for config in stages)
    assert max(sizes) <= bound
    assert sizes[2] < sizes[4]
    assert max(sizes[6:]) < 1.1 * min(sizes[6:])


@pytest.mark.slow
def test_blocks_of_any_size_become_the_clips_codes(v1_tiny):
    clip = v1_tiny.clips[4]
    expected = v1_tiny.model.encode(clip).audio_codes[:, 0]
    for size in (997, 48_000, 240_000, 10_000_000):
        blocks = (clip[:, start : start + size] for start in range(0, clip.shape[1], size))
        assert torch.equal(torch.cat(list(encode_stream(v1_tiny.model, blocks)), 1), expected)
    blocks = iter([clip[0, :5000], clip[0, 5000:]])
    eight = torch.cat(list(encode_stream(v1_tiny.model, blocks, num_quantizers=8, chunk_duration=2.0)), 1)
    assert torch.equal(eight, expected[:8])


@pytest.mark.slow
def test_long_streams_need_no_more_memory_than_short_ones(cat_tiny):
    """Twenty minutes arrive in blocks; at no time are more than two chunks of samples waiting to be encoded."""
    block, taken, frames = torch.zeros(1, 240_000), 0, 0
    ahead = []

    def blocks():
        nonlocal taken
        for _ in range(120):
            taken += 1
            yield block

    for codes in encode_stream(cat_tiny, blocks(), num_quantizers=1):
        frames += codes.shape[1]
        ahead.append(taken * 125 - frames)
    assert frames == 15_000
    assert max(ahead) <= 125


def test_decode_stream_joins_pieces(v1_tiny):
    codes = v1_tiny.vectors["3.codes"].long()
    pieces = (codes[:, start : start + 31] for start in range(0, codes.shape[1], 31))
    audio = torch.cat(list(decode_stream(v1_tiny.model, pieces)), 1)
    assert torch.equal(audio, v1_tiny.model.decode(codes).audio[0])


def test_streams_refuse_what_they_cannot_continue(cat_tiny, v1_tiny):
    encoder = StreamingEncoder(cat_tiny)
    with pytest.raises(ValueError, match="chunk 0 has 1000 samples; a chunk must be whole frames of 1920"):
        encoder.step(torch.zeros(1, 1000))
    with pytest.raises(ValueError, match="1 chunks need 1 states"):
        encoder.step_batch([torch.zeros(1, 1920)], [])
    with pytest.raises(ValueError, match="num_quantizers"):
        StreamingEncoder(cat_tiny, num_quantizers=40)
    only = MossAudioTokenizerModel.from_pretrained(v1_tiny.folder, parts="decoder")
    with pytest.raises(ValueError, match="cannot encode"):
        StreamingEncoder(only)
    with pytest.raises(ValueError, match="cannot decode"):
        StreamingDecoder(MossAudioTokenizerModel.from_pretrained(v1_tiny.folder, parts="encoder"))
    _, state = encoder.step(torch.zeros(1, 1920))
    with pytest.raises(ValueError, match="state of another codec"):
        StreamingEncoder(v1_tiny.model).step(torch.zeros(1, 1920), state)


def test_no_samples_give_no_codes(cat_tiny):
    assert list(encode_stream(cat_tiny, iter([]))) == []
