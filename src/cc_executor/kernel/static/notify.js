// The bell of a live view: tells somebody who looks elsewhere that a run or a list has ended, or needs somebody. `../widgets.py` puts this before the view.
//
// Nothing is asked of the browser before somebody presses the bell, and nothing is shown while the page is looked at. What is shown are words of this file
// and figures: no text of a prompt, of an agent, or of a list.

const BELL_KEY = "cc_executor.bell"; // whether it is on, in this browser
const TOLD_KEY = "cc_executor.told"; // what this browser has told, the newest last: two tabs tell once
const TOLD_KEPT = 200;
const BELL_NEWS = "cc-executor-bell"; // among the views of one page
const AFTER_SECONDS = 30;
const OUTCOMES = {
  ok: "done", failed: "failed", denied: "failed: a tool was not allowed", auth: "failed: no access", rate_limited: "failed: rate limit",
  usage_limited: "failed: usage limit", budget: "failed: budget used up", max_turns: "failed: too many turns", schema: "failed: no structured result",
  timeout: "failed: timeout", stalled: "failed: stalled", cancelled: "cancelled", crashed: "failed: crashed", lost: "failed: lost", stopped: "stopped",
};

function kept(key) {
  try {
    return localStorage.getItem(key);
  } catch {
    return null; // a browser that keeps nothing
  }
}

function keep(key, value) {
  try {
    localStorage.setItem(key, value);
  } catch {
    // as above: then the bell is off in the next page
  }
}

function lastedText(seconds) {
  const whole = Math.round(seconds);
  const minutes = Math.round(whole / 60);
  if (whole < 60) return `${whole} s`;
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** Calls `tell` unless this browser has told of `what` before. Tabs that come at the same moment take turns. */
function onceHere(what, tell) {
  const look = () => {
    let told = [];
    try {
      told = JSON.parse(kept(TOLD_KEY)) || [];
    } catch {
      // somebody else's words: begin anew
    }
    if (!Array.isArray(told) || told.includes(what)) return;
    keep(TOLD_KEY, JSON.stringify([...told, what].slice(-TOLD_KEPT)));
    tell();
  };
  if (navigator.locks) navigator.locks.request(TOLD_KEY, look).catch(() => {});
  else look();
}

class Bell {
  /** `what`: "Agent run" or "Task list"; `say`: shows a sentence in the view. */
  constructor(model, what, say) {
    this.what = what;
    this.say = say;
    this.name = model.get("title") || what;
    this.waiting = new Set(); // for an answer: what was told, or was looked at
    this.times = new Map(); // how often each has
    this.wasLive = false;
    const given = model.get("notify");
    // A view inside of another one, or one that was told so, has none; nor has a page to which the browser lets nobody tell anything.
    this.isPossible = typeof given === "string" && given !== "off" && "Notification" in window && window.isSecureContext;
    const { after = AFTER_SECONDS, on = ["done", "failed", "input"] } = this.isPossible && given ? JSON.parse(given) : {};
    this.after = after;
    this.on = on;
    this.node = document.createElement("button");
    this.node.type = "button";
    this.node.className = "ccx-button ccx-bell";
    this.node.setAttribute("aria-label", "Tell me when it ends or needs me");
    this.node.append(document.createElement("span")); // drawn by the style sheet
    this.node.hidden = !this.isPossible;
    this.node.addEventListener("click", () => this.press());
    this.redraw = () => this.draw();
    window.addEventListener("storage", this.redraw);
    window.addEventListener(BELL_NEWS, this.redraw);
    this.draw();
  }

  get isOn() {
    return this.isPossible && Notification.permission === "granted" && kept(BELL_KEY) === "on";
  }

  draw() {
    this.node.setAttribute("aria-pressed", String(this.isOn));
    this.node.title = this.isOn
      ? "You are told when this page is not looked at. Press to be told no more, in this browser."
      : `Be told by this browser when something of ${this.after} s or more ends or needs you.`;
  }

  async press() {
    if (this.isOn) keep(BELL_KEY, "off");
    else {
      const leave = Notification.permission === "default" ? await Notification.requestPermission() : Notification.permission;
      if (leave === "granted") keep(BELL_KEY, "on");
      else this.say("The browser does not let this page tell you anything: allow notifications for it in the browser's settings.");
    }
    window.dispatchEvent(new Event(BELL_NEWS));
  }

  /** How a run stands. `isDone`: nothing further comes. */
  hearRun(status, isDone) {
    const outcome = /^([a-z_]+): /.exec(status.detail || "")?.[1];
    const asks = (status.asks || []).map((ask) => ask.id);
    this.hear({ seconds: status.elapsed || 0, cost: status.rehearsal ? null : status.cost, isDone, outcome, asks, key: this.name });
  }

  /** How a list stands. `began`: seconds, the same in every view of this time that it runs. */
  hearList(totals, { seconds, isDone, began, asks }) {
    const cost = totals.rehearsal ? null : totals.spent;
    this.hear({ seconds, cost, isDone, outcome: totals.status, asks, key: `${this.name} ${began}` });
  }

  hear(now) {
    if (!this.isPossible) return;
    clearTimeout(this.timer);
    if (now.isDone) {
      this.node.hidden = true;
      // One that had ended before this page saw it is no news; a view that is left while its run goes on ends without an outcome.
      if (this.wasLive && Object.hasOwn(OUTCOMES, now.outcome) && now.seconds >= this.after) {
        this.tell(now.outcome === "ok" ? "done" : "failed", OUTCOMES[now.outcome], "end", now);
      }
      this.wasLive = false;
      return;
    }
    this.wasLive = true;
    if (now.seconds < this.after) {
      if (now.asks.length) this.timer = setTimeout(() => this.hear({ ...now, seconds: this.after }), (this.after - now.seconds) * 1000);
      return;
    }
    const fresh = now.asks.filter((id) => !this.waiting.has(id));
    this.waiting = new Set(now.asks);
    for (const id of fresh) {
      this.times.set(id, (this.times.get(id) || 0) + 1);
      this.tell("input", "needs you", `${id} ${this.times.get(id)}`, now);
    }
  }

  tell(event, words, what, { seconds, cost, key }) {
    if (!this.isOn || !this.on.includes(event) || (!document.hidden && document.hasFocus())) return;
    const money = cost == null || cost === 0 ? "" : `$${cost.toFixed(cost < 0.1 ? 4 : 2)}`;
    const title = [`${this.what} ${words}`, lastedText(seconds), money].filter(Boolean).join(" · ");
    onceHere(`${key} ${what}`, () => {
      try {
        const shown = new Notification(title, { tag: `${key} ${what}` });
        shown.onclick = () => {
          window.focus();
          shown.close();
        };
      } catch (error) {
        console.debug("cc_executor: this browser shows no notification of a page", error); // on phones, only those of a service worker
      }
    });
  }

  dispose() {
    clearTimeout(this.timer);
    window.removeEventListener("storage", this.redraw);
    window.removeEventListener(BELL_NEWS, this.redraw);
  }
}
