"""The language model that a classifier starts from: one checkpoint for all frameworks, and where it lies.

Each framework training it by itself would amplify its own rounding before anything is compared; so one of them trains it,
once for each seed, and all of them start from that file.
"""

from __future__ import annotations

from hvbench.registry import FRAMEWORKS
from hvbench.spec.adaptation import AdaptationPart
from hvbench.spec.objective import ObjectivePart
from hvbench.spec.point import Point, in_framework, without_own_choices
from hvbench.training.checkpoints import name_checkpoint

# What a text of its own does not have, or has in its usual form.
OF_LABELLED_TEXTS = (
    "encoding", "text_field", "second_text_field", "label_field", "split_seed", "padding", "length_buckets", "group_by_length",
)  # fmt: skip
FOLDER = "pretraining"  # below the run's folder of checkpoints


def pretraining_point(point: Point) -> Point:
    """The point of the pretraining of a classification `point`: the same training with its pretraining objective, text and rate.

    What only one framework can choose has its default, so that all frameworks mean the same pretraining.
    """
    names = [*ObjectivePart.model_fields, *AdaptationPart.model_fields]
    names += OF_LABELLED_TEXTS if point.pretraining_data else ()
    changes = {name: Point.model_fields[name].default for name in names} | {"objective": point.pretraining}
    changes |= {"next_sentence": point.next_sentence}
    changes |= {"data": point.pretraining_data} if point.pretraining_data else {}
    changes |= {"learning_rate": point.pretraining_learning_rate} if point.pretraining_learning_rate else {}
    return without_own_choices(point).model_copy(update=changes)


def pretraining_name(point: Point) -> str:
    """What the pretraining of `point` is called, its seed included; the same for all frameworks."""
    return in_framework(pretraining_point(point), FRAMEWORKS[0]).point_id.partition("-")[2]


def pretrained_file(point: Point) -> str:
    """The checkpoint that `point` starts from: its path below the run's folder of checkpoints."""
    return f"{FOLDER}/{pretraining_name(point)}/{name_checkpoint(point.pretraining_steps)}"
