"""What the model reads, and where its training starts."""

from __future__ import annotations

import codecs
import contextlib
from typing import Annotated

from pydantic import AfterValidator, Field

from hvbench.spec.knob import AnyPoint, Knob, Part, Text

MADE_HERE = ("stdlib", "synthetic")  # texts whose encoding is known


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


class DataPart(Part):
    """Text, seed and start."""

    title = "Data and start"

    data: Text = Field("stdlib", description='"stdlib", "synthetic", or the path of a text file or folder')
    encoding: Annotated[Annotated[Text, AfterValidator(_canonical_encoding)], Knob(impossible=_encoding_is_known)] = (
        Field("utf-8", description="of files without a byte order mark; files of another one are left out")
    )
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(0, description="of initial weights and of batch order")
    initial_checkpoint: Text | None = Field(
        None, description="path of a checkpoint to go on from; left out: from the seed"
    )
