"""The Auto classes of `transformers` give this codec, once `register()` was called:

    from moss_tok.auto import register
    from transformers import AutoModel

    register()
    model = AutoModel.from_pretrained("OpenMOSS-Team/MOSS-Audio-Tokenizer").eval()  # a MossAudioTokenizerModel

The published example runs as it is after that call, and without the code that lies in the repo: a registered class goes
before it, also where an example allows such code.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from moss_tok.codec import MossAudioTokenizerModel

MODEL_TYPES = ("moss-audio-tokenizer", "speech_tokenizer")
"""Of the releases' config.json."""
IGNORED = ("adapter_kwargs", "code_revision", "config", "local_files_only", "low_cpu_mem_usage", "use_safetensors")
"""What the Auto classes pass on, or examples say, that has no meaning here."""


class AutoMossAudioTokenizer:
    """What AutoModel calls: `from_pretrained` in its words, which gives a MossAudioTokenizerModel."""

    @classmethod
    def from_pretrained(
        cls,
        repo_or_folder: str | Path,
        *,
        revision: str | None = None,
        dtype: Any = None,
        torch_dtype: Any = None,
        device_map: Any = None,
        **others: Any,
    ) -> MossAudioTokenizerModel:
        """Load the codec. `dtype` is float32 by default, "auto" too; `device_map` is one device.

        Raises TypeError for options that mean something elsewhere and nothing here.
        """
        unknown = [name for name in others if name not in IGNORED and not name.endswith("remote_code")]
        if unknown := [name for name in unknown if not name.startswith("_") and others[name] is not None]:
            raise TypeError(f"the MOSS Audio Tokenizer cannot be loaded with {', '.join(unknown)}")
        wanted = dtype if dtype is not None else torch_dtype
        return MossAudioTokenizerModel.from_pretrained(
            repo_or_folder,
            revision=revision,
            dtype="float32" if wanted in (None, "auto") else wanted,
            device="cpu" if device_map is None else device_map,
        )


def register(replace: bool = False) -> None:
    """Let AutoConfig and AutoModel give this codec for its model types. A second call changes nothing.

    Raises RuntimeError where `transformers` knows one of them itself by now, unless `replace`: its model may take and
    give codes in another order of axes, (batch, num_quantizers, frames), and ours keeps the published one,
    (num_quantizers, batch, frames). Which of the two a program means, it has to say.
    """
    try:
        from transformers import CONFIG_MAPPING, AutoConfig, AutoModel, PreTrainedConfig
    except ImportError as error:
        raise ImportError(f"this needs the transformers library ({error}): pip install 'moss-tok[codecs]'") from error
    for model_type in MODEL_TYPES:
        known = CONFIG_MAPPING[model_type] if model_type in CONFIG_MAPPING else None  # noqa: SIM401 - get() is another
        if getattr(known, "__module__", "") == __name__:
            continue
        if known is not None and not replace:
            raise RuntimeError(
                f"transformers has a model of type {model_type} itself ({known.__module__}): call "
                "register(replace=True) for this one, whose codes are (num_quantizers, batch, frames)"
            )
        name = "".join(part.title() for part in model_type.replace("_", "-").split("-")) + "Config"
        config = type(name, (PreTrainedConfig,), {"model_type": model_type, "__module__": __name__})
        AutoConfig.register(model_type, config, exist_ok=replace)
        AutoModel.register(config, AutoMossAudioTokenizer, exist_ok=replace)
