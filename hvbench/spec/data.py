"""What the model reads, how it is cut into samples, and where training starts."""

from __future__ import annotations

import codecs
import contextlib
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from hvbench.spec.knob import AnyPoint, Count, Knob, Need, Part, Text, needs_one_of
from hvbench.spec.model import FAMILIES
from hvbench.spec.objective import OF_LABELS, OF_TEXTS, too_short_for_a_pair

LABEL_FILES = (".jsonl", ".csv", ".conll")
LABELLED_HERE = ("snippets",)  # labelled texts that every machine has
MADE_HERE = ("stdlib", "synthetic", *LABELLED_HERE)  # texts whose encoding is known


def _canonical_encoding(name: str) -> str:
    """The name by which Python knows an encoding of text, such as iso8859-1 for latin-1; raises ValueError."""
    try:
        with contextlib.suppress(UnicodeDecodeError):  # of an encoding that needs more than one byte
            b"a".decode(name)  # knows encodings of text only: base64 is none
        return codecs.lookup(name).name
    except (LookupError, UnicodeError, ValueError):
        raise ValueError("must be an encoding of text, such as utf-8, latin-1, cp1252, utf-16 or shift_jis") from None


def _encoding_is_known(point: AnyPoint) -> str | None:
    if point.encoding != "utf-8" and point.data in MADE_HERE:
        return f"encoding {point.encoding} is for text of your own: that of {point.data} is known"
    return None


def _has_labels(data: Any) -> bool:
    return data in LABELLED_HERE or str(data).lower().endswith(LABEL_FILES)


def _has_no_labels(point: AnyPoint) -> str | None:
    if point.predicts_labels and not point.is_classifier and not point.has_label_file:
        return f"objective {point.objective} reads labelled texts: set data to a file that ends in {' or '.join(LABEL_FILES)}"
    if point.has_label_file and point.data.lower().endswith(".conll") and not point.is_tagger:
        return f"a .conll file has a tag for each word: objective token_classification reads it, not {point.objective}"
    if point.data in LABELLED_HERE and not point.is_classifier:
        return f"data {point.data} has classes: objective classification reads it, not {point.objective}"
    if point.pretraining_data and not point.has_label_file:
        return f"pretraining_data is for labelled texts: pretraining for {point.data} reads that itself"
    if point.has_label_file and point.is_pretrained and point.pretraining_data is None:
        return f"pretraining {point.pretraining} reads a text, and {point.data} has labelled ones: set pretraining_data to a text"
    if point.has_framed_labels:
        return too_short_for_a_pair(point, what=f"labelled texts of family {point.family}")
    return None


def _no_documents(point: AnyPoint) -> str | None:
    if point.separates_documents and point.data == "synthetic":
        return "segmentation documents: synthetic text has no files"
    return _samples_are_of_packages(point)


def _samples_are_of_packages(point: AnyPoint) -> str | None:
    if point.segmentation != "windows" and point.predicts_labels:
        return f"segmentation {point.segmentation} is for language models: samples with labels are texts of their own, or pieces of one package"
    return None


def _stride_leaves_gaps(point: AnyPoint) -> str | None:
    if (point.segmentation_stride or 0) > point.sequence_length:
        return (
            f"segmentation_stride {point.segmentation_stride} is longer than sequence_length {point.sequence_length}: "
            "the tokens between two samples would never be read"
        )
    return None


def _name_segmentation(text: str) -> str:
    return {"windows": "windows side by side", "overlap": "windows that overlap"}.get(text, text)


def _name_input(text: str) -> str:
    return {"array": "batches from arrays", "framework": "the framework's own input"}.get(text, text)


def _count_workers(text: str) -> str:
    return f"{text} input worker{'' if text == '1' else 's'}"


def _starts_twice(point: AnyPoint) -> str | None:
    if point.initial_weights and (point.initial_checkpoint or point.is_pretrained):
        other = "pretraining" if point.is_pretrained else "initial_checkpoint"
        return f"initial_weights and {other} both say where training starts: set one of them"
    if point.initial_weights and point.hides_tokens and not FAMILIES[point.family].is_bidirectional:
        return f"initial_weights are of a causal language model, which {point.objective} would show what comes after"
    return None


OF_OWN_INPUT = needs_one_of("input", ("framework",))


def _name_packing(text: str) -> str:
    return {"True": "packed documents", "False": "padded documents"}.get(text, text)


OF_LABEL_FILE = (
    OF_LABELS,
    Need(field="data", holds=_has_labels, in_words=f"data that ends in {' or '.join(LABEL_FILES)}"),
)


def _name_grouping(text: str) -> str:
    return {"True": "samples of a length together", "False": "samples of all lengths mixed"}.get(text, text)


def _name_padding(text: str) -> str:
    return {"longest": "padded to the longest", "packed": "packed into rows"}.get(text, text)


OF_DOCUMENTS = needs_one_of("segmentation", ("documents",))
OF_OVERLAP = needs_one_of("segmentation", ("overlap",))


class DataPart(Part):
    """Text, seed and start."""

    title = "Data and start"

    data: Annotated[Text, Knob(impossible=_has_no_labels)] = Field(
        "stdlib",
        description='"stdlib", "synthetic", or the path of a text file or folder; of objectives with labels also a .jsonl, .csv or .conll file, or "snippets"',
    )
    encoding: Annotated[Annotated[Text, AfterValidator(_canonical_encoding)], Knob(impossible=_encoding_is_known)] = (
        Field("utf-8", description="of files without a byte order mark; files of another one are left out")
    )
    segmentation: Annotated[
        Literal["windows", "overlap", "documents"], Knob(in_words=_name_segmentation, impossible=_no_documents)
    ] = Field(
        "windows",
        description="how text is cut into samples: windows side by side, overlapping ones, or rows of whole files",
    )
    segmentation_stride: Annotated[
        Count | None, Knob(unit="tokens", impossible=_stride_leaves_gaps, needs=(OF_OVERLAP,))
    ] = Field(
        None, description="of overlap: tokens from one sample's begin to the next; left out: half of sequence_length"
    )
    packing: Annotated[bool, Knob(needs=(OF_DOCUMENTS,), in_words=_name_packing)] = Field(
        True, description="of documents: several in a row, which do not see each other; false: one a row, and padding"
    )
    text_field: Annotated[Text, Knob(needs=OF_LABEL_FILE)] = Field(
        "text",
        description="of labelled texts: the field, or column, with the text; of token_classification, unless set, tokens",
    )
    second_text_field: Annotated[Text, Knob(needs=(OF_TEXTS, *OF_LABEL_FILE[1:]))] = Field(
        "text_b", description="the one with the second text of pairs, where the file has it"
    )
    label_field: Annotated[Text, Knob(needs=OF_LABEL_FILE)] = Field(
        "label", description="the one with the class or the number; of token_classification, unless set, tags"
    )
    split_seed: Annotated[int, Field(ge=0, lt=2**31), Knob(needs=OF_LABEL_FILE)] = Field(
        0, description="which tenths of a file without validation and test beside it are held out for these"
    )
    padding: Annotated[Literal["longest", "packed"], Knob(needs=OF_LABEL_FILE, in_words=_name_padding)] = Field(
        "longest",
        description="of labelled texts: each has a row, padded to the longest in the batch; or they share rows of sequence_length, and do not see each other",
    )
    length_buckets: Annotated[int, Field(ge=1, le=64), Knob(unit="lengths", needs=OF_LABEL_FILE)] = Field(
        4,
        description="lengths up to sequence_length, evenly apart, to which batches of labelled texts are padded; packed: numbers of rows up to micro_batch_size",
    )
    group_by_length: Annotated[bool, Knob(needs=OF_LABEL_FILE, in_words=_name_grouping)] = Field(
        False, description="labelled texts of similar length in a batch: of 50 batches at a time, sorted"
    )
    input: Annotated[Literal["array", "framework"], Knob(in_words=_name_input)] = Field(
        "array", description="who hands a step its batch: numpy in the step's own thread, or tf.data and DataLoader"
    )
    input_workers: Annotated[
        int, Field(ge=0, le=64), Knob(unit="workers", needs=(OF_OWN_INPUT,), in_words=_count_workers)
    ] = Field(0, description="threads (tf.data) or processes (DataLoader) that prepare batches in advance; 0: none")
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(0, description="of initial weights and of batch order")
    initial_checkpoint: Text | None = Field(
        None, description="path of a checkpoint to go on from; left out: from the seed"
    )
    initial_weights: Annotated[Text | None, Knob(impossible=_starts_twice)] = Field(
        None,
        description="a Hugging Face folder (safetensors) of the point's family to start from, its tokenizer included",
    )

    @property
    def tokenizer(self) -> str | None:
        """The file of the tokenizer that reads the text; None: bytes, or a BPE of hvbench's own."""
        return f"{self.initial_weights}/tokenizer.json" if self.initial_weights else None

    @property
    def tokenization(self) -> dict[str, Any]:
        """Everything but the text that its tokens depend on: arguments of `hvbench.training.corpus.prepare`."""
        return {"vocab_size": self.vocab_size, "encoding": self.encoding, "tokenizer": self.tokenizer}

    @property
    def separates_documents(self) -> bool:
        """Whether a row holds documents, padding behind them, instead of a window of the text."""
        return self.segmentation == "documents"

    @property
    def has_label_file(self) -> bool:
        """Whether samples are the rows of a file, with a label each."""
        return self.predicts_labels and _has_labels(self.data)

    @property
    def has_framed_labels(self) -> bool:
        """Whether these samples begin with [CLS] and each of their texts ends with [SEP], as in families that tell texts apart."""
        return self.has_label_file and FAMILIES[self.family].has_segments

    @property
    def has_layout(self) -> bool:
        """Whether a batch says where in its rows documents begin, or padding."""
        return self.separates_documents or self.has_label_file

    @property
    def stride(self) -> int:
        """Tokens between the begins of two neighbouring training windows."""
        if self.segmentation != "overlap":
            return self.sequence_length
        return self.segmentation_stride or max(1, self.sequence_length // 2)
