// The Vercel AI SDK with its provider for OpenAI-compatible servers.

import { createRequire } from "node:module";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { Output, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";
import * as h from "./harness.mjs";
import { same } from "./harness.mjs";

const { version } = createRequire(import.meta.url)("ai/package.json");

function model(test, { apiKey = h.KEY, name = test.model } = {}) {
  const settings = { name: "weir", baseURL: h.BASE, apiKey };
  settings.includeUsage = true;
  settings.supportsStructuredOutputs = true;
  return createOpenAICompatible(settings).chatModel(name);
}

function checkUsage(usage) {
  same([usage.inputTokens, usage.outputTokens], [h.USAGE.prompt, h.USAGE.completion]);
  same(usage.inputTokenDetails?.cacheReadTokens ?? usage.cachedInputTokens, h.USAGE.cached);
}

function ask(test, scenario, { maxRetries = 0, ...options } = {}) {
  return generateText({ model: model(test, options), prompt: test.prompt(scenario), maxRetries });
}

await h.run(version, {
  async plain(test) {
    const prompt = test.prompt("plain");
    const got = await generateText({ model: model(test), system: "Be brief.", prompt });
    same(got.text, h.PLAIN);
    same(got.finishReason, "stop");
    checkUsage(got.usage);
    same((await test.seen())[0].system, ["Be brief."]);
  },
  async stream(test) {
    await test.streamed(streamText({ model: model(test), prompt: test.prompt("stream") }).textStream);
  },
  async usage(test) {
    await test.release();
    const got = streamText({ model: model(test), prompt: test.prompt("stream") });
    await got.consumeStream();
    checkUsage(await got.usage);
  },
  async tools(test) {
    const inputSchema = z.object({ city: z.string() });
    const get_weather = tool({ inputSchema, execute: async ({ city }) => h.weather(city) });
    const asked = { model: model(test), prompt: test.prompt("tools"), tools: { get_weather } };
    asked.stopWhen = stepCountIs(3);
    same((await generateText(asked)).text, h.TOOL_ANSWER);
    await test.toolsCameBack();
    same(await streamText(asked).text, h.TOOL_ANSWER);
    await test.toolsCameBack();
  },
  async json(test) {
    const schema = z.object({ city: z.string(), population: z.number().int() });
    const output = Output.object({ schema });
    const prompt = test.prompt("json");
    const got = await generateText({ model: model(test), prompt, output });
    same(got.output, h.CITY);
    const seen = (await test.seen())[0];
    same(Object.keys(seen.schema.properties).sort(), ["city", "population"]);
  },
  async image(test) {
    const text = { type: "text", text: test.prompt("plain") };
    const content = [text, { type: "image", image: h.PNG, mediaType: "image/png" }];
    const messages = [{ role: "user", content }];
    same((await generateText({ model: model(test), messages })).text, test.image);
  },
  async 401(test) {
    await h.refused(401, () => ask(test, "plain", { apiKey: h.WRONG_KEY }));
  },
  async 404(test) {
    await h.refused(404, () => ask(test, "plain", { name: h.NO_MODEL }));
  },
  async 429(test) {
    const begun = Date.now();
    same((await ask(test, "limit", { maxRetries: 2 })).text, h.PLAIN);
    await test.retried(begun);
  },
  async 500(test) {
    await h.refused(500, () => ask(test, "fault"));
  },
  async hangup(test) {
    const leave = new AbortController();
    const prompt = test.prompt("slow");
    const got = streamText({ model: model(test), prompt, abortSignal: leave.signal });
    for await (const piece of got.textStream) {
      if (piece) break;
    }
    leave.abort();
    await test.hungUp();
  },
});
