"""Every family: codes are the library's own on each clip alone, whatever shares a call and however many threads."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.codecs import Codec, CodecDescription, Coded, find_codec, load_codec
from tests.pipeline.codecs.models import MODELS

pytestmark = pytest.mark.slow  # the libraries of a dozen codecs are imported

Folder = Callable[[str], Path]

RATES = {  # Hz in, channels, sizes of the codebooks, samples per code of each
    "mimi": (24_000, 1, (64,) * 6, (1920,) * 6),
    "qwen3_tts": (24_000, 1, (64,) * 4, (1920,) * 4),
    "encodec": (24_000, 1, (64,) * 6, (320,) * 6),
    "encodec_48k": (48_000, 2, (64,) * 4, (320,) * 4),
    "dac": (24_000, 1, (64,) * 5, (320,) * 5),
    "xcodec2": (16_000, 1, (65_536,), (320,)),
    "neucodec": (16_000, 1, (65_536,), (320,)),
    "xcodec": (16_000, 1, (64,) * 6, (320,) * 6),
    "higgs": (24_000, 1, (64,) * 4, (960,) * 4),
    "wavtokenizer": (24_000, 1, (256,), (600,)),
    "snac": (24_000, 1, (256,) * 3, (2048, 1024, 512)),
    "speechtokenizer": (16_000, 1, (64,) * 4, (320,) * 4),
    "bigcodec": (16_000, 1, (256,), (200,)),
}
DISTINCT = 5
"""Codes of a clip of noise: models that always answer the same would pass any comparison."""


@cache
def codec_of(model_folder: Folder, name: str) -> Codec:
    return load_codec(find_codec(str(model_folder(name))), "cpu")


def clips_of(description: CodecDescription) -> list[np.ndarray]:
    """Lengths around whole frames, and around the chunks of a codec that has them; two of them are equal."""
    random = np.random.default_rng(3)
    frame, long = description.samples_per_frame, description.sample_rate // (1 if description.chunking else 3)
    lengths = (1, frame - 1, frame, frame + 1, 7 * frame, 7 * frame, long - long // 100 + 7, 2 * long + 333)
    return [(0.1 * random.standard_normal((description.channels, n))).astype(np.float32) for n in lengths]


def zero_padded(sound: torch.Tensor, unit: int) -> torch.Tensor:
    return torch.nn.functional.pad(sound, (0, -sound.shape[-1] % unit))


class Library:
    """Codes as the libraries' own documentation shows how to get them."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.model = self._load(name, folder)

    def _load(self, name: str, folder: Path) -> Any:
        import json

        import transformers
        from safetensors.torch import load_file

        if name in ("snac", "speechtokenizer", "bigcodec"):
            from bigcodec import BigCodec
            from snac import SNAC

            from pipeline.codecs.plain_models import import_without_init

            config = json.loads((folder / "config.json").read_text())
            if name == "speechtokenizer":
                model = import_without_init("speechtokenizer", "model", "speechtokenizer").SpeechTokenizer(config)
            else:
                model = SNAC(**config) if name == "snac" else BigCodec(**config)
            model.load_state_dict(load_file(folder / "model.safetensors"))
            return model.eval()
        if name == "qwen3_tts":
            folder = folder / "mimi"
        classes = {
            "mimi": "Mimi", "qwen3_tts": "Mimi", "encodec": "Encodec", "encodec_48k": "Encodec", "dac": "Dac",
            "xcodec2": "Xcodec2", "neucodec": "NeuCodec", "xcodec": "Xcodec", "higgs": "HiggsAudioV2Tokenizer",
            "wavtokenizer": "WavTokenizer",
        }  # fmt: skip
        return getattr(transformers, f"{classes[name]}Model").from_pretrained(folder).eval()

    def codes(self, waveform: np.ndarray) -> list[np.ndarray]:
        """Of each codebook, (frames,)."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with torch.no_grad():
                found = getattr(self, f"_{self.name}", self._plain)(torch.from_numpy(waveform)[None])
        finally:
            torch.set_num_threads(threads)
        return [layer.flatten().numpy() for layer in found]

    def _plain(self, sound: torch.Tensor) -> Any:
        return self.model.encode(sound).audio_codes[0]

    def _mimi(self, sound: torch.Tensor) -> Any:
        return self._plain(zero_padded(sound, 1920))

    def _qwen3_tts(self, sound: torch.Tensor) -> Any:
        return self._plain(sound)[:4]

    def _dac(self, sound: torch.Tensor) -> Any:
        return self._plain(zero_padded(sound, 320))

    def _higgs(self, sound: torch.Tensor) -> Any:
        return self._plain(zero_padded(sound, 960))

    def _xcodec(self, sound: torch.Tensor) -> Any:
        return self._plain(zero_padded(sound, 320))

    def _encodec(self, sound: torch.Tensor) -> Any:
        return self.model.encode(sound, bandwidth=2.7).audio_codes[0, 0]

    def _encodec_48k(self, sound: torch.Tensor) -> Any:
        if 47_520 < sound.shape[-1] < 48_000:  # it cannot stack the chunks of such a clip: they are encoded one by one
            whole = self.model._encode_frame(sound, 3.6)[0][0]
            return torch.cat([whole, self.model.encode(sound[..., 47_520:], bandwidth=3.6).audio_codes[0, 0]], dim=1)
        found = self.model.encode(sound, bandwidth=3.6)
        chunks = list(found.audio_codes[:, 0])
        chunks[-1] = chunks[-1][:, : chunks[-1].shape[1] - found.last_frame_pad_length]
        return torch.cat(chunks, dim=1)

    def _extracted(self, sound: torch.Tensor, extractor: str, frames: int) -> Any:
        import transformers

        features = getattr(transformers, extractor)()(sound[0, 0].numpy(), sampling_rate=16_000, return_tensors="pt")
        return self.model.encode(**features).audio_codes[0, :, :frames]

    def _xcodec2(self, sound: torch.Tensor) -> Any:
        return self._extracted(sound, "Xcodec2FeatureExtractor", -(-sound.shape[-1] // 320))

    def _neucodec(self, sound: torch.Tensor) -> Any:
        sound = zero_padded(sound, 320) if sound.shape[-1] < 320 else sound  # what it cannot take
        return self._extracted(sound, "NeuCodecFeatureExtractor", max(1, sound.shape[-1] // 320))

    def _snac(self, sound: torch.Tensor) -> Any:
        return self.model.encode(sound)

    def _speechtokenizer(self, sound: torch.Tensor) -> Any:
        return self.model.encode(sound)[:, 0]

    def _bigcodec(self, sound: torch.Tensor) -> Any:
        return self.model.encode(zero_padded(sound, 200))[:, 0]


def same(one: Coded, other: Coded) -> bool:
    scales = (one.scales is None) == (other.scales is None)
    if one.scales is not None and other.scales is not None:
        scales = np.array_equal(one.scales, other.scales)
    return scales and all(np.array_equal(a, b) for a, b in zip(one.codes, other.codes, strict=True))


@pytest.mark.parametrize("name", MODELS)
def test_a_description_needs_no_weights_and_says_what_the_columns_are(model_folder: Folder, name: str):
    rate, channels, sizes, samples = RATES[name]
    description = find_codec(str(model_folder(name))).description
    assert (description.sample_rate, description.channels) == (rate, channels)
    assert tuple(book.size for book in description.codebooks) == sizes
    assert tuple(book.samples_per_code for book in description.codebooks) == samples
    assert description.trained
    assert description == codec_of(model_folder, name).description


@pytest.mark.parametrize("name", MODELS)
def test_codes_are_the_librarys_own_on_each_clip_alone(model_folder: Folder, name: str):
    codec, library = codec_of(model_folder, name), Library(name, model_folder(name))
    count = len(codec.description.codebooks)
    clips = clips_of(codec.description)
    for clip, coded in zip(clips, codec.launch(clips, count).result(), strict=True):
        expected = library.codes(clip)
        assert [len(layer) for layer in coded.codes] == list(codec.description.lengths(clip.shape[1]))
        for layer, wanted in zip(coded.codes, expected, strict=True):
            assert np.array_equal(layer, wanted), clip.shape
    assert len(np.unique(np.concatenate(list(coded.codes)))) >= DISTINCT, "of the last and longest clip"


@pytest.mark.parametrize("name", MODELS)
def test_codes_depend_on_no_neighbour_no_order_and_no_number_of_threads(model_folder: Folder, name: str):
    codec = codec_of(model_folder, name)
    count = len(codec.description.codebooks)
    clips = clips_of(codec.description)
    together = codec.launch(clips, count).result()
    backwards = codec.launch(clips[::-1], count).result()[::-1]
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        alone = [codec.launch([clip], count).result()[0] for clip in clips]
        assert torch.get_num_threads() == threads + 1
    finally:
        torch.set_num_threads(threads)
    for one, other, third in zip(together, backwards, alone, strict=True):
        assert same(one, other)
        assert same(one, third)


@pytest.mark.parametrize("name", MODELS)
def test_a_clip_in_parts_has_the_codes_of_the_whole_and_decodes_to_its_length(model_folder: Folder, name: str):
    codec = codec_of(model_folder, name)
    description = codec.description
    count = len(description.codebooks)
    clip = clips_of(description)[-1]
    whole = codec.launch([clip], count).result()[0]
    stream = codec.stream(count, 16)
    cut = 4 * description.samples_per_frame
    stream.step(clip[:, :cut])
    stream.step(clip[:, cut:])
    assert same(whole, stream.finish())
    for waveform in clips_of(description)[::3]:
        coded = codec.launch([waveform], count).result()[0]
        sound = codec.decode([coded], [waveform.shape[1]])[0]
        assert sound.dtype == np.float32
        assert sound.shape == (description.channels, description.decoded_samples(waveform.shape[1]))
        assert np.isfinite(sound).all()
        assert np.array_equal(sound, codec.decode([coded], [waveform.shape[1]])[0]), "decoding is repeatable"
    pieces = np.concatenate(list(codec.decode_pieces(whole, clip.shape[1])), axis=1)
    assert np.array_equal(pieces, codec.decode([whole], [clip.shape[1]])[0])
    assert np.abs(pieces).max() > 0


@pytest.mark.parametrize("name", [name for name in MODELS if len(RATES[name][2]) > 1 and name != "snac"])
def test_the_first_codebooks_are_those_of_all_and_decode_alone(model_folder: Folder, name: str):
    codec = codec_of(model_folder, name)
    clip = clips_of(codec.description)[-1]
    every = codec.launch([clip], len(codec.description.codebooks)).result()[0]
    first = codec.launch([clip], 2).result()[0]
    assert same(first, Coded(every.codes[:2], every.scales))
    coarse, fine = (codec.decode([coded], [clip.shape[1]])[0] for coded in (first, every))
    assert coarse.shape == fine.shape
    assert not np.array_equal(coarse, fine)


def test_decoded_sound_is_the_librarys_own(model_folder: Folder):
    """Chunks are laid over each other here and not by the library: with its own, where it can, the result is equal."""
    import transformers

    folder = model_folder("encodec_48k")
    codec = codec_of(model_folder, "encodec_48k")
    model = transformers.EncodecModel.from_pretrained(folder).eval()
    clip = clips_of(codec.description)[-1]
    coded = codec.launch([clip], 4).result()[0]
    sound = codec.decode([coded], [clip.shape[1]])[0]
    with torch.no_grad():
        found = model.encode(torch.from_numpy(clip)[None], bandwidth=3.6)
        theirs = model.decode(
            found.audio_codes, found.audio_scales, last_frame_pad_length=found.last_frame_pad_length
        ).audio_values[0, :, : clip.shape[1]]
    assert np.allclose(sound, theirs.numpy(), atol=1e-6)
    assert coded.scales is not None
    assert np.allclose(coded.scales, torch.stack(found.audio_scales).flatten().numpy(), rtol=1e-6)
