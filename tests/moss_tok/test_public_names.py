"""What `moss_tok` offers at its top is there, and is not a module of the same name."""

from __future__ import annotations

import pytest

import moss_tok


@pytest.mark.parametrize("name", [name for name in moss_tok.__all__ if name != "DEFAULT_MODEL"])
def test_a_public_name_is_the_class_or_function_of_this_name(name: str) -> None:
    assert getattr(moss_tok, name).__name__ == name
    assert getattr(moss_tok, name).__name__ == name  # again: by now the modules are imported, and are attributes too


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Tokenizer'"):
        _ = moss_tok.Tokenizer
    assert {"MossAudioTokenizerModel", "DEFAULT_MODEL"} <= set(dir(moss_tok))
