"""Our training configuration in the words of transformers' Trainer."""

from typing import Any

import torch
from transformers import TrainingArguments

from gcattn.train.config import TrainConfig

NEVER = 10**12


def training_arguments(config: TrainConfig) -> TrainingArguments:
    """Return the arguments of the Trainer; under torchrun this also joins the process group.

    Raises:
        ValueError: bf16 or FSDP is asked for where it does not exist.
    """
    training = config.training
    on_gpu = torch.cuda.is_available()
    if training.fsdp and not on_gpu:
        raise ValueError("training.fsdp needs CUDA GPUs; set training.fsdp=false on this machine.")
    sharding: dict[str, Any] = {}
    if training.fsdp:
        sharding = {
            "fsdp": True,
            "fsdp_config": {"version": 2, "state_dict_type": "SHARDED_STATE_DICT"},
        }
    return TrainingArguments(
        output_dir=config.output,
        max_steps=training.steps,
        per_device_train_batch_size=training.batch_size,
        per_device_eval_batch_size=training.batch_size,
        gradient_accumulation_steps=training.gradient_accumulation,
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        adam_beta1=training.betas[0],
        adam_beta2=training.betas[1],
        max_grad_norm=training.max_grad_norm,
        bf16=uses_bf16(training.precision),
        use_cpu=not on_gpu,
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,
        seed=training.seed,
        data_seed=training.seed,
        dataloader_num_workers=training.num_workers,
        dataloader_pin_memory=on_gpu,
        # what is pinned need not be waited for
        accelerator_config={"non_blocking": on_gpu},
        remove_unused_columns=False,
        logging_strategy="steps",
        logging_steps=training.log_every,
        logging_first_step=True,
        # a filtered NaN would look like a good loss, and filtering waits for the device every step
        logging_nan_inf_filter=False,
        eval_strategy="no" if config.data.validation is None else "steps",
        eval_steps=training.eval_every or NEVER,
        save_strategy="steps",
        save_steps=training.save_every or NEVER,
        disable_tqdm=True,
        report_to="none",
        **sharding,
    )


def uses_bf16(precision: str) -> bool:
    """Return whether forward and backward passes run in bfloat16.

    Raises:
        ValueError: bf16 is asked for on a GPU without it.
    """
    if precision != "auto":
        if precision == "bf16" and torch.cuda.is_available() and not torch.cuda.is_bf16_supported():
            raise ValueError("training.precision is bf16, which this GPU lacks; use auto or fp32.")
        return precision == "bf16"
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported()
