"""Triton kernels run in Triton's interpreter where there is no GPU.

Triton reads the variable when it is imported, and so do its own functions that kernels call. This
file is read before any test is, and transformers imports Triton, so it can stand nowhere deeper.
"""

import os

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
