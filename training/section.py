"""What can be set about training and prediction.

Apart from the code that reads it, because that code imports torch (more than a second) and a run that reuses
everything, or `--help`, need only the settings.
"""

from __future__ import annotations

from typing import Literal

from storage.section import Section, setting

ModelName = Literal["lstm", "ridge"]


class TrainSection(Section):
    """How models are fitted."""

    models: tuple[ModelName, ...] = setting(("lstm", "ridge"), "models to fit", min_length=1)
    target: str = setting("auto", "label column, such as y_5; auto = the first one of the features stage")
    target_kind: Literal["auto", "rank", "excess", "return"] = setting(
        "auto",
        "what the model learns: the rank within a timestamp, the return above the timestamp's mean, or the return; "
        "auto = return when a timestamp has few symbols, else rank",
    )
    window: int = setting(20, "bars a model sees", unit="bars", ge=1, le=4096)
    windows_per_epoch: int = setting(20_000, "windows drawn for an epoch; 0 = all", unit="windows", ge=0)
    num_epochs: int = setting(12, "epochs at most", ge=1, le=10_000)
    patience: int = setting(4, "epochs without improvement before training stops; 0 = never stop early", ge=0)
    early_stopping: Literal["rank_ic", "loss"] = setting(
        "rank_ic", "validation figure that decides which epoch is the best"
    )
    batch_size: int = setting(256, "windows that go through a model at once", unit="windows", ge=1, le=1_048_576)
    gradient_accumulation_steps: int = setting(1, "batches added up before a step of the optimiser", ge=1, le=4096)
    learning_rate: float = setting(1e-3, "step size of AdamW", gt=0, le=1)
    weight_decay: float = setting(1e-2, "weight decay of AdamW", ge=0, le=10)
    gradient_clip: float = setting(1.0, "largest norm of a gradient; 0 = no clipping", ge=0)
    mixed_precision: Literal["auto", "off", "bf16", "fp16"] = setting(
        "auto", "auto = what the hardware does well: bf16 where it is native (GPU or CPU), fp16 on older GPUs, else off"
    )
    hidden_size: int = setting(64, "width of the LSTM's state", ge=1, le=4096)
    dropout: float = setting(0.1, "share of the pooled state that is dropped in training", unit="ratio", ge=0, lt=1)
    ridge_penalty: float = setting(0.01, "ridge penalty a window, features having unit variance", ge=0)
    scaler: Literal["robust", "standard"] = setting(
        "robust", "median and interquartile range, or mean and deviation, of training rows"
    )
    clip: float = setting(5.0, "largest scaled feature; 0 = no clipping", unit="deviations", ge=0)
    min_names: int = setting(
        20, "rows an information coefficient needs; with fewer symbols timestamps are pooled", ge=3
    )
    seed: int = setting(0, "seed of weights, order and dropout", ge=0, le=2**32 - 1)
    shuffle_labels: bool = setting(False, "negative control: permute the labels, so that nothing can be learned")
    threads: int = setting(0, "torch threads; 0 = all cores", ge=0, le=1024, runtime=True)


class PredictSection(Section):
    """How trained models score windows."""

    batch_size: int = setting(2048, "windows scored at once", unit="windows", ge=1, le=1_048_576)
    min_names: int = setting(
        20, "rows an information coefficient needs; with fewer symbols timestamps are pooled", ge=3
    )
    threads: int = setting(0, "torch threads; 0 = all cores", ge=0, le=1024, runtime=True)
