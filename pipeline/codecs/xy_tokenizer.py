"""XY-Tokenizer: 16 kHz in, 24 kHz out, 12.5 frames a second, 8 codebooks of 1024.

There is no package of it: its code is that of a checkout of its repository, in the folder that the environment variable
names. Only a person names it: no configuration, record or repo of weights can have code run.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from moss_tok.checkpoint import Checkpoint
from pipeline.codecs.config_file import read_config
from pipeline.codecs.plain_models import add_bare_package, fill
from pipeline.codecs.protocol import Codebook, CodecDescription, CodecError, Family, Parts
from pipeline.codecs.torch_clips import TorchClips
from pipeline.codecs.transformers_models import import_transformers
from pipeline.items import stable_hash

CHECKOUT = "MOSS_TOK_XY_TOKENIZER"
"""Environment variable: the folder of a checkout, in which `xy_tokenizer/model.py` is."""
OVERLAP_SECONDS = 10
"""Of the windows of 30 s in which the model encodes and decodes, as its own scripts have it."""
SAMPLES_PER_CODE = 1280  # where the configuration does not say, it is what the code says


class XYTokenizer(TorchClips):
    """As the model's own code does it, what follows the last whole frame has no code. A clip shorter than a frame, of
    which that would leave nothing, is padded to one.
    """

    padded_to = "a frame"

    def encode_tensor(self, waveform: Tensor) -> tuple[Sequence[Tensor], Tensor | None]:
        return list(self.model.encode([waveform[0]], overlap_seconds=OVERLAP_SECONDS)["codes_list"][0]), None

    def decode_tensor(self, codes: Sequence[Tensor], scales: Tensor | None, num_samples: int) -> Tensor:
        found = self.model.decode([torch.stack(list(codes))], overlap_seconds=OVERLAP_SECONDS)
        audio: Tensor = found["syn_wav_list"][0]
        return audio[None]


def _package() -> Path:
    """The folder of the code. Raises CodecError where none is named, or it is not there."""
    checkout = os.environ.get(CHECKOUT)
    if not checkout:
        raise CodecError(
            f"XY-Tokenizer has no package: set the environment variable {CHECKOUT} to the folder of a checkout of its "
            "repository, whose code you trust (docs/codecs.md)"
        )
    package = Path(checkout).expanduser().resolve() / "xy_tokenizer"
    if not (package / "model.py").is_file():
        raise CodecError(f"{CHECKOUT}: {package / 'model.py'} is not there: name the folder of a checkout")
    return package


def _code_hash(package: Path) -> str:
    """Of all the code, which decides the codes as weights do."""
    texts = {file.relative_to(package).as_posix(): file.read_text("utf-8") for file in package.rglob("*.py")}
    return stable_hash(*(part for item in sorted(texts.items()) for part in item))


def _describe(config: Mapping[str, Any]) -> CodecDescription:
    settings = config["generator_params"]
    quantizer = settings["quantizer_kwargs"]
    codebook = Codebook(int(quantizer["codebook_size"]), int(settings.get("encoder_downsample_rate", SAMPLES_PER_CODE)))
    return CodecDescription(
        family="xy_tokenizer",
        sample_rate=int(settings["input_sample_rate"]),
        channels=1,
        codebooks=(codebook,) * int(quantizer["num_quantizers"]),
        trained=config.get("trained") is not False,
        prefix=False,  # its decode takes no fewer
        whole_frames_only=True,
        decoded_sample_rate=int(settings["output_sample_rate"]),
    )


def _recognises(config: Mapping[str, Any]) -> bool:
    settings = config.get("generator_params")
    return isinstance(settings, dict) and "semantic_encoder_adapter_kwargs" in settings


def _decisive(config: Mapping[str, Any]) -> Any:
    import_transformers()  # which its code is built on
    return {"generator_params": config["generator_params"], "code": _code_hash(_package())}


def _load(checkpoint: Checkpoint, device: str, dtype: str, parts: Parts) -> XYTokenizer:
    config, package = read_config(checkpoint), _package()
    name = f"xy_tokenizer_{_code_hash(package)}"  # of other code, other modules
    add_bare_package(name, [str(package)])
    try:
        model = import_module(f"{name}.model").XY_Tokenizer(config["generator_params"])
    except ImportError as error:
        raise CodecError(f"the code in {package} needs a package that is not installed: {error}") from error
    except (AttributeError, LookupError, TypeError) as error:
        raise CodecError(
            f"the code in {package} makes no model of the config.json in {checkpoint.folder}, which is of another "
            f"version of it: {type(error).__name__}: {error}"
        ) from error
    return XYTokenizer(_describe(config), fill(model, checkpoint), device)


FAMILY = Family(
    name="xy_tokenizer",
    describe=_describe,
    load=_load,
    recognises=_recognises,
    decisive=_decisive,
    packages=("transformers",),
)
