// The official Node SDK.

import assert from "node:assert/strict";
import OpenAI from "openai";
import { VERSION } from "openai/version";
import * as h from "./harness.mjs";
import { same } from "./harness.mjs";

const client = new OpenAI({ baseURL: h.BASE, apiKey: h.KEY, maxRetries: 0 });
const user = (content) => [{ role: "user", content }];
const textOf = (done) => done.choices[0].message.content;

function checkUsage(usage) {
  same(
    [usage.prompt_tokens, usage.completion_tokens, usage.prompt_tokens_details.cached_tokens],
    [h.USAGE.prompt, h.USAGE.completion, h.USAGE.cached],
  );
}

function ask(test, scenario, options = {}) {
  const { model = test.model, ...rest } = options;
  const body = { model, messages: user(test.prompt(scenario)) };
  return client.withOptions(rest).chat.completions.create(body);
}

async function* contents(chunks) {
  for await (const chunk of chunks) yield chunk.choices[0]?.delta.content;
}

async function* deltas(events) {
  for await (const event of events) yield event.delta;
}

const tool = (calls) => ({
  type: "function",
  function: {
    name: "get_weather",
    description: "The weather in a city",
    parameters: {
      type: "object",
      properties: { city: { type: "string" } },
      required: ["city"],
    },
    parse: JSON.parse,
    function: ({ city }) => {
      calls.push(city);
      return h.weather(city);
    },
  },
});

await h.run(VERSION, {
  async plain(test) {
    const system = { role: "system", content: "Be brief." };
    const messages = [system, ...user(test.prompt("plain"))];
    const done = await client.chat.completions.create({ model: test.model, messages });
    same(textOf(done), h.PLAIN);
    same(done.choices[0].finish_reason, "stop");
    checkUsage(done.usage);
    same((await test.seen())[0].system, ["Be brief."]);
    if (test.format === "responses") {
      // The SDK's other API, which weir passes on.
      const body = { model: test.model, input: test.prompt("plain") };
      const done = await client.responses.create(body);
      same([done.output_text, done.usage.output_tokens], [h.PLAIN, h.USAGE.completion]);
    }
  },
  async stream(test) {
    const body = { model: test.model, messages: user(test.prompt("stream")), stream: true };
    await test.streamed(contents(await client.chat.completions.create(body)));
    if (test.format === "responses") {
      const body = { model: test.model, input: test.prompt("stream"), stream: true };
      await test.streamed(deltas(await client.responses.create(body)));
    }
  },
  async usage(test) {
    await test.release();
    const body = { model: test.model, messages: user(test.prompt("stream")), stream: true };
    body.stream_options = { include_usage: true };
    let last;
    for await (const chunk of await client.chat.completions.create(body)) last = chunk;
    same(last.choices, []);
    checkUsage(last.usage);
  },
  async tools(test) {
    for (const stream of [false, true]) {
      const calls = [];
      const body = { model: test.model, messages: user(test.prompt("tools")), stream };
      body.tools = [tool(calls)];
      // The SDK's own loop: it asks, runs the tools and asks again.
      same(await client.chat.completions.runTools(body).finalContent(), h.TOOL_ANSWER);
      same(calls, ["Oslo", "Lima"]);
      await test.toolsCameBack();
    }
  },
  async json(test) {
    const json_schema = { name: "city", schema: h.SCHEMA, strict: true };
    const body = { model: test.model, messages: user(test.prompt("json")) };
    body.response_format = { type: "json_schema", json_schema };
    const done = await client.chat.completions.parse(body);
    same(JSON.parse(textOf(done)), h.CITY);
    const { schema } = (await test.seen())[0];
    same(Object.keys(schema.properties).sort(), ["city", "population"]);
  },
  async image(test) {
    const url = `data:image/png;base64,${h.PNG.toString("base64")}`;
    const text = { type: "text", text: test.prompt("plain") };
    const content = [text, { type: "image_url", image_url: { url } }];
    const messages = [{ role: "user", content }];
    const done = await client.chat.completions.create({ model: test.model, messages });
    same(textOf(done), test.image);
  },
  async 401(test) {
    const error = await h.refused(401, () => ask(test, "plain", { apiKey: h.WRONG_KEY }));
    assert(error instanceof OpenAI.AuthenticationError);
    same(error.code, "invalid_api_key");
  },
  async 404(test) {
    const error = await h.refused(404, () => ask(test, "plain", { model: h.NO_MODEL }));
    assert(error instanceof OpenAI.NotFoundError);
    same([error.code, error.param], ["model_not_found", "model"]);
  },
  async 429(test) {
    const begun = Date.now();
    same(textOf(await ask(test, "limit", { maxRetries: 2 })), h.PLAIN);
    await test.retried(begun);
  },
  async 500(test) {
    const error = await h.refused(500, () => ask(test, "fault"));
    assert(error instanceof OpenAI.InternalServerError);
    assert.match(error.message, /the scripted fault/);
  },
  async hangup(test) {
    const body = { model: test.model, messages: user(test.prompt("slow")), stream: true };
    const chunks = await client.chat.completions.create(body);
    for await (const chunk of chunks) {
      if (chunk.choices[0]?.delta.content) break;
    }
    chunks.controller.abort();
    await test.hungUp();
  },
});
