"""Loads the tokenizer of a language model from its tokenizer.json. No model and no code of a repository is loaded."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from pipeline import storage
from pipeline.export.config import ExportConfig
from pipeline.yaml_config import ConfigError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FILE = "tokenizer.json"


class TextTokenizer:
    """Converts text to ids, and names of special tokens to ids."""

    def __init__(self, tokenizer: Tokenizer, where: str, sha256: str) -> None:
        # A special token that is spelled out in a transcript is text: it must not end or begin a document.
        tokenizer.encode_special_tokens = True
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizer = tokenizer
        self._where = where
        self.sha256 = sha256
        self.vocabulary_size: int = tokenizer.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str) -> list[int]:
        """Ids of the text, without the tokens that the tokenizer adds around a sentence."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def id_of(self, name: str) -> int:
        """The id of a token. Raises ConfigError if the vocabulary does not have it."""
        token_id = self._tokenizer.token_to_id(name)
        if token_id is None:
            raise ConfigError(f"{self._where}: no token {name!r}: name one of its vocabulary, or give a number")
        return int(token_id)


def tokenizer_of(config: ExportConfig) -> TextTokenizer | None:
    """The tokenizer of an export; None if it uses none."""
    uri = config.tokens.tokenizer if config.export.to in ("tokens", "megatron") else None
    return None if uri is None else load_tokenizer(uri)


def load_tokenizer(uri: str) -> TextTokenizer:
    """Load a tokenizer.json, or the one in a folder. Raises ConfigError if it does not exist or cannot be read."""
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ConfigError(f"tokens.tokenizer: {error}: pip install 'moss-tok[export]'") from error
    where = uri if uri.endswith(".json") else storage.join(uri, FILE)
    try:
        data = storage.read_bytes(where)
    except FileNotFoundError as error:
        raise ConfigError(
            f"{where}: no such file: tokens.tokenizer names a {FILE} or a folder that holds one"
        ) from error
    try:
        tokenizer = Tokenizer.from_buffer(data)
    except Exception as error:  # the library has no errors of its own
        raise ConfigError(f"{where}: not a {FILE} of the Hugging Face tokenizers library: {error}") from error
    return TextTokenizer(tokenizer, where, hashlib.sha256(data).hexdigest())
