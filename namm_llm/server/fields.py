"""What stands inside requests: messages, their parts, tools, and the form of an answer.

A field that is not here is refused by its name, at any depth; schemas of clients alone are free.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

Name = Annotated[str, Field(min_length=1)]
Ids = Annotated[list[int], Field(min_length=1, fail_fast=True)]
Texts = Annotated[list[str], Field(min_length=1, fail_fast=True)]
Prompts = str | Ids | Texts | Annotated[list[Ids], Field(min_length=1, fail_fast=True)]
Detail = Literal["auto", "low", "high"] | None
Schema = dict[str, Any]


class Strict(BaseModel):
    """What has these fields and no others, of these types."""

    model_config = ConfigDict(extra="forbid", strict=True)

    def given(self) -> dict[str, Any]:
        """The fields that a request has, without those that are null."""
        return self.model_dump(exclude_none=True, exclude_unset=True, by_alias=True)


# -- chat completions ------------------------------------------------------------------------------


class TextPart(Strict):
    """A text of a message."""

    type: Literal["text"]
    text: str


class ImageUrl(Strict):
    """A picture as a data URL; no other is fetched."""

    url: str
    detail: Detail = None


class ImagePart(Strict):
    """A picture of a message."""

    type: Literal["image_url"]
    image_url: ImageUrl | str


class CalledFunction(Strict):
    """What was called."""

    name: str
    arguments: str | Schema = "{}"


class Call(Strict):
    """A call in a message of the assistant."""

    id: str | None = None
    type: Literal["function"] = "function"
    index: int | None = None
    function: CalledFunction


# what clients send back of an answer, and no chat template reads
_SILENT = {"refusal", "reasoning_content", "annotations", "audio", "function_call"}


class ChatMessage(Strict):
    """A message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Annotated[TextPart | ImagePart, Discriminator("type")]] | None = None
    name: str | None = None
    tool_calls: list[Call] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    annotations: list[Any] | None = None
    audio: None = None
    function_call: None = None

    def plain(self) -> dict[str, Any]:
        """As chat templates know it."""
        found = self.model_dump(exclude_unset=True, exclude=_SILENT)
        given = {key: each for key, each in found.items() if each is not None or key == "content"}
        return {**given, "role": "system" if self.role == "developer" else self.role}


class Function(Strict):
    """A function that the model may call."""

    name: Name
    description: str | None = None
    parameters: Schema | None = None
    strict: bool | None = None


class ChatTool(Strict):
    """A tool of chat completions."""

    type: Literal["function"]
    function: Function


class Named(Strict):
    """The name of a function."""

    name: Name


class ChatChoice(Strict):
    """The tool that must be called."""

    type: Literal["function"]
    function: Named


Choice = Literal["auto", "none", "required"]


class PlainFormat(Strict):
    """Any text, or any JSON object."""

    type: Literal["text", "json_object"]


class NamedSchema(Strict):
    """A schema that the answer follows."""

    name: str | None = None
    description: str | None = None
    schema_: Schema = Field(alias="schema")
    strict: bool | None = None


class SchemaFormat(Strict):
    """JSON that follows a schema."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


ChatFormat = Annotated[PlainFormat | SchemaFormat, Discriminator("type")]


# -- responses -------------------------------------------------------------------------------------


class InputText(Strict):
    """A text of an item; of an answer that comes back also what stood beside it."""

    type: Literal["input_text", "output_text", "text"]
    text: str
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None


class InputImage(Strict):
    """A picture of an item."""

    type: Literal["input_image"]
    image_url: str
    detail: Detail = None


InputParts = list[Annotated[InputText | InputImage, Discriminator("type")]]


class _Item(Strict):
    id: str | None = None
    status: str | None = None


class MessageItem(_Item):
    """A message."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: str | InputParts
    phase: str | None = None


class CallItem(_Item):
    """A call of a function, as an answer had it."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str = "{}"


class OutputItem(_Item):
    """What a called function gave."""

    type: Literal["function_call_output"]
    call_id: str
    output: str | list[InputText]


class ReasoningItem(Strict):
    """What is not for the model's eyes."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["reasoning"]


def _kind(item: Any) -> Any:
    return item.get("type", "message") if isinstance(item, dict) else getattr(item, "type", None)


InputItem = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[CallItem, Tag("function_call")]
    | Annotated[OutputItem, Tag("function_call_output")]
    | Annotated[ReasoningItem, Tag("reasoning")],
    Discriminator(_kind),
]


class ResponseTool(Function):
    """A tool of responses."""

    type: Literal["function"]


class ResponseChoice(Named):
    """The tool that must be called."""

    type: Literal["function"]


class FlatSchemaFormat(NamedSchema):
    """JSON that follows a schema."""

    type: Literal["json_schema"]


class TextOptions(Strict):
    """`text` of a response."""

    format: Annotated[PlainFormat | FlatSchemaFormat, Discriminator("type")] | None = None


def schema_of(form: BaseModel | None) -> Schema | None:
    """The JSON schema that an answer of this form follows; None for free text."""
    match form:
        case PlainFormat(type="json_object"):
            return {"type": "object"}
        case SchemaFormat(json_schema=NamedSchema(schema_=schema)) | NamedSchema(schema_=schema):
            return schema
    return None


def choice_of(given: str | ChatChoice | ResponseChoice | None) -> str:
    """A word, or the name of the tool that must be called."""
    match given:
        case ChatChoice(function=Named(name=name)) | Named(name=name):
            return name
    return given or "auto"
