"""What the model learns, and what its weights learn before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from hvbench.spec.knob import AnyPoint, Knob, Part, Text, needs_one_of
from hvbench.spec.model import FAMILIES
from hvbench.spec.schedule import LENGTH_STAGES


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What a loss is computed from. Language models predict tokens, all others labels: of a whole sample, or of each of its words."""

    labels: Literal["none", "class", "number", "tags"] = "none"
    is_causal: bool = False  # a position attends to itself and what came before only
    hides_tokens: bool = False  # and predicts them from all others


OBJECTIVES = {
    "causal_lm": Objective(is_causal=True),
    "masked_lm": Objective(hides_tokens=True),
    "classification": Objective(labels="class"),
    "token_classification": Objective(labels="tags"),
    "regression": Objective(labels="number"),
}
LEAST_PAIR = 8  # tokens of a sample of two texts, three special tokens among them
LANGUAGE_MODELS = tuple(name for name, objective in OBJECTIVES.items() if objective.labels == "none")


def _pretraining_for_no_classifier(point: AnyPoint) -> str | None:
    if point.is_pretrained and (not point.is_classifier or point.initial_checkpoint):
        return f"pretraining {point.pretraining} comes before classification, from the seed"
    return None


def _no_pairs(point: AnyPoint) -> str | None:
    if not point.next_sentence:
        return None
    if "masked_lm" not in (point.objective, point.pretraining):
        return "next_sentence is learned beside masked_lm: objective or pretraining must be masked_lm"
    if not FAMILIES[point.family].has_segments:
        families = " or ".join(name for name, family in FAMILIES.items() if family.has_segments)
        return f"next_sentence tells two texts apart by their segments, which family {point.family} has not: family must be {families}"
    if point.separates_documents:
        return "next_sentence makes a row of two texts: segmentation must be windows or overlap"
    return too_short_for_a_pair(point, what="next_sentence")


def too_short_for_a_pair(point: AnyPoint, *, what: str) -> str | None:
    """Why samples cannot hold two texts and their special tokens; None where they can. `what` begins the reason."""
    shortest = -(-point.sequence_length // (LENGTH_STAGES if point.length_warmup_steps else 1))
    if shortest < LEAST_PAIR:
        return f"{what}: {shortest} tokens are too few for two texts: samples must have at least {LEAST_PAIR}"
    return None


OF_CLASSES = needs_one_of("objective", (name for name, one in OBJECTIVES.items() if one.labels in ("class", "tags")))
OF_LABELS = needs_one_of("objective", (name for name, one in OBJECTIVES.items() if one.labels != "none"))
OF_TEXTS = needs_one_of("objective", (name for name, one in OBJECTIVES.items() if one.labels in ("class", "number")))
OF_TOKENS = needs_one_of("objective", LANGUAGE_MODELS)
OF_PRETRAINING = needs_one_of("pretraining", LANGUAGE_MODELS)


def _name_mask(text: str) -> str:
    return {"causal": "a causal mask", "none": "no mask"}.get(text, f"attention_mask {text}")


def _name_pretraining(text: str) -> str:
    return "no pretraining" if text == "none" else f"pretraining by {text}"


def _name_next_sentence(text: str) -> str:
    return {"True": "next-sentence prediction", "False": "no next-sentence prediction"}.get(text, text)


class ObjectivePart(Part):
    """What the model learns."""

    title = "Objective"

    objective: Literal[*OBJECTIVES] = Field(
        "causal_lm",
        description="the next token, hidden ones (the default of family bert), the class of a text or its package, the tag of each word, or a number",
    )
    next_sentence: Annotated[bool, Knob(impossible=_no_pairs, in_words=_name_next_sentence)] = Field(
        False,
        description="beside masked_lm, whether the second of two texts follows the first: their losses are added; bert",
    )
    num_classes: Annotated[int, Field(ge=2, le=1000), Knob(needs=(OF_CLASSES,))] = Field(
        8,
        description="of classification: the largest packages, or as many as a labelled file has; of token_classification its tags",
    )
    attention_mask: Annotated[
        Literal["auto", "causal", "none"],
        Knob(needs=(OF_LABELS,), in_words=_name_mask),
    ] = Field(
        "auto",
        description="of objectives with labels: a position sees itself and what came before, or all; auto: as in what the weights learned before, else all",
    )
    pretraining: Annotated[
        Literal["none", *LANGUAGE_MODELS], Knob(impossible=_pretraining_for_no_classifier, in_words=_name_pretraining)
    ] = Field("none", description="what the weights learn before; classification only")
    pretraining_steps: Annotated[int, Field(ge=2, le=1_000_000), Knob(unit="steps", needs=(OF_PRETRAINING,))] = Field(
        200, description="steps of that, by one framework, whose weights all start from"
    )

    pretraining_data: Annotated[Text | None, Knob(needs=(OF_PRETRAINING,))] = Field(
        None,
        description="the UTF-8 text that it reads, a path or stdlib; left out: data. Tokens are of its vocabulary, those of data, too",
    )
    pretraining_learning_rate: Annotated[
        Annotated[float, Field(gt=0.0, le=1e3)] | None, Knob(needs=(OF_PRETRAINING,))
    ] = Field(None, description="its peak; left out: learning_rate")

    @property
    def is_classifier(self) -> bool:
        """Whether the model predicts one class for each sample."""
        return OBJECTIVES[self.objective].labels == "class"

    @property
    def is_tagger(self) -> bool:
        """Whether the model predicts one class for each word."""
        return OBJECTIVES[self.objective].labels == "tags"

    @property
    def is_regression(self) -> bool:
        """Whether the model predicts a number for each sample."""
        return OBJECTIVES[self.objective].labels == "number"

    @property
    def labels_samples(self) -> bool:
        """Whether a whole sample has one label, predicted from what its family pools of all positions."""
        return self.is_classifier or self.is_regression

    @property
    def predicts_labels(self) -> bool:
        """Whether a projection of its own predicts labels, instead of that of a language model tokens."""
        return OBJECTIVES[self.objective].labels != "none"

    @property
    def label_outputs(self) -> int:
        """Values that this projection has."""
        return 1 if self.is_regression else self.num_classes

    @property
    def hides_tokens(self) -> bool:
        """Whether the model predicts tokens that it is not shown."""
        return OBJECTIVES[self.objective].hides_tokens

    @property
    def judges_pairs(self) -> bool:
        """Whether samples are two texts, of which the model also predicts whether the second follows the first."""
        return self.next_sentence and self.hides_tokens

    @property
    def is_pretrained(self) -> bool:
        """Whether the weights learn something before the first measured step."""
        return self.pretraining != "none"

    @property
    def is_causal(self) -> bool:
        """Whether a position attends to itself and what came before only; fine-tuning keeps what pretraining had, unless told otherwise."""
        if self.predicts_labels and self.attention_mask != "auto":
            return self.attention_mask == "causal"
        if self.initial_weights and not FAMILIES[self.family].is_bidirectional:  # of a causal language model
            return True
        learned = (self.objective, self.pretraining) if self.is_pretrained else (self.objective,)
        return any(OBJECTIVES[name].is_causal for name in learned)
