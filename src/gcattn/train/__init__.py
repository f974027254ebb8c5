"""Training of a DRT from one YAML file: configuration, trainer, checkpoints, live progress.

The command is `gcattn train`; from Python: `run_training(load_config("config.yaml"))`.
"""

from gcattn.train.config import TrainConfig, load_config

__all__ = ["TrainConfig", "load_config"]
