// What the tests of Node clients need: the same names, checks and result lines as harness.py.

import assert from "node:assert/strict";
import { createHash, randomUUID } from "node:crypto";

export const BASE = process.env.WEIR_URL;
export const KEY = process.env.WEIR_KEY;
const UPSTREAM = process.env.UPSTREAM_URL;
export const WRONG_KEY = "wrong-key";
export const NO_MODEL = "no-such-model";
const MODELS = {
  anthropic: "claude-sonnet-4-5",
  gemini: "gemini-2.5-flash",
  openai: "gpt-5",
  // Refused at /chat/completions, so that weir takes it elsewhere.
  responses: "reasoner",
};
const CHECKS =
  "plain stream usage tools json image 401 404 429 500 hangup".split(" ");
// The upstream's script; see upstream.py.
export const PLAIN = "Hello from the upstream.";
const STREAMED = "Grüße – one, two, three 🎉.";
export const CITY = { city: "Oslo", population: 709000 };
export const TOOL_ANSWER = "The tools say: Oslo: 4 C; Lima: 22 C.";
export const USAGE = { prompt: 11, completion: 7, cached: 3 };
const SIGNATURE = Buffer.from("signature of the first call").toString("base64");
export const PNG = Buffer.from(
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==",
  "base64",
);
export const SCHEMA = {
  type: "object",
  properties: { city: { type: "string" }, population: { type: "integer" } },
  required: ["city", "population"],
  additionalProperties: false,
};

export const weather = (city) => `${city}: ${{ Oslo: 4, Lima: 22 }[city]} C`;
export const same = assert.deepEqual;

async function control(path) {
  return (await fetch(`${UPSTREAM}/control/${path}`)).json();
}

export class Case {
  constructor(check, format) {
    this.unique = randomUUID().replaceAll("-", "").slice(0, 12);
    this.format = format;
    // Faults rest a key for the model that met them, so they get models of their own.
    this.model = MODELS[format] + ({ 429: "-limited", 500: "-faulty" }[check] ?? "");
    const digest = createHash("sha256").update(PNG).digest("hex").slice(0, 8);
    this.image = `I see image/png ${PNG.length} ${digest}.`;
  }

  prompt(scenario) {
    return `Please answer. #${scenario}:${this.unique}`;
  }

  seen() {
    return control(`seen/${this.unique}`);
  }

  release() {
    return control(`release/${this.unique}`);
  }

  // Checks a stream piece by piece: the upstream goes on only once the first one is here.
  async streamed(pieces) {
    const got = [];
    for await (const piece of pieces) {
      if (!piece) continue;
      if (got.length === 0) await this.release();
      got.push(piece);
    }
    same(got.join(""), STREAMED);
    assert(got.length > 1, `came in one piece: ${got}`);
  }

  // Call right after hanging up.
  async hungUp() {
    const begun = Date.now() / 1000;
    const { at } = await control(`hangup/${this.unique}?wait=4`);
    assert(at !== null, "the upstream never saw the hang-up");
    assert(at - begun < 1, `seen after ${at - begun} s`);
  }

  async toolsCameBack() {
    const last = (await this.seen()).at(-1);
    same([last.format, last.results], [this.format, ["Oslo: 4 C", "Lima: 22 C"]]);
    if (["gemini", "responses"].includes(this.format)) {
      assert(last.signatures.includes(SIGNATURE), "the thought signature is lost");
    }
  }

  // Checks that a client waited as Retry-After said and then asked again.
  async retried(begun) {
    const at = (await this.seen()).map((entry) => entry.at);
    same(at.length, 2);
    assert(at[1] - at[0] > 0.9, `asked again after ${at[1] - at[0]} s`);
    assert(Date.now() - begun < 8000, "took too long");
  }
}

// Checks that `call` fails with an error that tells `status`, and gives that error.
export async function refused(status, call) {
  let got;
  try {
    got = await call();
  } catch (error) {
    const told = error.lastError ?? error;
    same(told.status ?? told.statusCode, status, `${error}`);
    return told;
  }
  assert.fail(`answered ${JSON.stringify(got)}`);
}

function tell(result) {
  process.stdout.write(JSON.stringify(result) + "\n");
}

export async function run(version, checks) {
  tell({ version });
  const only = process.env.ONLY;
  for (const format of Object.keys(MODELS)) {
    for (const check of CHECKS) {
      if (only && ![check, `${format}.${check}`].includes(only)) continue;
      const begun = Date.now();
      let outcome = { ok: true };
      try {
        await checks[check](new Case(check, format));
      } catch (error) {
        if (only) console.error(error);
        outcome = { ok: false, error: `${error.name}: ${error.message}`.slice(0, 600) };
      }
      tell({ format, check, ...outcome, seconds: (Date.now() - begun) / 1000 });
    }
  }
  process.exit(0);
}
