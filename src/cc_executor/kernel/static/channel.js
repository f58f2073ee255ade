// What a view of a run or of a list hears, in its order: from its kernel and, when that is silent, the same frames from the server (server.js). Both begin
// with a reset, so that a change of speakers shows nothing twice and leaves nothing out. `../widgets.py` puts this before the views.

const ACK_MS = 200; // at most 5 acknowledgements a second
const SYNC_RETRY_MS = [1000, 2000, 5000, 10000]; // then give up: no kernel answers
const SILENT_MS = 4500; // a kernel that can speaks every 2 s
const RESYNC_MS = 2000;

function bodyOf(buffers) {
  return buffers?.length ? JSON.parse(new TextDecoder().decode(buffers[0])) : {};
}

function tell(model, content) {
  try {
    model.send(content);
  } catch (error) {
    console.debug("cc_executor: the kernel is gone", error);
  }
}

/**
 * Keys pressed on our buttons are no notebook commands (D, D deletes a cell), except that for saving: else the browser would save the page. The mark counts
 * only on what has the focus itself, and must be there before the document hears of the key, which in Notebook 7 is before we do.
 */
function keepKeys(root) {
  const mark = (event) => {
    if (!root.contains(event.target)) return;
    const saves = (event.ctrlKey || event.metaKey) && !event.altKey && event.key.toLowerCase() === "s";
    event.target.toggleAttribute("data-lm-suppress-shortcuts", !saves);
  };
  window.addEventListener("keydown", mark, true);
  return () => window.removeEventListener("keydown", mark, true);
}

/**
 * At the end of a run its output is put in the place of the view; who had the keyboard here has it there, and not nowhere. Returns what is to be called when
 * the view is gone. A text that was being typed must not become notebook commands there, either.
 */
function keepPlace(root) {
  let area = null; // the output that the keyboard is in
  const look = () => {
    if (root.isConnected) area = root.contains(document.activeElement) ? root.closest(".jp-OutputArea") : null;
  };
  root.addEventListener("focusin", look);
  root.addEventListener("focusout", () => queueMicrotask(look)); // Chromium says it of what is being removed, too
  return () => {
    if (!area?.isConnected || document.activeElement !== document.body) return;
    const loseKeys = keepKeys(area);
    area.tabIndex = -1;
    area.focus({ preventScroll: true });
    area.addEventListener("blur", () => {
      loseKeys();
      for (const name of ["tabindex", "data-lm-suppress-shortcuts"]) area.removeAttribute(name);
    }, { once: true });
  };
}

class Channel {
  /**
   * `op`: what a frame is called; `idOf(frame)`: the id of what it is about; `pattern`: of such an id. The owner has `show(frame, body, isReset)`,
   * `isOver()`, `schedule()` (`acknowledge` is called with the next picture), `hear(content, buffers)` for what is no frame and, where there is such a thing,
   * `hearServer(content, body)`, the same from the server, and `onState(state, isAlone)` for the saved state; `isAlone`: no frame has been heard.
   */
  constructor(model, owner, { op, pattern, idOf }) {
    this.model = model;
    this.owner = owner;
    this.op = op;
    this.idOf = idOf;
    this.view = uniqueId();
    this.seq = null; // the last frame that was understood; null: waits for a reset
    this.owed = null; // the frame to acknowledge
    this.lastAck = 0;
    this.syncTries = 0;
    this.syncAt = 0;
    this.heard = performance.now(); // when the kernel last spoke
    this.hasLooked = false; // round the kernel, since it fell silent
    this.isRound = false; // what is shown comes from the server
    this.detour = new Detour((content, body) => this.onServer(content, body), pattern);
    this.onMessage = (content, buffers) => this.receive(content, buffers);
    this.onState = () => this.lookAtState();
  }

  open() {
    this.model.on("msg:custom", this.onMessage);
    this.model.on("change:state", this.onState);
    this.lookAtState();
    this.sync();
    this.timer = setInterval(() => this.lookOut(), 1000);
  }

  // --- to the kernel ---

  send(content) {
    tell(this.model, content);
  }

  sync() {
    this.seq = null;
    this.syncAt = performance.now();
    clearTimeout(this.syncTimer);
    if (this.syncTries >= SYNC_RETRY_MS.length) return;
    this.syncTimer = setTimeout(() => this.sync(), SYNC_RETRY_MS[this.syncTries]);
    this.syncTries += 1;
    this.send({ op: "sync", view: this.view });
  }

  /** What has been drawn is acknowledged. */
  acknowledge() {
    if (this.owed === null) return;
    const wait = this.lastAck + ACK_MS - performance.now();
    if (wait > 0) {
      clearTimeout(this.ackTimer);
      this.ackTimer = setTimeout(() => this.owner.schedule(), wait);
      return;
    }
    this.lastAck = performance.now();
    this.send({ op: "ack", view: this.view, seq: this.owed });
    this.owed = null;
  }

  // --- from the kernel ---

  receive(content, buffers) {
    this.heard = performance.now();
    this.hasLooked = false;
    if (content.op !== this.op) return this.owner.hear(content, buffers);
    try {
      this.onFrame(content, bodyOf(buffers));
    } catch (error) {
      console.warn("cc_executor: a frame did not fit, asking for everything", error);
      this.sync();
    }
  }

  onFrame(frame, body) {
    const isReset = Array.isArray(frame.reset) && (frame.reset.includes(this.view) || frame.reset.includes("*"));
    if (isReset) {
      this.syncTries = 0;
      clearTimeout(this.syncTimer);
      this.detour.meet(this.idOf(frame));
    } else if (this.isRound) { // it speaks again: from the next reset on it has the view
      if (performance.now() - this.syncAt < RESYNC_MS) return;
      this.syncTries = 0;
      return this.sync();
    } else if (this.seq === null || frame.seq <= this.seq) return;
    else if (frame.seq !== this.seq + 1) return this.sync(); // one was lost
    this.seq = frame.seq;
    this.isRound = false;
    if (this.detour.isOpen) this.detour.close();
    this.owner.show(frame, body, isReset);
    if (frame.ask) this.owed = frame.seq;
    if (!frame.done) saveOnce(this.model);
  }

  /** The saved state is ahead of the frames where one was lost, or is on its way. */
  lookAtState() {
    const state = readState(this.model);
    this.owner.onState?.(state, this.seq === null);
    if (this.seq === null || !(state.seq > this.seq)) return;
    clearTimeout(this.stateTimer);
    this.stateTimer = setTimeout(() => this.seq !== null && state.seq > this.seq && this.sync(), 300);
  }

  // --- past the kernel ---

  onServer(content, body) {
    if (content.op !== this.op) return this.owner.hearServer?.(content, body);
    this.isRound = true;
    this.owner.show(content, body, Array.isArray(content.reset));
  }

  /** A kernel that is busy, restarted or dead says nothing; what it ran goes on. */
  lookOut() {
    if (this.owner.isOver() || document.hidden || performance.now() - this.heard <= SILENT_MS || this.hasLooked) return;
    this.hasLooked = true;
    this.detour.open();
  }

  /** `isCleared()`: whether somebody has cleared this output, and has not closed the page or removed the cell. */
  dispose(isCleared) {
    this.model.off("msg:custom", this.onMessage);
    this.model.off("change:state", this.onState);
    clearInterval(this.timer);
    for (const timer of [this.syncTimer, this.stateTimer, this.ackTimer]) clearTimeout(timer);
    this.detour.dispose();
    if (!this.owner.isOver()) setTimeout(() => isCleared() && this.send({ op: "cleared", view: this.view }));
  }
}
