"""A recurring training of Hugging Face's Trainer. The optimizer chooses how many texts a batch has.

Start a server (`make serve`), then launch this repeatedly:

    python examples/libraries/hugging_face_bert.py

It needs no download: the texts are made up, and the model is a tiny BERT with random weights. The class Optimized, and
the statements and arguments that are marked `# bso`, are for the optimizer.
"""

import tempfile
from typing import Any

import torch
from recurrence import print_run, read_arguments
from transformers import BertConfig, BertForSequenceClassification, EvalPrediction, Trainer, TrainingArguments
from transformers.trainer_callback import TrainerCallback, TrainerControl, TrainerState

from lightning_bso import BatchSizeOptimizer, JobSpec  # bso

WORDS, LENGTH = 20, 12


class Optimized(TrainerCallback):
    """Reports each evaluation, and ends the training at the verdict."""

    def __init__(self, bso: BatchSizeOptimizer, metric: str) -> None:
        self.bso, self.metric = bso, metric

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.bso.on_train_begin()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.bso.keep_alive()

    def on_evaluate(self, _: TrainingArguments, state: TrainerState, control: TrainerControl, **kw: Any) -> None:
        self.bso.report(kw["metrics"][self.metric], int(state.epoch))
        control.should_training_stop = self.bso.training_finished


def make_texts(count: int) -> list[dict[str, Any]]:
    """Make up texts of word numbers. The label says whether a text has the word 1."""
    words = torch.randint(2, WORDS, (count, LENGTH))
    labels = torch.arange(count) % 2
    words[torch.arange(count), torch.randint(LENGTH, (count,))] = torch.where(labels == 1, 1, 2)
    return [{"input_ids": text, "labels": label} for text, label in zip(words, labels, strict=True)]


def accuracy(evaluated: EvalPrediction) -> dict[str, float]:
    """Compare the predictions with the labels."""
    return {"accuracy": float((evaluated.predictions.argmax(1) == evaluated.label_ids).mean())}


def note_size(model: BertForSequenceClassification, _: tuple[Any, ...], inputs: dict[str, torch.Tensor]) -> None:
    """Note how many texts a batch of the training step has."""
    if model.training:
        sizes_seen.append(len(inputs["input_ids"]))


arguments = read_arguments(__doc__.splitlines()[0])
config = BertConfig(
    vocab_size=WORDS,
    hidden_size=32,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=64,
    max_position_embeddings=LENGTH,
)
model = BertForSequenceClassification(config)
sizes_seen: list[int] = []
model.register_forward_pre_hook(note_size, with_kwargs=True)

job = JobSpec(  # bso
    job_id_prefix="texts",
    batch_sizes=[16, 32, 64, 128],
    default_batch_size=32,
    target_metric=0.9,
    max_epochs=20,
)
with BatchSizeOptimizer(server_url=arguments.server_url, job=job) as bso:  # bso
    settings = TrainingArguments(
        tempfile.mkdtemp(),
        # The server's batch size is that of one step. Here it is one device's: on several GPUs divide it by their
        # number, and on several processes give each of them ranks=TorchRanks(), see docs/training.md.
        per_device_train_batch_size=bso.get_batch_size(),  # bso
        num_train_epochs=20,
        learning_rate=3e-3,
        eval_strategy="epoch",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = Trainer(
        model,
        settings,
        train_dataset=make_texts(1000),
        eval_dataset=make_texts(200),
        compute_metrics=accuracy,
        callbacks=[Optimized(bso, "eval_accuracy")],  # bso
    )
    trainer.train()
    print_run(settings.per_device_train_batch_size, sizes_seen, bso.result)
