"""Parts that only peers need; most peers are configurations of the library's own parts."""

from gcattn.models.baselines.fixed_retriever import TextEncoder, attach_text_encoder

__all__ = ["TextEncoder", "attach_text_encoder"]
