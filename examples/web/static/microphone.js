// The microphone: asks for it, and gives what it hears as 16-bit chunks at 24 kHz.

const RATE = 24_000;
const HIGHEST = 10_800;

export class Microphone {
  // `onChunk(samples, peak)` is called for every 40 ms, whether anybody speaks or not.
  constructor(onChunk) {
    this.onChunk = onChunk;
    this.onFlushed = [];
    this.contexts = [];
    this.stream = null;
  }

  // Raises what getUserMedia raises, such as NotAllowedError. `context` is one that runs at 24 kHz and may be used too.
  async open(context) {
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new Error("This browser gives no microphone to a page that is neither on localhost nor behind HTTPS.");
    }
    const wishes = { channelCount: 1, echoCancellation: true, noiseSuppression: true, autoGainControl: true };
    this.stream = await navigator.mediaDevices.getUserMedia({ audio: wishes });
    try {
      const source = await this.source(context);
      this.node = new AudioWorkletNode(source.context, "capture", { outputChannelCount: [1] });
      this.node.port.onmessage = ({ data }) => this.receive(data);
      // It puts out silence; what leads nowhere is not run by every browser.
      source.connect(this.node).connect(source.context.destination);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  // A muted microphone hears silence: the model ends the turn by it, which it would never do if nothing came at all.
  set muted(muted) {
    for (const track of this.stream?.getAudioTracks() ?? []) {
      track.enabled = !muted;
    }
  }

  // Give out what was heard until now, even if it is less than a chunk.
  flush() {
    if (!this.node) {
      return Promise.resolve();
    }
    return new Promise((resolve) => {
      this.onFlushed.push(resolve);
      this.node.port.postMessage({ type: "flush" });
    });
  }

  close() {
    for (const track of this.stream?.getTracks() ?? []) {
      track.stop();
    }
    for (const context of this.contexts) {
      context.close();
    }
    this.node?.disconnect();
    this.node = this.stream = null;
    this.contexts = [];
  }

  receive(data) {
    if (data.type === "flushed") {
      this.onFlushed.shift()?.();
    } else {
      this.onChunk(data.samples, data.peak);
    }
  }

  async source(context) {
    try {
      const source = context.createMediaStreamSource(this.stream);
      await context.audioWorklet.addModule("worklets/capture.js");
      return source;
    } catch (error) {
      if (error.name !== "NotSupportedError") {
        throw error;
      }
    }
    // Some browsers join a microphone only to a context of the device's own rate. The worklet then changes the rate, and what
    // is too high for 24 kHz must go first.
    const own = new AudioContext();
    this.contexts.push(own);
    await own.audioWorklet.addModule("worklets/capture.js");
    const source = own.createMediaStreamSource(this.stream);
    if (own.sampleRate === RATE) {
      return source;
    }
    const filters = [1, 2].map(() => new BiquadFilterNode(own, { type: "lowpass", frequency: HIGHEST }));
    return source.connect(filters[0]).connect(filters[1]);
  }
}
