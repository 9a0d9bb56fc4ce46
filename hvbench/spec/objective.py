"""What the model learns, and what its weights learn before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from hvbench.spec.knob import AnyPoint, Knob, Part, needs_one_of
from hvbench.spec.model import FAMILIES
from hvbench.spec.schedule import LENGTH_STAGES


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What a loss is computed from. Language models predict tokens, a classifier one class for a whole sample."""

    is_classification: bool = False
    is_causal: bool = False  # a position attends to itself and what came before only
    hides_tokens: bool = False  # and predicts them from all others


OBJECTIVES = {
    "causal_lm": Objective(is_causal=True),
    "masked_lm": Objective(hides_tokens=True),
    "classification": Objective(is_classification=True),
}
LEAST_PAIR = 8  # tokens of a sample of two texts, three special tokens among them
LANGUAGE_MODELS = tuple(name for name, objective in OBJECTIVES.items() if not objective.is_classification)


def _describe_what_is_shown(family: str, field: str, allowed: str) -> str:
    return f"family {family} shows every position all others, the next token among them: {field} must be {allowed}"


def _shows_the_next_token(point: AnyPoint) -> str | None:
    if FAMILIES[point.family].is_bidirectional and OBJECTIVES[point.objective].is_causal:
        return _describe_what_is_shown(point.family, "objective", "masked_lm or classification")
    return None


def _pretraining_for_no_classifier(point: AnyPoint) -> str | None:
    if point.is_pretrained and FAMILIES[point.family].is_bidirectional and OBJECTIVES[point.pretraining].is_causal:
        return _describe_what_is_shown(point.family, "pretraining", "masked_lm")
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
    shortest = -(-point.sequence_length // (LENGTH_STAGES if point.length_warmup_steps else 1))
    if shortest < LEAST_PAIR:
        return f"next_sentence: {shortest} tokens are too few for two texts: samples must have at least {LEAST_PAIR}"
    return None


OF_CLASSES = needs_one_of("objective", (name for name, one in OBJECTIVES.items() if one.is_classification))
OF_TOKENS = needs_one_of("objective", LANGUAGE_MODELS)
OF_PRETRAINING = needs_one_of("pretraining", LANGUAGE_MODELS)


def _name_pretraining(text: str) -> str:
    return "no pretraining" if text == "none" else f"pretraining by {text}"


def _name_next_sentence(text: str) -> str:
    return {"True": "next-sentence prediction", "False": "no next-sentence prediction"}.get(text, text)


class ObjectivePart(Part):
    """What the model learns."""

    title = "Objective"

    objective: Annotated[Literal[*OBJECTIVES], Knob(impossible=_shows_the_next_token)] = Field(
        "causal_lm",
        description="the next token, hidden ones (the default of family bert), or the package that a chunk comes from",
    )
    next_sentence: Annotated[bool, Knob(impossible=_no_pairs, in_words=_name_next_sentence)] = Field(
        False,
        description="beside masked_lm, whether the second of two texts follows the first: their losses are added; bert",
    )
    num_classes: Annotated[int, Field(ge=2, le=1000), Knob(needs=(OF_CLASSES,))] = Field(
        8, description="of classification: the largest packages"
    )
    pretraining: Annotated[
        Literal["none", *LANGUAGE_MODELS], Knob(impossible=_pretraining_for_no_classifier, in_words=_name_pretraining)
    ] = Field("none", description="what the weights learn before; classification only")
    pretraining_steps: Annotated[int, Field(ge=2, le=1_000_000), Knob(unit="steps", needs=(OF_PRETRAINING,))] = Field(
        200, description="steps of that, by one framework, whose weights all start from"
    )

    @property
    def is_classifier(self) -> bool:
        """Whether the model predicts one class for each sample."""
        return OBJECTIVES[self.objective].is_classification

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
        """Whether a position attends to itself and what came before only; fine-tuning keeps what pretraining had."""
        if FAMILIES[self.family].is_bidirectional:
            return False
        if self.initial_weights:  # of a causal language model
            return True
        learned = (self.objective, self.pretraining) if self.is_pretrained else (self.objective,)
        return any(OBJECTIVES[name].is_causal for name in learned)
