"""Which tokens of a prompt a cache has not read.

Shapes: B rows, T tokens passed, P tokens that the cache has read, E hidden size.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from gcattn.chunking import prompt_breaks, whole_chunks
from gcattn.memory.cache import DRTCache
from gcattn.memory.token_log import LAST_IS_READ, UNKNOWN


@dataclass(frozen=True)
class UnreadPrompt:
    """The tokens of a prompt that are to be read.

    Attributes:
        new: Ids [B, T] or embeddings [B, T, E].
        valid: False where a token is padding, bool [B, T].
        last_is_read: Rows whose last generated token was read while others continued, bool [B].
        breaks: Where chunks close, bool [B, T + 1]; the first column closes what is open. None:
            nowhere early.
    """

    new: Tensor
    valid: Tensor
    last_is_read: Tensor
    breaks: Tensor | None = None

    def closed(self) -> Self:
        """Close the prompt before its last token, as `prompt_breaks` says."""
        # rows read while others continued close their chunk where they would have closed it alone
        whole = torch.cat([self.last_is_read[:, None], self.valid], dim=1)
        return replace(self, breaks=prompt_breaks(whole))

    def mask(self) -> Tensor | None:
        """Return 0 where a token is padding, [B, T]; None if none is."""
        return None if bool(self.valid.all()) else self.valid.long().to(self.new.device)

    def pieces(self, size: int | None, chunk_size: int) -> Iterator[Self]:
        """Cut the prompt into pieces of about `size` tokens, of whole chunks if one fits.

        With None for `size` there is one piece.

        Raises:
            ValueError: `size` is below 1.
        """
        num_tokens = self.new.shape[1]
        if size is not None and size < 1:
            raise ValueError(f"prefill_chunk_size must be at least 1, got {size}.")
        size = num_tokens if size is None else whole_chunks(size, chunk_size)
        # looking at a piece on the device would mean waiting for the pieces before it
        valid = self.valid.cpu()
        all_breaks = None if self.breaks is None else self.breaks.cpu()
        for start in range(0, num_tokens, size):
            tokens = slice(start, start + size)
            breaks = all_breaks
            if breaks is not None:
                breaks = breaks[:, start + (start > 0) : start + size + 1]
            yield replace(self, new=self.new[:, tokens], valid=valid[:, tokens], breaks=breaks)


def unread_prompt(
    cache: DRTCache | None,
    given: Tensor,
    attention_mask: Tensor | None,
    mask_width: int | None,
    breaks: Tensor | None,
) -> UnreadPrompt:
    """Return what is new in a prompt.

    A prompt is either whole, so that it begins with everything that the cache has read, or holds
    new tokens only. It holds new tokens only if its mask has P + T columns, or if it is no longer
    than what was read. Otherwise the ids decide. The last generated token, which no call has read,
    is put in front of new tokens unless they begin with it.

    Args:
        cache: What was read; None: nothing.
        given: Ids [B, T] or embeddings [B, T, E].
        attention_mask: [B, T] or [B, P + T]; None: no padding.
        mask_width: Columns of the mask that the caller passed, if one was.
        breaks: `chunk_breaks` of the caller, [B, T] or [B, P + T].

    Raises:
        ValueError: A shape does not fit, or the ids are neither clearly whole nor clearly new.
    """
    past, (B, num_tokens) = 0 if cache is None else cache.num_tokens, given.shape[:2]
    if num_tokens == 0:
        raise ValueError("The prompt holds no token.")
    breaks_width = None if breaks is None else breaks.shape[1]
    for name, width in (("attention_mask", mask_width), ("chunk_breaks", breaks_width)):
        if width not in (None, num_tokens, past + num_tokens):
            raise ValueError(
                f"{name} must have as many columns as the prompt, {num_tokens}, or as all tokens, "
                f"{past + num_tokens}, got {width}."
            )
    valid = torch.ones(B, num_tokens, dtype=torch.bool, device=given.device)
    if attention_mask is not None:
        valid = attention_mask[:, -num_tokens:].bool().to(given.device)
    if breaks is not None:
        breaks = F.pad(breaks[:, -num_tokens:].bool(), (1, 0))
    nothing = torch.zeros(B, dtype=torch.bool, device=given.device)
    if cache is None or past == 0:
        return UnreadPrompt(given, valid, nothing, breaks)
    if cache.num_rows != B:
        return UnreadPrompt(given, valid, nothing, breaks)  # the model refuses it
    last = cache.log.last_generated.to(given.device)
    goes_on = mask_width == past + num_tokens
    if not goes_on and num_tokens > past and _begins_with(cache, given):
        new, valid = given[:, past:], valid[:, past:]
        breaks = None if breaks is None else F.pad(breaks[:, past + 1 :], (1, 0))
        return UnreadPrompt(new, valid, last == LAST_IS_READ, breaks)
    prompt = UnreadPrompt(given, valid, last == LAST_IS_READ, breaks)
    is_unread = last >= 0
    if given.dim() == 3 or not bool(is_unread.any()):
        return prompt
    first = given.gather(1, valid.int().argmax(1, keepdim=True)).squeeze(1)
    if bool((first == last)[is_unread].all()):
        return prompt
    filler = torch.where(is_unread, last, 0).to(given.dtype)
    return replace(
        prompt,
        new=torch.cat([filler[:, None], given], dim=1),
        valid=torch.cat([is_unread[:, None], valid], dim=1),
        breaks=None if breaks is None else F.pad(breaks, (1, 0)),
    )


def _begins_with(cache: DRTCache, given: Tensor) -> bool:
    """Return whether a prompt that is longer than what was read begins with it.

    Raises:
        ValueError: It begins with most of it.
    """
    read = cache.log.ids
    past = read.shape[1]
    if given.dim() == 3 or bool((read == UNKNOWN).any()):
        return True  # embeddings can't be compared; transformers takes such a prompt as whole
    same = (given[:, :past].to(read.device) == read).long().cumprod(1).sum(1)  # [B]
    if bool((same == past).all()):
        return True
    if 2 * int(same.max()) >= past:
        raise ValueError(
            f"The prompt begins like the {past} tokens that the cache has read, but differs from "
            f"them at token {int(same.min())}. Pass them unchanged and the new ones after, or the "
            f"new ones alone with an attention_mask of {past} + their number of columns."
        )
    return False
