"""What the benchmarks of whole models share: where they run, on which models, at which lengths."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.options import begin, check_memory, read_lengths, read_presets
from benchmarks.report import Keep, ResultFile, progress_console
from gcattn.models import DRTConfig

# given a configuration, and where to hand progress and rows
MeasurePreset = Callable[[DRTConfig, Callable[[str], None], Keep], dict[str, Any]]


@dataclass(frozen=True)
class ModelRun:
    """A benchmark of models, by preset and by length."""

    device: torch.device
    configs: dict[str, DRTConfig]
    lengths: list[int]
    with_full_attention: bool
    dtype: torch.dtype  # of the weights

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def check_memory(self, num_tokens: int) -> None:
        """Refuse more tokens than the machine could hold in the chunk memory of any preset."""
        check_memory(self.device, self.configs, num_tokens)

    def measure(self, measure: MeasurePreset, result: ResultFile) -> dict[str, Any]:
        """Measure every preset; the result is written after each row."""
        console = progress_console()
        metrics: dict[str, Any] = {}
        for name, config in self.configs.items():

            def keep(rows: dict[str, Any], name: str = name) -> None:
                result.write(metrics | {name: rows})

            metrics[name] = measure(config, console.print, keep)
        return metrics

    def settings(self) -> dict[str, Any]:
        """Return what a result says of the run."""
        return {
            "presets": list(self.configs),
            "lengths": self.lengths,
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": self.device.type,
        }


def begin_model_run(
    preset: str | None,
    lengths: str | None,
    full_attention: bool | None,
    device: str,
    out: Path,
    *,
    on_gpu: str,
    on_cpu: str,
    dtype_on_cpu: torch.dtype = torch.float32,
) -> ModelRun:
    """Read the options, after checking what would otherwise fail when all is measured.

    Args:
        preset: Names of presets; None for drt_128m on a GPU and drt_tiny on a CPU.
        lengths: Lengths in tokens; None for `on_gpu` or `on_cpu`.
        full_attention: Measure a full-attention Transformer too; None: on a GPU.
        device: cpu, cuda or auto.
        out: Folder of the result.
        on_gpu: Lengths that suit a GPU.
        on_cpu: Lengths that suit a CPU.
        dtype_on_cpu: Of the weights there; on a GPU it is bfloat16.
    """
    target = begin(device, out)
    has_gpu = target.type == "cuda"
    return ModelRun(
        target,
        read_presets(preset, "drt_128m" if has_gpu else "drt_tiny"),
        read_lengths(lengths, on_gpu, on_cpu, has_gpu),
        has_gpu if full_attention is None else full_attention,
        torch.bfloat16 if has_gpu else dtype_on_cpu,
    )
