// The page: what the user does goes to the server, what the server says is shown and played.

import { Approvals } from "./approvals.js";
import { Line } from "./line.js";
import { Microphone } from "./microphone.js";
import { messages, shrink } from "./pictures.js";
import { Player } from "./player.js";
import { Transcript } from "./transcript.js";

const RATE = 24_000;
const SHORTEST_TURN = 2_400; // samples: 100 ms, which is the least that the model takes
const NOTICE_MS = 8_000;
const LINE_TEXTS = {
  connecting: () => "Connecting…",
  live: () => "Connected",
  waiting: (seconds) => `Connection lost. Next attempt in ${Math.ceil(seconds)} s`,
  ended: () => "Conversation ended",
  failed: () => "No connection",
};
const AGENT_TEXTS = {
  idle: "Ready when you are",
  waiting: "Your turn",
  listening: "Listening",
  thinking: "Thinking",
  speaking: "Speaking",
  approval: "Waiting for your approval",
};

const $ = (id) => document.getElementById(id);
const body = document.body;
const transcript = new Transcript($("transcript"));
const approvals = new Approvals($("approval"), decide);
const player = new Player({ onPosition: reportPlayback, onChange: showAgent });
const line = new Line({ onMessage: receive, onState: showLine });

// What the page knows of the conversation beside its words.
const now = {
  agent: "Reception",
  hearing: false,
  responding: false,
  muted: false,
  mode: "server",
  holding: false,
  heldSamples: 0,
  microphone: null,
  microphoneLevel: 0,
  toSay: [],
};

// From the server.

const HANDLERS = {
  agent_start: ({ agent }) => {
    now.agent = agent;
    now.responding = true;
  },
  agent_end: () => (now.responding = false),
  audio: ({ item_id: itemId, content_index: index, audio }) => player.play(itemId, index, audio),
  audio_interrupted: (event) => {
    player.stop();
    if (event.heard_ms !== null) {
      $("fact-cut").textContent = `after ${(event.heard_ms / 1000).toFixed(2)} s of ${(event.sent_ms / 1000).toFixed(2)} s`;
    }
  },
  client_info: () => {},
  error: ({ error }) => notify(error),
  guardrail_tripped: ({ guardrail_results: results }) =>
    transcript.note("guardrail", `Stopped by ${results.map(({ name }) => name).join(", ")}`),
  handoff: ({ from, to }) => {
    now.agent = to;
    transcript.note("handoff", `${from} → ${to}`);
  },
  history_added: ({ item }) => transcript.item(item, now.agent),
  history_updated: ({ history }) => history.forEach((item) => transcript.item(item, now.agent)),
  raw_model_event: ({ raw_model_event: { type } }) => {
    if (type === "speech_started" || type === "speech_stopped") {
      now.hearing = type === "speech_started";
    }
  },
  tool_approval_required: (call) => {
    transcript.toolWaits(call);
    approvals.ask(call);
  },
  tool_end: (event) => transcript.toolEnded(event),
  tool_start: (event) => transcript.toolStarted(event),
  transcript_delta: (event) => transcript.delta(event, now.agent),
};

function receive(message) {
  HANDLERS[message.type]?.(message);
  if (message.type !== "audio") {
    showAgent();
  }
}

// To the server.

function reportPlayback(itemId, contentIndex, ms) {
  line.send({ type: "playback", item_id: itemId, content_index: contentIndex, ms });
  $("fact-played").textContent = `${player.seconds.toFixed(1)} s, peak ${player.peak.toFixed(2)}`;
}

// Playback stops first, so that the server knows to the sample what was heard.
async function interrupt() {
  await player.stop();
  line.send({ type: "interrupt" });
}

async function interruptIfBusy() {
  if (player.playing || now.responding) {
    await interrupt();
  }
}

function decide(callId, approve, always) {
  line.send({ type: "tool_approval_decision", call_id: callId, approve, always });
  showAgent();
}

async function say(text) {
  if (!line.live) {
    now.toSay.push(text);
    if (!line.wanted) {
      await start({ withMicrophone: false });
    }
    return;
  }
  await interruptIfBusy();
  line.send({ type: "message", text });
}

async function show(file) {
  let dataUrl;
  try {
    dataUrl = await shrink(file);
  } catch {
    notify("This file is no picture that the browser can read.");
    return;
  }
  const dialog = $("preview");
  $("preview-image").src = dataUrl;
  $("preview-text").value = "";
  dialog.returnValue = "";
  dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  if (dialog.returnValue !== "send") {
    return;
  }
  if (!line.live) {
    notify("The picture was not sent: there is no connection.");
    return;
  }
  await interruptIfBusy();
  const text = $("preview-text").value.trim();
  welcome(false);
  transcript.picture(dataUrl, text);
  for (const message of messages(dataUrl, text)) {
    line.send(message);
  }
}

// The user's voice.

function hear(samples, peak) {
  const wanted = now.mode === "server" || now.holding;
  now.microphoneLevel = wanted && !now.muted ? peak : 0;
  if (wanted) {
    now.heldSamples += samples.length;
    line.sendAudio(samples);
  }
  if (now.holding) {
    $("hold").textContent = `Release to send ${(now.heldSamples / RATE).toFixed(1)} s`;
  }
}

async function hold() {
  if (now.holding || !line.live) {
    return;
  }
  now.holding = true;
  now.heldSamples = 0;
  $("hold").textContent = "Release to send";
  showAgent();
  await interruptIfBusy();
}

async function release() {
  if (!now.holding) {
    return;
  }
  await now.microphone?.flush();
  now.holding = false;
  $("hold").textContent = "Hold to speak";
  if (now.heldSamples >= SHORTEST_TURN) {
    line.send({ type: "commit_audio", respond: true });
  } else {
    notify("Hold the button for as long as you speak.");
  }
  showAgent();
}

function setMode(mode) {
  now.mode = mode;
  line.send({ type: "turn_detection", mode });
  $("fact-turns").textContent = mode === "server" ? "by the agent" : "by the button";
  showControls();
}

function setMuted(muted) {
  now.muted = muted;
  if (now.microphone) {
    now.microphone.muted = muted;
  }
  $("mute").setAttribute("aria-pressed", String(muted));
  $("mute-label").textContent = muted ? "Unmute" : "Mute";
  $("fact-microphone").textContent = now.microphone ? (muted ? "muted" : "on") : "off";
}

// Beginning and end.

async function start({ withMicrophone }) {
  // Until the microphone is allowed, which may take as long as it likes, a second click must do nothing.
  $("start").disabled = $("start-typing").disabled = true;
  try {
    await player.open();
    if (withMicrophone) {
      await openMicrophone();
    }
    line.open();
  } catch (error) {
    notify(`This browser cannot play audio: ${error.message}`);
  } finally {
    $("start").disabled = $("start-typing").disabled = false;
  }
}

async function openMicrophone() {
  const microphone = new Microphone(hear);
  try {
    await microphone.open(player.context);
    now.microphone = microphone;
  } catch (error) {
    const refused = error.name === "NotAllowedError" ? "You have not allowed the microphone." : error.message;
    notify(`${refused} You can type instead.`);
  }
  setMuted(false);
}

// The line is closed for good: give back what was taken for it.
function leave() {
  now.microphone?.close();
  now.microphone = null;
  now.toSay = [];
  setMuted(false);
  player.close();
  $("fact-loudspeaker").textContent = "off";
}

function begin() {
  if (!transcript.empty) {
    transcript.note("divider", "New conversation");
  }
  transcript.forget();
  Object.assign(now, { agent: "Reception", hearing: false, responding: false });
  $("fact-session").textContent = line.sessionId;
  $("fact-loudspeaker").textContent = player.state;
  if (now.mode === "manual") {
    setMode("manual");
  }
  const [first, ...rest] = now.toSay.splice(0);
  if (first) {
    welcome(false);
    [first, ...rest].forEach((text) => line.send({ type: "message", text }));
  }
}

// What is to be seen.

function showLine(state, detail) {
  body.dataset.line = state;
  $("status").textContent = LINE_TEXTS[state](detail);
  if (state === "live") {
    begin();
  } else {
    now.holding = now.hearing = now.responding = false;
    approvals.drop();
    player.stop();
  }
  if (state === "ended" || state === "failed") {
    leave();
  }
  showControls();
  showAgent();
}

function showControls() {
  const begun = ["connecting", "live", "waiting"].includes(body.dataset.line);
  document.querySelector(".start").hidden = begun;
  document.querySelector(".controls").hidden = !begun;
  $("start").textContent = transcript.empty ? "Start talking" : "Start again";
  $("retry").hidden = body.dataset.line !== "waiting";
  $("hold").hidden = now.mode === "server" || !now.microphone || body.dataset.line !== "live";
  $("mute").disabled = !now.microphone;
  $("interrupt").disabled = body.dataset.line !== "live";
  document.querySelector(".meter").hidden = !now.microphone;
}

function doing() {
  if (body.dataset.line !== "live") {
    return "idle";
  }
  if (approvals.waiting.length > 0) {
    return "approval";
  }
  if (now.holding || now.hearing) {
    return "listening";
  }
  if (player.playing) {
    return "speaking";
  }
  return now.responding ? "thinking" : "waiting";
}

function showAgent() {
  const state = doing();
  body.dataset.agent = state;
  $("agent-name").textContent = now.agent;
  $("agent-state").textContent = AGENT_TEXTS[state];
  if (!transcript.empty) {
    welcome(false);
  }
}

function welcome(visible) {
  $("welcome").hidden = !visible;
}

function notify(text) {
  const notice = document.createElement("p");
  notice.textContent = text;
  const close = document.createElement("button");
  close.type = "button";
  close.setAttribute("aria-label", "Dismiss");
  close.textContent = "×";
  close.onclick = () => notice.remove();
  notice.append(close);
  $("notices").append(notice);
  setTimeout(() => notice.remove(), NOTICE_MS);
}

function animate() {
  const level = now.hearing || now.holding ? now.microphoneLevel : player.level;
  $("orb").style.setProperty("--level", level.toFixed(3));
  $("level").value = now.microphoneLevel;
  requestAnimationFrame(animate);
}

// What the user does.

$("start").onclick = () => start({ withMicrophone: true });
$("start-typing").onclick = () => start({ withMicrophone: false });
$("retry").onclick = () => line.retryNow();
$("mute").onclick = () => setMuted(!now.muted);
$("interrupt").onclick = interrupt;
$("end").onclick = () => line.close();
$("composer").onsubmit = (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  $("text").value = "";
  if (text) {
    say(text);
  }
};
for (const hint of document.querySelectorAll(".hint")) {
  hint.onclick = () => say(hint.textContent);
}
for (const choice of document.getElementsByName("turns")) {
  choice.onchange = () => setMode(choice.value);
}
$("picture").onclick = () => $("picture-file").click();
$("picture-file").onchange = () => {
  const [file] = $("picture-file").files;
  $("picture-file").value = "";
  if (file) {
    show(file);
  }
};
addEventListener("paste", ({ clipboardData }) => {
  const file = [...(clipboardData?.files ?? [])].find(({ type }) => type.startsWith("image/"));
  if (file && !$("preview").open) {
    show(file);
  }
});
const button = $("hold");
button.onpointerdown = (event) => {
  // Whoever slides off the button has not let go of it.
  button.setPointerCapture(event.pointerId);
  hold();
};
button.onpointerup = button.onpointercancel = button.onblur = release;
button.onkeydown = (event) => {
  if ((event.key === " " || event.key === "Enter") && !event.repeat) {
    event.preventDefault();
    hold();
  }
};
button.onkeyup = (event) => {
  if (event.key === " " || event.key === "Enter") {
    release();
  }
};

showControls();
showAgent();
animate();
