"""What every config table is, and the kinds of value that several have."""

from __future__ import annotations

from typing import Annotated, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)


class Config(BaseModel):
    """A table of a config file: typed, frozen, and with no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: object, info: ValidationInfo) -> object:
        """Python takes true for 1; false may stand for a table that is left out."""
        wanted = cls.model_fields[str(info.field_name)].annotation
        given = value if isinstance(value, list | tuple) else [value]
        stands_for_none = value is False and type(None) in get_args(wanted)
        if wanted is not bool and not stands_for_none and any(type(one) is bool for one in given):
            raise ValueError("must not be true or false")
        return value


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError("must be odd, so that a kernel has a middle")
    return value


def none_for_false(value: object) -> object:
    """TOML has no null: a table that is left out is written as false."""
    return None if value is False else value


KernelSize = Annotated[int, Field(ge=1), AfterValidator(_odd)]
