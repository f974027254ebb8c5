"""The fixed words of needles and questions, encoded once with any tokenizer.

Every piece is encoded on its own, so a needle is always the same pieces around the ids of its key
and value, whatever the tokenizer would have made of the whole sentence.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TokenIds = tuple[int, ...]

_TEXTS = {
    "secret_of": "\nThe secret of",
    "is_": " is",
    "the_secret_of": " the secret of",
    "end": ".\n",
    "what_is_secret_of": "\nWhat is the secret of",
    "so_secret_of": "? The secret of",
    "what_is_final_secret_of": "\nWhat is the final secret of",
    "so_final_secret_of": "? The final secret of",
    "what_are_secrets_of": "\nWhat are the secrets of",
    "so_secrets_of": "? The secrets of",
    "are": " are",
    "and_": " and",
    "variable": "\nVariable",
    "equals": " equals",
    "the_variable": " the variable",
    "which_variables_equal": "\nWhich variables equal",
    "so_variables_equal": "? The variables that equal",
}


@dataclass(frozen=True)
class Phrases:
    """Token ids of the words around keys and values."""

    secret_of: TokenIds
    is_: TokenIds
    the_secret_of: TokenIds
    end: TokenIds
    what_is_secret_of: TokenIds
    so_secret_of: TokenIds
    what_is_final_secret_of: TokenIds
    so_final_secret_of: TokenIds
    what_are_secrets_of: TokenIds
    so_secrets_of: TokenIds
    are: TokenIds
    and_: TokenIds
    variable: TokenIds
    equals: TokenIds
    the_variable: TokenIds
    which_variables_equal: TokenIds
    so_variables_equal: TokenIds

    @classmethod
    def encode(cls, tokenizer: PreTrainedTokenizerFast) -> Phrases:
        """Encode the phrases.

        Raises:
            ValueError: The tokenizer has no tokens for a phrase.
        """
        encoded: dict[str, TokenIds] = {}
        for name, text in _TEXTS.items():
            ids = tuple(tokenizer.encode(text, add_special_tokens=False))
            if not ids or set(ids) & set(tokenizer.all_special_ids):
                raise ValueError(
                    f"The tokenizer cannot write {text!r}, which needles are phrased with; use one "
                    "that was trained on English text."
                )
            encoded[name] = ids
        return cls(**encoded)

    def token_ids(self) -> set[int]:
        """Return every id that a phrase holds."""
        return {token for field in fields(self) for token in getattr(self, field.name)}
