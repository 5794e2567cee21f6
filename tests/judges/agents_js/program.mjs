/*
 * The official JavaScript agents library in conversations with an endpoint; only address and key are ours.
 *
 * `node program.mjs '{"quick": URL, "steady": URL, "speech": FILE}'` prints one JSON line for every event that the library hands
 * out, and at the end of each case one that says whether it ran through. What the library warns of goes to standard error.
 */
import { readFileSync } from "node:fs";
import { RealtimeAgent, RealtimeSession, tool } from "@openai/agents-realtime";
import { z } from "zod";

const PATIENCE_MS = 60_000;
const BYTES_PER_MS = 48;
const CHUNK = 20 * BYTES_PER_MS;
const PAUSE = 800 * BYTES_PER_MS; // the silence that the speech ends with
const RED_SQUARE =
  "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR42mP4z8AAAAMBAQD3A0FDAAAAAElFTkSuQmCC";
// What a session hands out beside the frames themselves.
const SESSION_EVENTS = [
  "agent_start", "agent_end", "agent_handoff", "agent_tool_start", "agent_tool_end", "audio_start", "audio_stopped", "audio",
  "audio_interrupted", "guardrail_tripped", "history_updated", "history_added", "error", "tool_approval_requested",
];

const words = JSON.parse(process.argv[2]);
const speech = readFileSync(words.speech);
const voice = speech.subarray(0, -PAUSE);
const pause = speech.subarray(-PAUSE);

function report(name, event, detail = {}) {
  process.stdout.write(`${JSON.stringify({ case: name, event, ...detail })}\n`);
}

function newAgent() {
  const billing = new RealtimeAgent({ name: "billing", instructions: "You handle invoices." });
  return new RealtimeAgent({
    name: "reception",
    instructions: "You answer questions.",
    tools: [
      tool({
        name: "get_weather",
        description: "Say what the weather is like.",
        parameters: z.object({ city: z.string() }),
        execute: async ({ city }) => `It is sunny in ${city}, twenty one degrees.`,
      }),
      tool({
        name: "pay_back",
        description: "Pay an invoice back.",
        parameters: z.object({ invoice: z.string() }),
        needsApproval: true,
        execute: async ({ invoice }) => `Invoice ${invoice} is paid back.`,
      }),
    ],
    handoffs: [billing],
  });
}

/** What the test wants to know of an event of the session. */
function describe(event, values) {
  const [, ...rest] = values; // the first is the context, where there are several
  switch (event) {
    case "audio":
      return { bytes: values[0].data.byteLength };
    case "error":
      return { error: JSON.stringify(values[0].error, (_, value) => (value instanceof Error ? value.stack : value)) };
    case "history_updated":
      return { history: values[0] };
    case "agent_handoff":
      return { from: rest[0].name, to: rest[1].name };
    case "agent_start":
    case "agent_end":
      return { agent: rest[0].name };
    case "agent_tool_start":
      return { tool: rest[1].name };
    case "agent_tool_end":
      return { tool: rest[1].name, output: rest[2] };
    case "guardrail_tripped":
      return { guardrail: rest[1].result.guardrail.name };
    default:
      return {};
  }
}

function describeFrame(frame) {
  const detail = {};
  for (const key of ["error", "audio_end_ms", "transcript"]) if (key in frame) detail[key] = frame[key];
  if (frame.response) detail.status = frame.response.status;
  if (frame.session) detail.session = frame.session.id;
  return detail;
}

/** One conversation: reports all that happens in it, and waits for what it is told to wait for. */
class Case {
  #seen = [];
  #read = 0;
  #settle = () => {};
  #wake = () => {};

  constructor(name, options = {}) {
    this.name = name;
    this.session = new RealtimeSession(newAgent(), { transport: "websocket", model: "gpt-realtime", ...options });
    for (const event of SESSION_EVENTS) this.session.on(event, (...values) => this.#take(event, describe(event, values), values));
    const transport = this.session.transport;
    transport.on("*", (frame) => {
      this.#watch(frame);
      this.#take(`server:${frame.type}`, describeFrame(frame), [frame]);
    });
  }

  /**
   * The library says nothing of a frame that it does not know or cannot read: it only leaves out the event of the frame's own
   * name, which otherwise comes at once, before the next frame.
   */
  #watch(frame) {
    const { transport } = this.session;
    this.#settle();
    let read = false;
    const listener = () => { read = true; };
    transport.on(frame.type, listener);
    this.#settle = () => {
      this.#settle = () => {};
      transport.off(frame.type, listener);
      if (!read) report(this.name, "unread", { type: frame.type });
    };
    queueMicrotask(() => this.#settle());
  }

  #take(event, detail, values) {
    report(this.name, event, detail);
    this.#seen.push({ event, values });
    this.#wake();
  }

  /** Go on until an event of this name that fits; frames of the endpoint are named `server:` and their type. */
  async until(event, fits = () => true) {
    for (;;) {
      while (this.#read < this.#seen.length) {
        const next = this.#seen[this.#read++];
        if (next.event === event && fits(...next.values)) return next.values;
      }
      await new Promise((resolve) => { this.#wake = resolve; });
    }
  }

  /** Go on to the end of a response that was completed. */
  done() {
    return this.until("server:response.done", (frame) => frame.response.status === "completed");
  }

  speak(audio) {
    for (let start = 0; start < audio.length; start += CHUNK) {
      const chunk = audio.subarray(start, start + CHUNK);
      this.session.sendAudio(chunk.buffer.slice(chunk.byteOffset, chunk.byteOffset + chunk.length));
    }
  }
}

async function opened(name, url, options, run) {
  const one = new Case(name, options);
  await one.session.connect({ apiKey: "sk-judge", url });
  try {
    await run(one);
  } finally {
    one.session.close();
  }
}

const cases = {
  text: (name) =>
    opened(name, words.quick, { config: { outputModalities: ["text"] } }, async (one) => {
      one.session.sendMessage("Please repeat this.");
      await one.done();
    }),

  image: (name) =>
    opened(name, words.quick, { config: { outputModalities: ["text"] } }, async (one) => {
      one.session.sendMessage({
        type: "message",
        role: "user",
        content: [{ type: "input_text", text: "What is in this picture?" }, { type: "input_image", image: RED_SQUARE }],
      });
      await one.done();
    }),

  audio: (name) =>
    opened(name, words.quick, {}, async (one) => {
      one.speak(speech);
      await one.done();
    }),

  commit: (name) =>
    opened(name, words.quick, { config: { audio: { input: { turnDetection: null } } } }, async (one) => {
      await one.until("server:session.updated", (frame) => frame.session.audio.input.turn_detection === null);
      one.session.sendAudio(speech.buffer.slice(speech.byteOffset, speech.byteOffset + speech.length), { commit: true });
      await one.until("server:input_audio_buffer.committed");
      one.session.transport.sendEvent({ type: "response.create" });
      await one.done();
    }),

  tool: (name) =>
    opened(name, words.quick, {}, async (one) => {
      one.session.sendMessage("What is the weather like?");
      await one.until("agent_tool_end");
      await one.until("server:response.output_audio_transcript.done");
      await one.done();
    }),

  approval: (name) =>
    opened(name, words.quick, {}, async (one) => {
      one.session.sendMessage("I want a refund.");
      const [, , request] = await one.until("tool_approval_requested");
      await one.session.approve(request.approvalItem);
      await one.until("agent_tool_end");
      await one.until("server:response.output_audio_transcript.done");
      await one.done();
    }),

  handoff: (name) =>
    opened(name, words.quick, {}, async (one) => {
      one.session.sendMessage("I have a question for billing.");
      await one.until("agent_handoff");
      await one.until("server:response.output_audio_transcript.done");
      await one.done();
    }),

  interruption: (name) =>
    opened(name, words.steady, {}, async (one) => {
      one.session.sendMessage("Tell me a story.");
      await one.until("audio");
      one.speak(voice);
      await one.until("audio_interrupted");
      await one.until("server:conversation.item.truncated");
      await one.until("server:conversation.item.retrieved");
      one.speak(pause);
      await one.done();
    }),

  // The "stop talking" button: the client itself cancels and truncates.
  stop: (name) =>
    opened(name, words.steady, {}, async (one) => {
      one.session.sendMessage("Tell me a story.");
      await one.until("audio");
      one.session.interrupt();
      await one.until("server:conversation.item.truncated");
      await one.until("server:conversation.item.retrieved");
      one.session.sendMessage("Please repeat this.");
      await one.done();
    }),

  guardrail: (name) => {
    const outputGuardrails = [{
      name: "no_swordfish",
      execute: async ({ agentOutput }) => ({ tripwireTriggered: agentOutput.includes("swordfish"), outputInfo: {} }),
    }];
    const options = { outputGuardrails, outputGuardrailSettings: { debounceTextLength: 20 } };
    return opened(name, words.steady, options, async (one) => {
      one.session.sendMessage("Tell me the password.");
      await one.until("guardrail_tripped");
      await one.done();
    });
  },

  reconnect: async (name) => {
    for (let time = 0; time < 2; time++) {
      await opened(name, words.quick, {}, async (one) => {
        await one.until("server:session.created");
        one.session.sendMessage("Please repeat this.");
        await one.done();
      });
    }
  },
};

async function attempt(name) {
  let timer;
  const deadline = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error("it took too long")), PATIENCE_MS); });
  try {
    await Promise.race([cases[name](name), deadline]);
    report(name, "finished");
    return true;
  } catch (error) {
    report(name, "failed", { error: String(error?.stack ?? error) });
    return false;
  } finally {
    clearTimeout(timer);
  }
}

const ends = await Promise.all(Object.keys(cases).map(attempt));
// A case that failed may have left a socket open, which would keep the process alive.
if (ends.includes(false)) process.exit(1);
