"""The tokenizer of a language model, from its tokenizer.json alone: no model, no code of a repository."""

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
    """Text to ids, and names of special tokens to their ids."""

    def __init__(self, tokenizer: Tokenizer, where: str, sha256: str) -> None:
        # A transcript that spells out a special token is text: it must not end a document or begin another.
        tokenizer.encode_special_tokens = True
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizer = tokenizer
        self._where = where
        self.sha256 = sha256
        self.vocabulary_size: int = tokenizer.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str) -> list[int]:
        """Ids of the text, without the tokens that the tokenizer puts around a sentence."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def id_of(self, name: str) -> int:
        """The id of a token. Raises ConfigError if the vocabulary has none of this name."""
        token_id = self._tokenizer.token_to_id(name)
        if token_id is None:
            raise ConfigError(f"{self._where}: no token {name!r}: name one of its vocabulary, or give a number")
        return int(token_id)


def tokenizer_of(config: ExportConfig) -> TextTokenizer | None:
    """The tokenizer that an export uses, if it does."""
    uri = config.tokens.tokenizer if config.export.to == "tokens" else None
    return None if uri is None else load_tokenizer(uri)


def load_tokenizer(uri: str) -> TextTokenizer:
    """A tokenizer.json, or that of a folder. Raises ConfigError if there is none or if it cannot be understood."""
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ConfigError(f"tokens.tokenizer: {error}: pip install 'moss-tok[export]'") from error
    where = uri if uri.endswith(".json") else storage.join(uri, FILE)
    try:
        data = storage.read_bytes(where)
    except FileNotFoundError as error:
        raise ConfigError(f"{where}: not there: tokens.tokenizer names a {FILE} or a folder that holds one") from error
    try:
        tokenizer = Tokenizer.from_buffer(data)
    except Exception as error:  # the library has no errors of its own
        raise ConfigError(f"{where}: not a {FILE} of the Hugging Face tokenizers library: {error}") from error
    return TextTokenizer(tokenizer, where, hashlib.sha256(data).hexdigest())
