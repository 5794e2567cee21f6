// The conversation on the page: messages by item, and between them what happened.

const HISTORY_DONE = new Set(["completed", "incomplete"]);
const NEAR_END_PX = 60;

export class Transcript {
  constructor(list) {
    this.list = list;
    // Somebody who reads further up is not torn away by what comes.
    this.follows = true;
    list.addEventListener("scroll", () => {
      this.follows = list.scrollHeight - list.scrollTop - list.clientHeight < NEAR_END_PX;
    });
    this.clear();
  }

  clear() {
    this.list.replaceChildren();
    this.forget();
  }

  // A new conversation below the old one: its items are others.
  forget() {
    this.messages = new Map();
    this.calls = new Map();
    this.pictures = [];
  }

  get empty() {
    return this.list.childElementCount === 0;
  }

  // A word of the agent, as it comes.
  delta({ item_id: itemId, delta }, agent) {
    const message = this.message(itemId, "assistant", agent);
    message.live += delta;
    if (!message.settled) {
      this.write(message, message.live);
    }
  }

  // An item as the session has it.
  item(item, agent) {
    if (item.type !== "message" || item.role === "system") {
      return;
    }
    const pictured = item.content.some((part) => part.type === "input_image");
    const message = this.message(item.item_id, item.role, agent, pictured);
    const text = item.content.map((part) => part.text ?? part.transcript ?? "").join(" ").trim();
    if (item.role === "user") {
      this.write(message, text, item.content.some((part) => part.type === "input_audio"));
      return;
    }
    const cut = item.content.find((part) => part.heard_ms !== null && part.heard_ms !== undefined);
    if (cut) {
      this.cut(message, cut.heard_ms);
    }
    message.settled ||= Boolean(cut) || HISTORY_DONE.has(item.status);
    if (message.settled) {
      this.write(message, text);
    }
  }

  // What the user shows, at once: the item that it becomes is on its way.
  picture(dataUrl, text) {
    const image = document.createElement("img");
    image.src = dataUrl;
    image.alt = "Your picture";
    const message = this.row("user");
    message.body.append(image, message.text);
    this.write(message, text);
    this.pictures.push(message);
  }

  toolStarted({ call_id: callId, tool, arguments: json }) {
    const row = this.call(callId, tool, json);
    row.element.dataset.state = "running";
    row.state.textContent = "running";
  }

  toolEnded({ call_id: callId, tool, arguments: json, output, ok }) {
    const row = this.call(callId, tool, json);
    row.element.dataset.state = ok ? "done" : "failed";
    row.state.textContent = ok ? "done" : "not done";
    row.output.textContent = output;
    this.scroll();
  }

  toolWaits({ call_id: callId, tool, arguments: json }) {
    const row = this.call(callId, tool, json);
    row.element.dataset.state = "waiting";
    row.state.textContent = "needs your approval";
  }

  // A line of its own, such as a handoff.
  note(kind, text) {
    const element = document.createElement("li");
    element.className = `note ${kind}`;
    element.textContent = text;
    this.list.append(element);
    this.scroll();
  }

  message(itemId, role, agent, pictured = false) {
    let message = this.messages.get(itemId);
    if (!message) {
      message = (pictured && this.pictures.shift()) || this.row(role, agent);
      this.messages.set(itemId, message);
    }
    return message;
  }

  row(role, agent) {
    const element = document.createElement("li");
    element.className = `message ${role}`;
    element.hidden = true;
    const body = document.createElement("div");
    body.className = "bubble";
    const text = document.createElement("p");
    body.append(text);
    const who = document.createElement("span");
    who.className = role === "user" ? "hidden" : "who";
    who.textContent = role === "user" ? "You" : agent;
    element.append(who, body);
    this.list.append(element);
    return { element, body, text, live: "", settled: false };
  }

  call(callId, tool, json) {
    let row = this.calls.get(callId);
    if (!row) {
      const element = document.createElement("li");
      element.className = "call";
      const name = document.createElement("code");
      name.textContent = tool;
      const given = document.createElement("span");
      given.className = "given";
      given.textContent = describe(json);
      const state = document.createElement("span");
      state.className = "state";
      const output = document.createElement("p");
      element.append(name, given, state, output);
      this.list.append(element);
      row = { element, state, output };
      this.calls.set(callId, row);
      this.scroll();
    }
    return row;
  }

  cut(message, heardMs) {
    if (!message.mark) {
      message.mark = document.createElement("span");
      message.mark.className = "mark";
      message.body.append(message.mark);
    }
    message.mark.textContent = heardMs > 0 ? `interrupted after ${(heardMs / 1000).toFixed(1)} s` : "not heard";
    message.element.classList.add("cut");
    message.element.classList.toggle("unheard", !(heardMs > 0));
  }

  write(message, text, spoken = false) {
    message.text.textContent = text || (spoken ? "…" : "");
    message.text.hidden = !message.text.textContent;
    // An answer of which nothing was heard leaves only its mark.
    message.element.hidden = !message.text.textContent && !message.mark && message.body.childElementCount === 1;
    this.scroll();
  }

  scroll() {
    if (this.follows) {
      this.list.scrollTop = this.list.scrollHeight;
    }
  }
}

// A tool's arguments in one line.
export function describe(json) {
  return pairs(json)
    .map(([name, value]) => `${name}: ${value}`)
    .join(", ");
}

// A tool's arguments as pairs of texts; what is no object is shown as it is.
export function pairs(json) {
  try {
    const value = JSON.parse(json || "{}");
    if (value && typeof value === "object" && !Array.isArray(value)) {
      return Object.entries(value).map(([name, inner]) => [name, typeof inner === "string" ? inner : JSON.stringify(inner)]);
    }
  } catch {
    // The model wrote it, so it may be anything.
  }
  return [["arguments", json]];
}
