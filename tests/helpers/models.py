"""Models of users, as users write them."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    computed_field,
    field_validator,
    model_validator,
)


class Plan(StrEnum):
    free = "free"
    plus = "plus"


class Address(BaseModel):
    zip: str = Field(pattern="^[0-9]{5}$")


class User(BaseModel):
    """All its rules are in its JSON Schema."""

    model_config = ConfigDict(extra="forbid")

    id: int = Field(ge=1)
    name: str = Field(alias="Name", min_length=1)
    at: datetime | None = None
    day: date | None = None
    plan: Plan = Plan.free
    tags: list[Literal["a", "b"]] = []
    address: Address | None = None


class Welcome(User):
    """It has code: names are stripped, and not everyone is welcome."""

    @field_validator("name")
    @classmethod
    def stripped(cls, name: str) -> str:
        if name == "root":
            raise ValueError("root is not welcome")
        return name.strip()

    @model_validator(mode="after")
    def small(self) -> Welcome:
        assert self.id < 100, "too large"
        if self.id == 50:
            raise KeyError("oops")
        return self

    @computed_field
    def double(self) -> int:
        return self.id * 2


class Price(BaseModel):
    amount: Decimal


class Stripped(BaseModel):
    model_config = ConfigDict(str_strip_whitespace=True)
    name: str


class Even(BaseModel):
    number: Annotated[int, AfterValidator(lambda number: number // 2 * 2)]


class Node(BaseModel):
    name: str
    inner: Node | None = None
