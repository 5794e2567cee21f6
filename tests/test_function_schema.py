"""From signatures to schemas, and from the model's arguments to values."""

import dataclasses
import enum
from typing import Any, Literal

import pytest

from orchestrator import RunContextWrapper, ToolContext, function_tool
from orchestrator.errors import ModelBehaviorError, UserError
from orchestrator.function_schema import function_schema, schema_of


class Size(enum.Enum):
    SMALL = "small"
    LARGE = "large"


@dataclasses.dataclass
class Address:
    street: str
    zip_code: str | None = None


def order(
    context: RunContextWrapper[Any],
    item: str,
    size: Size,
    to: Address,
    count: int = 1,
    *,
    speed: Literal["slow", "fast"] = "slow",
    notes: list[str] = [],  # noqa: B006 - the mutable default is what is tested
) -> str:
    """Order something.

    Args:
        item: What to order.
        to: Where it goes.
    """
    return f"{context} {item} {size} {to} {count} {speed} {notes}"


def test_the_schema_describes_what_the_function_takes() -> None:
    schema = function_schema(order)
    assert (schema.name, schema.description, schema.takes_context) == ("order", "Order something.", True)
    properties = schema.parameters["properties"]
    assert list(properties) == ["item", "size", "to", "count", "speed", "notes"]
    assert properties["item"] == {"type": "string", "description": "What to order."}
    assert properties["count"] == {"type": "integer", "default": 1}
    assert schema.parameters["required"] == list(properties)
    assert schema.parameters["$defs"]["Address"]["additionalProperties"] is False
    assert schema.parameters["$defs"]["Address"]["required"] == ["street", "zip_code"]


def test_arguments_become_the_types_that_the_function_asks_for() -> None:
    text = '{"item":"tea","size":"large","to":{"street":"Main"},"speed":"fast"}'
    positional, keyword = function_schema(order).decode(text)
    assert positional == ["tea", Size.LARGE, Address("Main"), 1]
    assert keyword == {"speed": "fast", "notes": []}


def test_mutable_defaults_are_not_shared_between_calls() -> None:
    schema = function_schema(order)
    text = '{"item":"tea","size":"large","to":{"street":"Main"}}'
    schema.decode(text)[1]["notes"].append("x")
    assert schema.decode(text)[1]["notes"] == []


@pytest.mark.parametrize("text", ["[]", "null", '{"unknown":1}', '{"item":1}', "{", "[" * 100_000, '"\ud800"'])
def test_arguments_that_do_not_fit_are_the_models_fault(text: str) -> None:
    with pytest.raises(ModelBehaviorError, match="Invalid JSON input for tool order"):
        function_schema(order).decode(text)


def test_empty_arguments_are_none_at_all() -> None:
    def nothing() -> str:
        return ""

    assert function_schema(nothing).decode("") == ([], {})


def test_the_lenient_form_keeps_defaults_optional() -> None:
    schema = function_schema(order, strict_mode=False, use_docstring=False, name="buy", description="Buy.")
    assert schema.parameters["required"] == ["item", "size", "to"]
    assert (schema.name, schema.description) == ("buy", "Buy.")


def test_signatures_without_a_fixed_schema_are_refused() -> None:
    def many(*items: str) -> str:
        return ",".join(items)

    def late(item: str, context: ToolContext[Any]) -> str:
        return f"{item} {context}"

    def odd(item: complex) -> str:
        return str(item)

    with pytest.raises(UserError, match="name each argument"):
        function_schema(many)
    with pytest.raises(UserError, match="must be the first parameter"):
        function_schema(late)
    with pytest.raises(UserError, match="have a JSON form"):
        function_schema(odd)


def test_options_that_contradict_each_other_are_refused() -> None:
    def nothing() -> str:
        return ""

    with pytest.raises(UserError, match="idempotent"):
        function_tool(retries=1)(nothing)
    with pytest.raises(UserError, match="above 0"):
        function_tool(timeout=0)(nothing)


def test_strict_schemas_leave_mappings_open() -> None:
    def rate(scores: dict[str, int], anything: dict[str, Any]) -> None: ...

    properties = function_schema(rate).parameters["properties"]
    assert properties["scores"]["additionalProperties"] == {"type": "integer"}
    assert properties["anything"].get("additionalProperties") is not False


def test_a_parameter_may_have_the_name_of_a_schema_keyword() -> None:
    def choose(default: Address, enum: Address) -> None: ...

    parameters = function_schema(choose).parameters
    assert parameters["required"] == ["default", "enum"]
    assert parameters["$defs"]["Address"]["required"] == ["street", "zip_code"]


@dataclasses.dataclass
class Folder:
    name: str
    folders: list["Folder"]


def test_a_type_that_refers_to_itself_keeps_its_definition() -> None:
    schema = schema_of(Folder)
    assert schema["properties"]["folders"]["items"] == {"$ref": "#/$defs/Folder"}
    assert schema["$defs"]["Folder"]["type"] == "object"


def test_the_style_of_a_docstring_can_be_given() -> None:
    def look(place: str) -> str:
        """Look somewhere.

        :param place: where to look
        """
        return place

    found = function_schema(look, docstring_style="sphinx").parameters["properties"]["place"]
    assert found["description"] == "where to look"
    assert "description" not in function_schema(look, docstring_style="google").parameters["properties"]["place"]


def test_arguments_are_plain_when_the_function_gets_them_as_they_are() -> None:
    def move(x: float, by: list[int], fast: bool = False) -> None: ...

    schema = function_schema(move)
    assert schema.is_plain({"x": 1, "by": [2], "fast": True})
    assert not schema.is_plain({"x": 1, "by": [2]})
    assert not schema.is_plain({"x": "1", "by": [2], "fast": True})
    assert not schema.is_plain({"x": 1, "by": [2], "fast": True, "far": True})
