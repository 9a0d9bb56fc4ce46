"""Which framework trains."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hvbench.registry import FRAMEWORKS
from hvbench.spec.knob import AnyPoint, Knob, Part, Site


def _not_installed(point: AnyPoint, site: Site) -> str | None:
    if point.framework not in site.frameworks:
        return f"{point.framework} is not installed here; see hvbench doctor"
    return None


class FrameworkPart(Part):
    """The twin that trains."""

    title = "Framework"

    framework: Annotated[Literal[*FRAMEWORKS], Knob(column=0, is_of_launch=True, unavailable=_not_installed)] = Field(
        FRAMEWORKS[0], description="which twin trains"
    )
