// The way to a run or a list past its kernel: the Jupyter server that has served this page. `../widgets.py` puts this before the view of a run.
//
// Nothing here is asked before a live kernel has told the view what it shows and has then fallen silent, or has not answered a click. Whether the server has
// the extension stands in the page, so that no request is made to find out. What it allows is decided there: the page's cookie, and whose run it is.

const RUN_ID = /^[0-9a-f]{26}$/;
const LIST_ID = /^[0-9a-f]{20}-[0-9]{1,6}$/;
const SAID = [400, 409, 429, 503]; // answers whose sentence is for people
const RECONNECT_MS = [1000, 2000, 5000, 10000, 30000]; // then the next click tries again

/** Where the server's addresses begin; null where the page does not say that it has the extension, or is another's. */
function serverBase() {
  try {
    const config = JSON.parse(document.getElementById("jupyter-config-data").textContent);
    const base = new URL(config.baseUrl.replace(/\/?$/, "/"), location.href);
    return config.ccExecutor === true && base.origin === location.origin ? base : null;
  } catch {
    return null;
  }
}

function cookie(name) {
  const found = document.cookie.split("; ").find((each) => each.startsWith(`${name}=`));
  return found ? found.slice(name.length + 1) : "";
}

class Detour {
  /** `onFrame(content, body)` is called with what a kernel would have sent; `pattern` is that of an id. */
  constructor(onFrame, pattern) {
    this.onFrame = onFrame;
    this.pattern = pattern;
    this.id = null;
    this.base = null;
    this.socket = null;
    this.timer = null;
    this.tries = 0;
    this.subscription = null;
    this.calls = 0;
    this.pending = new Map();
  }

  /** A live kernel has said which run or list it is. */
  meet(id) {
    if (this.id !== null || typeof id !== "string" || !this.pattern.test(id)) return;
    this.id = id;
    this.base = serverBase();
  }

  get isPossible() {
    return this.id !== null && this.base !== null;
  }

  get isOpen() {
    return this.socket !== null || this.timer !== null;
  }

  /** Gives a command, as `POST /executions/ID/control` takes it; rejects with a sentence for people, or an empty one where there is no way here. */
  async control(command) {
    const url = new URL(`cc-executor/api/v1/executions/${this.id}/control`, this.base);
    const headers = { "Content-Type": "application/json", "X-XSRFToken": cookie("_xsrf") };
    const answer = await fetch(url, { method: "POST", credentials: "same-origin", headers, body: JSON.stringify(command) }).catch(() => null);
    if (answer?.ok) return;
    if (answer?.status === 403 || answer?.status === 404) this.base = null; // not allowed, or nothing of this server: it will not become one
    const told = await answer?.json().catch(() => null);
    throw new Error((SAID.includes(answer?.status) && told?.error?.message) || "");
  }

  /** Has the frames sent from there on, until `close`. */
  open() {
    if (!this.isPossible || this.isOpen) return;
    const url = new URL("cc-executor/ws", this.base);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(url);
    this.socket = socket;
    socket.addEventListener("open", () => socket === this.socket && this.watch());
    socket.addEventListener("message", (event) => socket === this.socket && this.onMessage(JSON.parse(event.data)));
    socket.addEventListener("close", () => socket === this.socket && this.onClose());
  }

  close() {
    const { socket } = this;
    this.forget();
    this.tries = 0;
    clearTimeout(this.timer);
    this.timer = null;
    socket?.close();
  }

  /** Nobody looks any more: what is still answered opens nothing. */
  dispose() {
    this.base = null;
    this.close();
  }

  watch() {
    this.call("watch", { id: this.id }).then(
      ({ subscription }) => {
        this.subscription = subscription;
      },
      () => {
        this.base = null; // there is no such thing for us
        this.close();
      },
    );
  }

  /** Has older lines sent among the frames. */
  page(view, before) {
    this.call("page", { subscription: this.subscription, view, before }).catch(() => {});
  }

  /** Answers a question of the agent; rejects with a sentence. */
  answer(said) {
    return this.call("answer", { subscription: this.subscription, ...said });
  }

  /** What is inside of a task. */
  detail(task) {
    return this.call("detail", { subscription: this.subscription, task });
  }

  call(method, params) {
    return new Promise((resolve, reject) => {
      if (this.socket?.readyState !== WebSocket.OPEN) return reject(new Error("The server does not answer."));
      this.calls += 1;
      this.pending.set(this.calls, { resolve, reject });
      this.socket.send(JSON.stringify({ jsonrpc: "2.0", id: this.calls, method, params }));
    });
  }

  onMessage({ id, method, params, result, error }) {
    if (method === "frame") {
      this.tries = 0;
      this.onFrame(params.content, JSON.parse(params.body));
    } else if (method === "end") this.close(); // its folder was removed
    else {
      const { resolve, reject } = this.pending.get(id) || {};
      this.pending.delete(id);
      if (error) reject?.(new Error(error.message));
      else resolve?.(result);
    }
  }

  onClose() {
    this.forget();
    if (this.tries >= RECONNECT_MS.length) return;
    this.timer = setTimeout(() => {
      this.timer = null;
      this.open();
    }, RECONNECT_MS[this.tries]);
    this.tries += 1;
  }

  forget() {
    this.socket = this.subscription = null;
    this.pending.clear(); // nobody waits for long: what is shown says what was done
  }
}
