// The loudspeaker's side of the audio thread: plays queued chunks, and knows to the sample what was played of which item.
//
// From the page: {type: "chunk", part, samples: Int16Array} and {type: "stop"}. A part is named by a string.
// To the page: {type: "position", part, samples, total, peak} every 50 ms, when the part changes and when the queue has run
// empty, where `samples` counts from the part's beginning; {type: "drained"}; {type: "stopped"} after each stop.

const FADE = Math.round(0.02 * sampleRate);
const REPORT_EVERY = Math.round(0.05 * sampleRate);
// Playback begins when so much is queued, so that a late chunk is no gap, or when no more has come for a moment.
const CUSHION = Math.round(0.06 * sampleRate);
const PATIENCE = Math.round(0.12 * sampleRate);
const MAX_PARTS = 64;

class Playback extends AudioWorkletProcessor {
  constructor() {
    super();
    this.queue = [];
    this.queued = 0;
    this.offset = 0;
    this.playing = false;
    this.waited = 0;
    this.fadeIn = 0;
    // What is left of a queue that was stopped: it fades out, since a wave that ends in the middle clicks.
    this.fading = [];
    this.fadeOut = 0;
    this.part = null;
    this.played = new Map();
    this.total = 0;
    this.peak = 0;
    this.unreported = 0;
    this.port.onmessage = ({ data }) => (data.type === "chunk" ? this.add(data) : this.stop());
  }

  add({ part, samples }) {
    this.queue.push({ part, samples });
    this.queued += samples.length;
  }

  stop() {
    if (this.playing && this.queued > 0) {
      this.fading = [{ part: this.queue[0].part, samples: this.queue[0].samples.subarray(this.offset) }];
      this.fadeOut = Math.min(FADE, this.fading[0].samples.length);
    }
    this.queue = [];
    this.queued = this.offset = 0;
    this.playing = false;
    if (this.fadeOut === 0) {
      this.stopped();
    }
  }

  process(_inputs, [output]) {
    const frame = output[0];
    for (let index = 0; index < frame.length; index += 1) {
      frame[index] = this.next();
    }
    for (const other of output.slice(1)) {
      other.set(frame);
    }
    return true;
  }

  next() {
    if (this.fadeOut > 0) {
      return this.nextFading();
    }
    if (!this.ready()) {
      return 0;
    }
    const { part, samples } = this.queue[0];
    const gain = this.fadeIn > 0 ? 1 - this.fadeIn / FADE : 1;
    this.fadeIn = Math.max(0, this.fadeIn - 1);
    const value = (samples[this.offset] / 32_768) * gain;
    this.offset += 1;
    this.queued -= 1;
    if (this.offset === samples.length) {
      this.queue.shift();
      this.offset = 0;
    }
    this.count(part, value);
    if (this.queued === 0) {
      this.playing = false;
      this.report();
      this.port.postMessage({ type: "drained" });
    }
    return value;
  }

  nextFading() {
    const { part, samples } = this.fading[0];
    const value = (samples[0] / 32_768) * (this.fadeOut / FADE);
    this.fading[0] = { part, samples: samples.subarray(1) };
    this.fadeOut -= 1;
    this.count(part, value);
    if (this.fadeOut === 0) {
      this.fading = [];
      this.stopped();
    }
    return value;
  }

  ready() {
    if (this.queued === 0) {
      this.waited = 0;
      return false;
    }
    if (!this.playing) {
      this.waited += 1;
      if (this.queued < CUSHION && this.waited < PATIENCE) {
        return false;
      }
      this.playing = true;
      this.waited = 0;
      this.fadeIn = FADE;
    }
    return true;
  }

  count(part, value) {
    if (part !== this.part) {
      this.report();
      this.part = part;
    }
    this.played.set(part, (this.played.get(part) ?? 0) + 1);
    if (this.played.size > MAX_PARTS) {
      this.played.delete(this.played.keys().next().value);
    }
    this.total += 1;
    this.peak = Math.max(this.peak, Math.abs(value));
    this.unreported += 1;
    if (this.unreported >= REPORT_EVERY) {
      this.report();
    }
  }

  report() {
    if (this.unreported > 0) {
      const samples = this.played.get(this.part);
      this.port.postMessage({ type: "position", part: this.part, samples, total: this.total, peak: this.peak });
      this.unreported = 0;
      this.peak = 0;
    }
  }

  stopped() {
    this.report();
    this.port.postMessage({ type: "stopped" });
  }
}

registerProcessor("playback", Playback);
