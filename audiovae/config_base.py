"""What every config table is, and the kinds of value that several have."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


class Config(BaseModel):
    """A table of a config file: typed, frozen, and with no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError("must be odd, so that a kernel has a middle")
    return value


def none_for_false(value: object) -> object:
    """TOML has no null: a table that is left out is written as false."""
    return None if value is False else value


KernelSize = Annotated[int, Field(ge=1), AfterValidator(_odd)]
