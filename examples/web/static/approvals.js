// Tool calls that wait for the user: asked one after the other, in a dialog.

import { pairs } from "./transcript.js";

export class Approvals {
  // `onDecision(callId, approve, always)` is called for each.
  constructor(dialog, onDecision) {
    this.dialog = dialog;
    this.onDecision = onDecision;
    this.waiting = [];
    // Esc is no answer, and the call goes on waiting.
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    dialog.addEventListener("close", () => this.decided());
  }

  ask(call) {
    this.waiting.push(call);
    this.show();
  }

  // The conversation is over: nobody waits any more.
  drop() {
    this.waiting = [];
    if (this.dialog.open) {
      this.dialog.close("dropped");
    }
  }

  show() {
    const [call] = this.waiting;
    if (!call || this.dialog.open) {
      return;
    }
    const find = (id) => this.dialog.querySelector(`#approval-${id}`);
    find("title").textContent = `${call.agent} wants to run ${call.tool}`;
    find("arguments").replaceChildren(
      ...pairs(call.arguments).map(([name, value]) => {
        const row = document.createElement("div");
        const term = document.createElement("dt");
        const detail = document.createElement("dd");
        term.textContent = name;
        detail.textContent = value;
        row.append(term, detail);
        return row;
      }),
    );
    find("always").checked = false;
    find("always-label").textContent = `Decide the same for ${call.tool} from now on`;
    this.dialog.returnValue = "";
    this.dialog.showModal();
  }

  decided() {
    const answer = this.dialog.returnValue;
    if (answer === "approve" || answer === "reject") {
      const call = this.waiting.shift();
      this.onDecision(call.call_id, answer === "approve", this.dialog.querySelector("#approval-always").checked);
    }
    this.show();
  }
}
