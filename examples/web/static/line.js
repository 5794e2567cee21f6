// The line to the server: one WebSocket after the other, for as long as the user wants to talk.

const DELAYS_MS = [500, 1000, 2000, 4000, 8000];
const STEADY_MS = 5000;
const MAX_WAITING_BYTES = 1 << 20;
// Codes of a WebSocket's end after which another attempt makes sense only when the user asks for it.
const ENDED = 1000;
const REFUSED = 1008;

export class Line {
  // `onState(state, detail)`: connecting, live, waiting (detail: seconds until the next attempt), ended or failed.
  constructor({ onMessage, onState }) {
    this.onMessage = onMessage;
    this.onState = onState;
    this.attempts = 0;
    this.wanted = false;
    this.dropped = 0;
    addEventListener("online", () => this.retryNow());
  }

  open() {
    this.wanted = true;
    this.attempts = 0;
    this.connect();
  }

  close() {
    this.wanted = false;
    clearTimeout(this.timer);
    this.socket?.close(ENDED);
    this.onState("ended");
  }

  get live() {
    return this.socket?.readyState === WebSocket.OPEN;
  }

  // Send a message; tells whether there was a line to send it on.
  send(message) {
    if (this.live) {
      this.socket.send(JSON.stringify(message));
    }
    return this.live;
  }

  // Send audio. A line that cannot keep up loses some, since old audio is worth nothing.
  sendAudio(samples) {
    if (!this.live) {
      return;
    }
    if (this.socket.bufferedAmount > MAX_WAITING_BYTES) {
      this.dropped += 1;
      return;
    }
    this.socket.send(samples);
  }

  connect() {
    clearTimeout(this.timer);
    this.timer = null;
    this.onState("connecting");
    // One id, one conversation: a connection that comes back begins a new one.
    this.sessionId = Array.from(crypto.getRandomValues(new Uint8Array(9)), (byte) => byte.toString(36).padStart(2, "0")).join("");
    const socket = new WebSocket(new URL(`ws/session_${this.sessionId}`, document.baseURI.replace(/^http/, "ws")));
    this.socket = socket;
    let steady = null;
    socket.onopen = () => {
      steady = setTimeout(() => (this.attempts = 0), STEADY_MS);
      this.onState("live");
    };
    socket.onmessage = ({ data }) => {
      if (socket === this.socket) {
        this.onMessage(JSON.parse(data));
      }
    };
    socket.onclose = ({ code }) => {
      clearTimeout(steady);
      if (socket === this.socket && this.wanted) {
        this.closed(code);
      }
    };
  }

  closed(code) {
    if (code === ENDED || code === REFUSED) {
      this.wanted = false;
      this.onState(code === ENDED ? "ended" : "failed");
      return;
    }
    const delay = DELAYS_MS[this.attempts];
    if (delay === undefined) {
      this.wanted = false;
      this.onState("failed");
      return;
    }
    this.attempts += 1;
    // Spread, so that all pages of a server that has come back do not come back at once.
    const wait = delay * (0.75 + Math.random() / 2);
    this.onState("waiting", wait / 1000);
    this.timer = setTimeout(() => this.connect(), wait);
  }

  retryNow() {
    if (this.wanted && this.timer) {
      this.connect();
    }
  }
}
