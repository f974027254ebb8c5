"""A retrieval group: one retrieval per chunk and the upper layers that it serves (paper, 3.3).

Shapes: B batch, L columns, F finished chunks, C blocks, K retrieved chunks, E hidden size.
"""

from typing import TYPE_CHECKING

from torch import Tensor, nn

from gcattn.memory.chunk_source import ChunkSource
from gcattn.memory.last_retrieval import LastRetrieval
from gcattn.models.call_plan import CallPlan
from gcattn.models.outputs import HiddenStates
from gcattn.nn.decoder_layer import DecoderLayer, RetrievalDecoderLayer
from gcattn.nn.retriever import Retrieval, Retriever
from gcattn.nn.self_attention import ColumnContext
from gcattn.ops.chunk_topk import ChunkSelection

if TYPE_CHECKING:
    from gcattn.models.configuration_drt import DRTConfig


class RetrievalGroup(nn.Module):
    """Retrieve once with the hidden state that enters the group, then run its layers."""

    def __init__(self, config: "DRTConfig", group_index: int) -> None:
        super().__init__()
        retrieves = config.retrieval_method != "none"
        num_layers = config.num_upper_layers // config.num_retrieval_groups
        first = group_index * num_layers
        interval = config.cross_attention_interval
        self.retriever = Retriever(config) if retrieves else None
        self.layers = nn.ModuleList(
            RetrievalDecoderLayer(config, first + i)
            if retrieves and (num_layers - 1 - i) % interval == 0
            else DecoderLayer(config, first + i)
            for i in range(num_layers)
        )

    def forward(
        self,
        hidden: Tensor,
        plan: CallPlan,
        memory: ChunkSource | None,
        last: LastRetrieval,
        context: ColumnContext,
        retrieval: Retrieval,
        trace: HiddenStates,
    ) -> tuple[Tensor, ChunkSelection | None]:
        """Return hidden states [B, L, E] and what the call's landmarks retrieved."""
        if self.retriever is None or memory is None:
            for layer in self.layers:
                hidden = trace.record(layer(hidden, context), plan.upper)
            return hidden, None
        selection = self.retriever(hidden, plan.upper, memory, retrieval, plan.upper_embeddings())
        served = last.extend(selection, plan.upper, plan.blocks.num_blocks)
        retrieved = last.fetch(memory, served)
        if self.training and not selection.weights.shape[1]:
            hidden = hidden + selection.weights.sum()  # of nothing: the retriever takes part
        for layer in self.layers:
            if isinstance(layer, RetrievalDecoderLayer):
                hidden = layer(hidden, *retrieved, context, plan.blocks)
            else:
                hidden = layer(hidden, context)
            hidden = trace.record(hidden, plan.upper)
        return hidden, selection
