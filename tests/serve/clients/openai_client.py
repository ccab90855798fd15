"""The `openai` client: chat, parse, streams, tools, responses, embeddings, errors."""

import json
import sys

import openai
from pydantic import BaseModel

client = openai.OpenAI(base_url=sys.argv[1], api_key="none")
model = client.models.list().data[0].id
MESSAGES = [{"role": "user", "content": "Name a colour."}]
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"enum": ["Oslo", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}
FUNCTION = {"name": "weather", "description": "Weather of a city.", "parameters": PARAMETERS}
TOOL = {"type": "function", "function": {**FUNCTION, "strict": True}}


class Colour(BaseModel):
    colour: str
    bright: bool


def chat(**more):
    return client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=12, **more)


whole = chat(temperature=0)
text = whole.choices[0].message.content
assert text
assert whole.usage.completion_tokens <= 12
assert whole.model_extra["namm"]["kept_tokens"] > 0
assert "budget" in whole.model_extra["namm"]
chunks = list(chat(temperature=0, stream=True, stream_options={"include_usage": True}))
assert "".join(each.choices[0].delta.content or "" for each in chunks if each.choices) == text
assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
assert len(chat(n=3, seed=1, temperature=1.0).choices) == 3
scored = chat(logprobs=True, top_logprobs=2).choices[0].logprobs.content
assert len(scored[0].top_logprobs) == 2

parsed = client.chat.completions.parse(
    model=model, messages=MESSAGES, response_format=Colour, max_tokens=60
)
assert isinstance(parsed.choices[0].message.parsed, Colour)
with client.chat.completions.stream(
    model=model, messages=MESSAGES, response_format=Colour, max_tokens=60
) as stream:
    assert isinstance(stream.get_final_completion().choices[0].message.parsed, Colour)

forced = {"type": "function", "function": {"name": "weather"}}
called = client.chat.completions.create(
    model=model, messages=MESSAGES, tools=[TOOL], tool_choice=forced, max_tokens=80
).choices[0]
assert called.finish_reason == "tool_calls"
(call,) = called.message.tool_calls
assert json.loads(call.function.arguments)["city"] in ("Oslo", "Rome")
answer = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
history = [*MESSAGES, called.message.model_dump(), answer]
after = client.chat.completions.create(
    model=model, messages=history, tools=[TOOL], tool_choice="none", max_tokens=8
)
assert after.choices[0].message.content is not None

first = client.responses.create(model=model, input="Name a colour.", max_output_tokens=12)
assert first.output_text
second = client.responses.create(
    model=model, input="Another one.", previous_response_id=first.id, max_output_tokens=12
)
assert second.usage.input_tokens > first.usage.input_tokens
echoed = [{"role": "user", "content": "Name a colour."}, *first.output]
echoed += [{"role": "user", "content": "Another one."}]
assert client.responses.create(model=model, input=echoed, max_output_tokens=12).output_text
with client.responses.stream(
    model=model, input="Name a colour.", text_format=Colour, max_output_tokens=60
) as stream:
    kinds = [event.type for event in stream]
    assert isinstance(stream.get_final_response().output_parsed, Colour)
assert "response.output_text.delta" in kinds
parsed = client.responses.parse(
    model=model, input="Name a colour.", text_format=Colour, max_output_tokens=60
)
assert isinstance(parsed.output_parsed, Colour)

vectors = client.embeddings.create(model=model, input=["a fox", "a dog"]).data
assert len(vectors) == 2
assert abs(sum(number**2 for number in vectors[0].embedding) - 1) < 1e-3
assert client.completions.create(model=model, prompt="The fox", max_tokens=4).choices[0].text


def refused(**more):
    try:
        chat(**more)
    except openai.APIStatusError as error:
        return error.status_code, error.code, error.param
    raise AssertionError("accepted")


unknown = refused(extra_body={"reasoning": {"x": 1}})
assert unknown == (400, "unsupported_parameter", "reasoning")
assert refused(extra_body={"model": "gpt"}) == (404, "model_not_found", "model")
