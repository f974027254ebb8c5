"""Data: from raw text, or from nothing, to the windows that training and evaluation read.

SOURCE - `read_documents` - `prepare_shards` - `TokenShards` - `ShardDataset`; the tokenizer comes
from `load_tokenizer` or `train_tokenizer`; `prepare_synthetic_shards` makes a corpus from nothing.
"""

from gcattn.data.documents import read_documents
from gcattn.data.prepare import prepare_shards
from gcattn.data.shard_dataset import ShardDataset
from gcattn.data.shard_writer import TokenShardWriter
from gcattn.data.synthetic import RecallSpan, SyntheticDocument, synthetic_documents
from gcattn.data.synthetic_shards import prepare_synthetic_shards
from gcattn.data.token_shards import TokenShards
from gcattn.data.tokenizer_loading import load_tokenizer
from gcattn.data.tokenizer_training import train_tokenizer

__all__ = [
    "RecallSpan",
    "ShardDataset",
    "SyntheticDocument",
    "TokenShardWriter",
    "TokenShards",
    "load_tokenizer",
    "prepare_shards",
    "prepare_synthetic_shards",
    "read_documents",
    "synthetic_documents",
    "train_tokenizer",
]
