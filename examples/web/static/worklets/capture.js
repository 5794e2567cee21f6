// The microphone's side of the audio thread: samples come 128 at a time, leave as 16-bit chunks at 24 kHz.
//
// To the page: {type: "chunk", samples: Int16Array, peak: 0..1}. From the page: {type: "flush"}, which gives out what has been
// gathered so far, then {type: "flushed"}.

const RATE = 24_000;
const CHUNK = 960; // 40 ms

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.chunk = new Int16Array(CHUNK);
    this.length = 0;
    this.peak = 0;
    // Where a context cannot run at 24 kHz, every output sample lies between two of the input. The page has filtered out what
    // would fold back.
    this.step = sampleRate / RATE;
    this.position = 0;
    this.last = 0;
    this.port.onmessage = ({ data }) => {
      if (data.type === "flush") {
        this.give();
        this.port.postMessage({ type: "flushed" });
      }
    };
  }

  process([input]) {
    const samples = input[0];
    if (!samples) {
      return true;
    }
    if (this.step === 1) {
      for (const sample of samples) {
        this.put(sample);
      }
      return true;
    }
    // `position` counts from the last sample of the quantum before.
    while (this.position < samples.length) {
      const index = Math.floor(this.position);
      const before = index === 0 ? this.last : samples[index - 1];
      this.put(before + (samples[index] - before) * (this.position - index));
      this.position += this.step;
    }
    this.position -= samples.length;
    this.last = samples[samples.length - 1];
    return true;
  }

  put(sample) {
    const limited = Math.max(-1, Math.min(1, sample));
    this.peak = Math.max(this.peak, Math.abs(limited));
    this.chunk[this.length] = Math.round(limited * 32_767);
    this.length += 1;
    if (this.length === CHUNK) {
      this.give();
    }
  }

  give() {
    if (this.length === 0) {
      return;
    }
    const samples = this.chunk.slice(0, this.length);
    this.port.postMessage({ type: "chunk", samples, peak: this.peak }, [samples.buffer]);
    this.length = 0;
    this.peak = 0;
  }
}

registerProcessor("capture", Capture);
