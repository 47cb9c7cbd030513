"""What Prefect makes of instances that pgresults wrote as JSON."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, Json, PrivateAttr, RootModel

from pgresults.serializers import JSONSerializer
from tests.support.prefect_fixtures import MARKS, require_prefect

pytestmark = MARKS
require_prefect()
prefect_serializers: Any = pytest.importorskip("prefect.serializers")


class Order(BaseModel):
    model_config = ConfigDict(extra="allow")

    number: int = Field(alias="no")
    lines: Json[list[int]] = Field(default_factory=list)
    choices: int = Field(default=2, validation_alias=AliasChoices("choices", "two"))
    never_checked: int = None  # type: ignore[assignment]  # wrong on purpose: defaults are not validated
    _seen: int = PrivateAttr(0)


class Names(RootModel[list[str]]):
    pass


@dataclass
class Line:
    text: str
    length: int = field(init=False)

    def __post_init__(self) -> None:
        self.length = len(self.text)


def order() -> Order:
    """One with all that Prefect's validation could stumble over."""
    made = Order(no=1, lines="[1, 2]", choices=3, more={"a": (1,)})  # type: ignore[call-arg, arg-type]
    made._seen = 5
    return made


@pytest.mark.parametrize("value", [order(), Names(["a"]), Line("abc"), [Line("a"), {"deep": (order(),)}]], ids=repr)
def test_prefect_reads_instances(value: Any) -> None:
    read = prefect_serializers.JSONSerializer().loads(JSONSerializer().dumps(value))
    if isinstance(value, Order):
        assert read.model_dump() == value.model_dump()  # what is private Prefect does not know
    elif not isinstance(value, list):
        assert read == value
    else:
        assert (read[0], read[1]["deep"][0].lines) == (value[0], [1, 2])
