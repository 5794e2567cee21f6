// Plays the agent's audio, and says how much of which item was heard.

const RATE = 24_000;
const STOP_PATIENCE_MS = 200;
const MAX_STOPPED = 64;

export class Player {
  // `onPosition(itemId, contentIndex, ms)` is called about every 50 ms while something plays, `onChange()` when it starts or stops.
  constructor({ onPosition, onChange }) {
    this.onPosition = onPosition;
    this.onChange = onChange;
    this.playing = false;
    this.seconds = 0;
    this.peak = 0;
    this.stopped = new Set();
    this.last = null;
    this.onStopped = [];
  }

  // Must be called from a click, or browsers keep it silent.
  async open() {
    this.context = new AudioContext({ sampleRate: RATE, latencyHint: "interactive" });
    await this.context.audioWorklet.addModule("worklets/playback.js");
    this.node = new AudioWorkletNode(this.context, "playback", { numberOfInputs: 0, outputChannelCount: [1] });
    this.node.port.onmessage = ({ data }) => this.receive(data);
    this.analyser = new AnalyserNode(this.context, { fftSize: 512 });
    this.wave = new Float32Array(this.analyser.fftSize);
    this.node.connect(this.analyser).connect(this.context.destination);
    await this.context.resume();
  }

  get state() {
    return this.context?.state ?? "closed";
  }

  // How loud it is now, 0 to 1.
  get level() {
    if (!this.playing) {
      return 0;
    }
    this.analyser.getFloatTimeDomainData(this.wave);
    return Math.min(1, Math.sqrt(this.wave.reduce((sum, value) => sum + value * value, 0) / this.wave.length) * 4);
  }

  // Queue audio, base64 of 16-bit samples. What belongs to an item that was stopped is dropped.
  play(itemId, contentIndex, audio) {
    const part = partName(itemId, contentIndex);
    if (!this.node || this.stopped.has(part)) {
      return;
    }
    const samples = new Int16Array(Uint8Array.from(atob(audio), (letter) => letter.charCodeAt(0)).buffer);
    if (samples.length === 0) {
      return;
    }
    this.last = part;
    this.setPlaying(true);
    this.node.port.postMessage({ type: "chunk", part, samples }, [samples.buffer]);
  }

  // Fade out and drop the rest. Resolves when the last position has been reported.
  async stop() {
    if (!this.node || !this.playing) {
      return;
    }
    this.stopped.add(this.last);
    if (this.stopped.size > MAX_STOPPED) {
      this.stopped.delete(this.stopped.values().next().value);
    }
    // A context that the system has suspended never answers.
    await new Promise((resolve) => {
      this.onStopped.push(resolve);
      setTimeout(resolve, STOP_PATIENCE_MS);
      this.node.port.postMessage({ type: "stop" });
    });
  }

  // Silence at once, and for good: `open` begins anew.
  close() {
    if (this.node) {
      this.node.port.onmessage = null;
      this.node.disconnect();
      this.context.close();
    }
    this.node = this.context = null;
    this.setPlaying(false);
  }

  receive(data) {
    if (data.type === "position") {
      this.seconds = data.total / RATE;
      this.peak = Math.max(this.peak, data.peak);
      this.report(data, this.latency());
    } else if (data.type === "drained") {
      // All was handed over, so that all will be heard, in a moment.
      this.report(this.position, 0);
      this.setPlaying(false);
    } else {
      this.onStopped.shift()?.();
      this.setPlaying(false);
    }
  }

  report(position, latency) {
    this.position = position;
    const [itemId, contentIndex] = partOf(position.part);
    // Rounded up: rounded down, a part that was played to its end would seem to lack its last sample.
    const ms = Math.ceil(Math.max(0, position.samples / RATE - latency) * 1000);
    this.onPosition(itemId, contentIndex, ms);
  }

  // Seconds between the worklet and the ear, as far as the browser knows.
  latency() {
    return this.context.outputLatency || this.context.baseLatency || 0;
  }

  setPlaying(playing) {
    if (playing !== this.playing) {
      this.playing = playing;
      this.onChange();
    }
  }
}

function partName(itemId, contentIndex) {
  return `${contentIndex}:${itemId}`;
}

function partOf(name) {
  const colon = name.indexOf(":");
  return [name.slice(colon + 1), Number(name.slice(0, colon))];
}
