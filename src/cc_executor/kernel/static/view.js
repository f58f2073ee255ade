// The live view of one run. Plain ESM for anywidget: no build step, no dependency, nothing loaded.
//
// The protocol is described in ../../wire/feed.py. Whatever an agent wrote becomes text nodes; the one exception is `html`, which was cleaned where it was
// made (../../model/markdown.py), and which is put in at one place, `setCleanHtml`.
//
// What a view hears, from its kernel or past it, comes through channel.js, which ../widgets.py puts before this text.

const ANSWER_MS = 6000; // after this, a button says that nobody answers
const KERNEL_MS = 1000; // after this, a command that the kernel has not taken goes to the server
const SHOWN_MS = 3000; // after this, a command that was taken and changed nothing (it came late) is no longer waited for
const GUARD_MS = 500; // a double click is one click; and what has just come under the pointer takes none
const ANNOUNCE_MS = 4000; // what a screen reader is told, at most this often
const ANNOUNCE_CHARS = 200;
const TOLD_PHASES = ["retrying", "waiting", "paused", "stopping", "ended"]; // the others come and go with every step
const NEAR_END_PX = 24;
const PAGED_LINES = 10000; // older lines that are held besides the live ones

const PHASES = {
  queued: "Queued", starting: "Starting", requesting: "Waiting for the model", thinking: "Thinking", writing: "Writing", tool: "Running",
  retrying: "Retrying", waiting: "Waiting", asking: "Needs you", paused: "Paused", stopping: "Cancelling…", ended: "Ended",
};
const NUMBERS = new Intl.NumberFormat("en-US");

function element(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

function button(label, className) {
  const node = element("button", `ccx-button ${className || ""}`.trim(), label);
  node.type = "button";
  return node;
}

/** Not `crypto.randomUUID`: a page that came over plain http has none. */
function uniqueId() {
  return Math.random().toString(36).slice(2) + Math.random().toString(36).slice(2);
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Before `node` goes: if the keyboard is in it, `heir` has it now. Else the next key would be nobody's, and a reader's place be lost. */
function yieldFocus(node, heir) {
  if (node?.contains(document.activeElement)) heir.focus({ preventScroll: true });
}

/** Disabled for hand and ear, but still focused: a button that vanishes under the keyboard loses the reader's place. */
function disable(node, isDisabled) {
  if (isDisabled) node.setAttribute("aria-disabled", "true");
  else node.removeAttribute("aria-disabled");
}

/** The only way in for markup: `html` was made by `markdown_html`. */
function setCleanHtml(node, html) {
  node.innerHTML = html;
}

function clockText(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const two = (n) => String(n).padStart(2, "0");
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor((whole % 3600) / 60);
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

function shortNumber(n) {
  return n < 10000 ? NUMBERS.format(n) : n < 1e6 ? `${(n / 1000).toFixed(n < 1e5 ? 1 : 0)}k` : `${(n / 1e6).toFixed(1)}M`;
}

/** Lets no click through for a moment, because what is under the pointer has just come or changed. */
class Guard {
  /** `draw` is called when the moment is over. */
  constructor(draw) {
    this.draw = draw;
    this.isUp = false;
  }

  raise() {
    this.isUp = true;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.isUp = false;
      this.draw();
    }, GUARD_MS);
  }

  dispose() {
    clearTimeout(this.timer);
  }
}

// --- items -----------------------------------------------------------------------------------------------------------

/** One item: its data and, once it was drawn, its node. */
class Row {
  constructor(item) {
    this.item = item;
    this.node = null;
    this.isPaged = false; // it is here because somebody asked for older lines
  }

  update(item) {
    this.item = item.append === undefined
      ? item
      : { ...this.item, text: (this.item.text || "") + item.append, state: item.state, lines: item.lines };
  }

  get lines() {
    return this.item.lines || 1;
  }

  draw() {
    const { item } = this;
    if (!this.node) {
      this.node = element("div");
      this.node.dataset.number = item.number;
    }
    const classes = ["ccx-item", `ccx-${item.kind}`, `ccx-is-${item.state || "done"}`];
    if (item.level) classes.push(`ccx-level-${item.level}`);
    if (item.parent) classes.push("ccx-sub");
    if (item.continues) classes.push("ccx-continues");
    this.node.className = classes.join(" ");
    if (item.kind === "tool") this.drawTool();
    else if (item.kind === "thinking") this.drawThinking();
    else if (item.html === undefined) setText(this.node, item.text || "");
    else if (this.shownHtml !== item.html) setCleanHtml(this.node, item.html);
    this.shownHtml = item.html;
  }

  /** A folded item. What is inside is made when somebody opens it. */
  fold(drawBody) {
    if (this.details) {
      if (this.details.open) drawBody();
      return;
    }
    this.details = element("details", "ccx-details");
    this.summary = element("summary", "ccx-summary");
    this.body = element("div", "ccx-body");
    this.details.append(this.summary, this.body);
    this.details.addEventListener("toggle", () => this.details.open && drawBody());
    this.node.append(this.details);
  }

  drawThinking() {
    this.fold(() => setText(this.body, this.item.text || ""));
    setText(this.summary, this.item.continues ? "Thinking, continued" : this.item.state === "open" ? "Thinking…" : "Thinking");
  }

  drawTool() {
    const { item } = this;
    this.fold(() => this.drawToolBody());
    if (!this.mark) {
      this.mark = element("span", "ccx-mark");
      this.name = element("span", "ccx-name");
      this.about = element("span", "ccx-about");
      this.summary.append(this.mark, this.name, this.about);
    }
    const [mark, said] = { open: ["", "running"], failed: ["✗", "failed"], cut: ["–", "no result"] }[item.state] || ["✓", "done"];
    setText(this.mark, mark);
    this.mark.setAttribute("role", "img");
    this.mark.setAttribute("aria-label", said);
    setText(this.name, item.title || "tool");
    setText(this.about, item.summary || "");
  }

  drawToolBody() {
    const { item } = this;
    if (!this.input) {
      this.input = element("pre", "ccx-pre ccx-input");
      this.result = element("pre", "ccx-pre ccx-result");
      this.input.tabIndex = this.result.tabIndex = 0; // long ones scroll, so the keyboard must reach them
      this.input.setAttribute("aria-label", "Input");
      this.result.setAttribute("aria-label", "Result");
      this.body.append(this.input, this.result);
    }
    setText(this.input, item.input || "");
    setText(this.result, item.text || "");
    this.input.hidden = !item.input;
    this.result.hidden = !item.text;
  }
}

/** The list of items: bounded, in order, drawn once a frame. */
class Log {
  constructor(askForPage) {
    this.askForPage = askForPage;
    this.rows = new Map();
    this.before = new Map(); // what was here before everything was sent anew
    this.isCleared = false;
    this.anchor = null; // what stood at the top for somebody who reads, and where
    this.dirty = new Set();
    this.floor = 0; // older items are in the journal
    this.elided = 0; // lines of these
    this.first = null; // with older pages: the first number that is here
    this.asked = null; // what the page that was asked for joins on to
    this.follows = true;
    this.last = { top: 0, height: 0, client: 0 };

    this.scroller = element("div", "ccx-log");
    this.scroller.tabIndex = 0;
    this.scroller.setAttribute("role", "log");
    this.scroller.setAttribute("aria-label", "Output of the run");
    this.scroller.setAttribute("aria-live", "off"); // a stream read aloud is noise: `Announcer` says what matters, at its own pace
    this.pager = element("div", "ccx-pager");
    this.pagerText = element("span");
    this.pagerButton = button("Show earlier", "ccx-link");
    this.pagerButton.addEventListener("click", () => this.page());
    this.pager.append(this.pagerText, this.pagerButton);
    this.pager.hidden = true;
    this.list = element("div", "ccx-list");
    this.empty = element("div", "ccx-empty", "Nothing yet");
    this.scroller.append(this.pager, this.list, this.empty);
    this.jump = button("Jump to latest ↓", "ccx-jump");
    this.jump.hidden = true;
    this.jump.addEventListener("click", () => this.follow(true));
    this.node = element("div", "ccx-frame");
    this.node.append(this.scroller, this.jump);

    this.scroller.addEventListener("scroll", () => this.onScroll(), { passive: true });
    this.list.addEventListener("click", (event) => {
      if (event.target.closest("summary")) this.follow(false); // who opens something wants to read it
    });
    this.scroller.addEventListener("pointerdown", (event) => {
      const box = this.scroller.getBoundingClientRect();
      if (box.bottom - event.clientY < 18 && box.right - event.clientX < 18) { // the resize handle
        this.scroller.style.height = `${box.height}px`;
        this.scroller.style.maxHeight = "none";
      }
    });
    this.observer = new ResizeObserver(() => this.follows && this.toEnd());
    this.observer.observe(this.scroller);
  }

  dispose() {
    this.observer.disconnect();
    clearTimeout(this.pageTimer);
  }

  /** Everything comes anew. What is the same stays as the reader has left it: open, and where it stood. */
  clear() {
    const top = this.scroller.getBoundingClientRect().top;
    const node = this.follows ? null : [...this.list.children].find((each) => each.getBoundingClientRect().bottom > top);
    if (node) this.anchor = { number: Number(node.dataset.number), top: node.getBoundingClientRect().top };
    this.before = this.rows;
    this.rows = new Map();
    this.dirty.clear();
    this.isCleared = true;
    this.first = null;
  }

  /** The row that showed this item before everything was sent anew. */
  known(item) {
    const row = this.before.get(item.number);
    if (!row || row.item.kind !== item.kind || row.item.input !== item.input) return null;
    this.before.delete(item.number);
    row.update(item);
    return row;
  }

  put(item, isPaged) {
    const row = this.rows.get(item.number);
    if (row && isPaged) return; // what is live is fresher
    if (row) row.update(item);
    else if (item.append !== undefined) throw new Error("a piece of an item that is not here");
    else this.rows.set(item.number, this.known(item) || new Row(item));
    const held = this.rows.get(item.number);
    held.isPaged = Boolean(isPaged);
    this.dirty.add(held);
  }

  remove(number) {
    const row = this.rows.get(number);
    if (!row) return;
    yieldFocus(row.node, this.scroller);
    row.node?.remove();
    this.dirty.delete(row);
    this.rows.delete(number);
  }

  /** Only the journal has it now. Who is reading older pages keeps what joins on to them. */
  elide(number) {
    const row = this.rows.get(number);
    if (!row) {
      if (this.first !== null && number >= this.first) this.letGo(number); // a flood: it came and went unsent, and what is older joins on to nothing
    } else if (this.first !== null && number >= this.first) row.isPaged = true;
    else if (!this.follows && this.first === null) {
      this.first = number;
      row.isPaged = true;
    } else this.remove(number);
  }

  /** Forget the older pages up to `number`. */
  letGo(number) {
    for (const [each, row] of [...this.rows]) if (row.isPaged && each <= number) this.remove(each);
    this.first = number + 1;
  }

  page() {
    if (this.pagerButton.hasAttribute("aria-disabled")) return;
    disable(this.pagerButton, true);
    setText(this.pagerButton, "Reading…");
    this.asked = this.start;
    this.askForPage(this.asked);
    clearTimeout(this.pageTimer);
    this.pageTimer = setTimeout(() => this.drawPager(), ANSWER_MS * 2);
  }

  /** The first number from which on everything is here. */
  get start() {
    return this.first === null ? this.floor : Math.min(this.first, this.floor);
  }

  addPage(first, items) {
    clearTimeout(this.pageTimer);
    // What it was to join on to may have gone meanwhile: everything came anew, or was let go.
    if (this.start !== this.asked || (first >= this.start && items.length === 0)) return this.drawPager();
    this.follow(false);
    const anchor = this.list.firstElementChild;
    const before = anchor ? anchor.getBoundingClientRect().top : 0;
    for (const item of items) this.put(item, true);
    this.first = first;
    this.draw();
    if (anchor) this.scroller.scrollTop += anchor.getBoundingClientRect().top - before;
  }

  boundPages() {
    if (this.first === null) return;
    if (this.follows) {
      for (const [number, row] of [...this.rows]) if (row.isPaged) this.remove(number);
      this.first = null;
      return;
    }
    let lines = 0;
    for (const number of [...this.rows.keys()].sort((a, b) => b - a)) {
      const row = this.rows.get(number);
      if (!row.isPaged) continue;
      lines += row.lines;
      if (lines <= PAGED_LINES) continue;
      this.first = Math.max(this.first, number + 1);
      this.remove(number);
    }
  }

  draw() {
    this.boundPages();
    if (this.isCleared) this.takeOut();
    for (const row of [...this.dirty].sort((a, b) => a.item.number - b.item.number)) {
      row.draw();
      if (!row.node.parentNode) this.place(row.node, row.item.number);
    }
    this.dirty.clear();
    this.empty.hidden = this.rows.size > 0;
    this.drawPager();
    if (this.follows) this.toEnd();
    else if (this.anchor) this.standStill();
  }

  /** What was here and has not come again, or not yet. */
  takeOut() {
    this.isCleared = false;
    for (const node of [...this.list.children]) {
      if (this.rows.get(Number(node.dataset.number))?.node === node) continue;
      yieldFocus(node, this.scroller);
      node.remove();
    }
  }

  standStill() {
    const row = this.rows.get(this.anchor.number);
    if (!row) return; // it may come with the next frame
    this.scroller.scrollTop += row.node.getBoundingClientRect().top - this.anchor.top;
    this.anchor = null;
    this.remember();
  }

  place(node, number) {
    let after = this.list.lastElementChild;
    while (after && Number(after.dataset.number) > number) after = after.previousElementSibling;
    if (after) after.after(node);
    else this.list.prepend(node);
  }

  drawPager() {
    let missing = this.elided;
    for (const row of this.rows.values()) if (row.isPaged) missing -= row.lines;
    const isFull = this.first === null ? 0 : [...this.rows.values()].reduce((sum, row) => sum + (row.isPaged ? row.lines : 0), 0) >= PAGED_LINES;
    if (missing <= 0 || this.start <= 0) yieldFocus(this.pager, this.scroller);
    this.pager.hidden = missing <= 0 || this.start <= 0;
    setText(this.pagerText, `${NUMBERS.format(missing)} more ${missing === 1 ? "line" : "lines"} in the journal`);
    setText(this.pagerButton, "Show earlier");
    disable(this.pagerButton, false);
    if (isFull) yieldFocus(this.pagerButton, this.scroller);
    this.pagerButton.hidden = Boolean(isFull);
  }

  toEnd() {
    if (!this.scroller.clientHeight) return; // in a hidden tab
    this.scroller.scrollTop = this.scroller.scrollHeight;
    this.remember();
  }

  remember() {
    const { scrollTop: top, scrollHeight: height, clientHeight: client } = this.scroller;
    this.last = { top, height, client };
  }

  onScroll() {
    const { scrollTop: top, scrollHeight: height, clientHeight: client } = this.scroller;
    if (!client) return;
    const { last } = this;
    if (height - top - client <= NEAR_END_PX) {
      if (!this.follows && this.dirty.size === 0) this.follow(true);
    } else {
      const byItself = Math.max(0, last.height - height) + Math.max(0, client - last.client); // what shrank, or is seen in a larger box
      if (top < last.top - byItself) this.follow(false); // a person moved up
    }
    this.remember();
  }

  follow(wanted) {
    this.follows = wanted;
    if (wanted) yieldFocus(this.jump, this.scroller);
    this.jump.hidden = wanted;
    if (wanted) this.draw();
  }
}

// --- the status line -------------------------------------------------------------------------------------------------

/** Phase, clock, figures and the buttons. */
class Bar {
  /** `heir`: what has the keyboard when the buttons are gone. */
  constructor(command, rehearsalNote, heir) {
    this.command = command;
    this.heir = heir;
    this.status = {};
    this.at = performance.now();
    this.isDone = false;
    this.waitsFor = null; // what a button has asked for and nobody has confirmed
    this.hasCancelled = false;

    this.node = element("div", "ccx-bar");
    this.dot = element("span", "ccx-dot");
    this.dot.setAttribute("aria-hidden", "true");
    this.phase = element("span", "ccx-phase");
    this.phase.setAttribute("role", "status");
    this.phase.setAttribute("aria-live", "off"); // it changes with every step of the agent; `Announcer` says what matters
    this.clock = element("span", "ccx-clock");
    this.clock.setAttribute("role", "timer");
    this.clock.setAttribute("aria-label", "Elapsed");
    this.tool = element("span", "ccx-doing");
    this.figures = element("span", "ccx-figures");
    this.toggle = button("Pause", "ccx-toggle");
    this.cancel = button("Cancel", "ccx-cancel");
    this.toggle.addEventListener("click", () => this.press(this.toggle, this.isPaused ? "resume" : "pause"));
    this.cancel.addEventListener("click", () => this.press(this.cancel, this.hasCancelled ? "kill" : "cancel"));
    const buttons = element("span", "ccx-buttons");
    buttons.setAttribute("role", "group");
    buttons.setAttribute("aria-label", "Control the run");
    buttons.append(this.toggle, this.cancel);
    this.buttons = buttons;
    const lead = element("span", "ccx-lead");
    lead.append(this.dot, this.phase, this.clock, this.tool);
    this.node.append(lead, this.figures, buttons);
    this.note = element("div", "ccx-note");
    this.note.setAttribute("role", "alert");
    this.note.hidden = true;
    this.rehearsal = rehearsalNote;
    this.timer = setInterval(() => this.drawClock(), 1000);
    this.guard = new Guard(() => this.draw());
    this.draw();
  }

  dispose() {
    clearInterval(this.timer);
    this.guard.dispose();
    this.settle();
  }

  get isPaused() {
    return this.status.phase === "paused";
  }

  get isEnding() {
    return this.status.phase === "stopping" || this.isOver;
  }

  get isOver() {
    return this.isDone || this.status.phase === "ended";
  }

  show(status, isDone) {
    this.status = { phase: "starting", ...status }; // what a frame leaves out is as `ViewStatus` has it by default
    this.at = performance.now();
    this.isDone = Boolean(isDone);
    const { waitsFor } = this;
    if ((waitsFor === "pause" && this.isPaused) || (waitsFor === "resume" && !this.isPaused) || this.isOver || (waitsFor === "cancel" && this.isEnding)) {
      this.settle();
    }
    if (this.isEnding && !this.hasCancelled) {
      this.hasCancelled = true;
      this.guard.raise(); // a Cancel that was on its way when somebody else had cancelled is no Kill
    }
    if (this.isOver) clearInterval(this.timer);
    this.draw();
  }

  press(node, command) {
    if (this.isOver || node.hasAttribute("aria-disabled")) return;
    this.waitsFor = command;
    this.say("");
    if (command === "cancel") {
      this.hasCancelled = true;
      this.guard.raise();
    }
    if (command === "kill") this.hasKilled = true;
    clearTimeout(this.answerTimer);
    this.answerTimer = setTimeout(() => {
      this.settle();
      this.hasKilled = false;
      this.say("The kernel does not answer. In a terminal, cc-executor cancel does the same.");
      this.draw();
    }, ANSWER_MS);
    this.draw();
    this.command(command);
  }

  /** Somebody has taken the command; the status will say what it did. */
  taken() {
    if (this.waitsFor === null) return;
    clearTimeout(this.answerTimer);
    this.answerTimer = setTimeout(() => this.refused(""), SHOWN_MS);
  }

  refused(text) {
    this.settle();
    this.hasKilled = false;
    this.say(text);
    this.draw();
  }

  settle() {
    this.waitsFor = null;
    clearTimeout(this.answerTimer);
  }

  say(text) {
    setText(this.note, text);
    this.note.hidden = !text;
  }

  draw() {
    const { status } = this;
    const pending = { pause: "Pausing…", resume: "Resuming…", cancel: "Cancelling…", kill: "Killing…" }[this.waitsFor];
    const word = this.isOver ? status.detail || PHASES.ended : pending || PHASES[status.phase] || status.phase || "Connecting…";
    setText(this.phase, word);
    this.dot.dataset.phase = this.isOver ? "ended" : this.waitsFor === "cancel" || this.waitsFor === "kill" ? "stopping" : status.phase || "";
    setText(this.tool, this.isOver ? "" : [status.phase === "tool" ? status.tool : "", status.detail].filter(Boolean).join(" · "));
    this.tool.title = this.tool.textContent;
    const tokens = (status.input_tokens || 0) + (status.output_tokens || 0);
    const figures = [
      status.estimate && !this.isOver ? `usually ${status.estimate}` : "",
      tokens ? `${shortNumber(status.input_tokens || 0)} in / ${shortNumber(status.output_tokens || 0)} out` : "",
      status.rehearsal ? "nothing spent" : status.cost == null ? "" : `$${status.cost.toFixed(status.cost < 0.1 ? 4 : 2)}`,
      status.model || "",
    ];
    setText(this.figures, figures.filter(Boolean).join(" · "));
    this.figures.title = this.figures.textContent;
    this.rehearsal.hidden = !status.rehearsal;

    setText(this.toggle, this.waitsFor === "pause" ? "Pausing…" : this.waitsFor === "resume" ? "Resuming…" : this.isPaused ? "Resume" : "Pause");
    disable(this.toggle, this.waitsFor !== null || this.isEnding || this.hasCancelled || !status.phase || status.phase === "queued");
    setText(this.cancel, this.hasKilled ? "Killing…" : this.guard.isUp ? "Cancelling…" : this.hasCancelled ? "Kill now" : "Cancel");
    disable(this.cancel, this.hasKilled || this.guard.isUp);
    if (this.isOver) yieldFocus(this.buttons, this.heir);
    this.toggle.hidden = this.cancel.hidden = this.isOver;
    this.drawClock();
  }

  drawClock() {
    const { elapsed, is_ticking: isTicking } = this.status;
    if (elapsed === undefined && !isTicking) return setText(this.clock, "");
    const since = isTicking && !this.isOver ? (performance.now() - this.at) / 1000 : 0;
    setText(this.clock, clockText((elapsed || 0) + since));
  }
}

// --- what the agent asks ---------------------------------------------------------------------------------------------

/** One request for leave, or a set of questions. Every text of it is the agent's, and becomes a text node. */
class Ask {
  constructor(ask, answer) {
    this.ask = ask;
    this.answer = answer;
    this.node = element("div", `ccx-ask ccx-ask-${ask.kind === "question" ? "question" : "permission"}`);
    this.node.setAttribute("role", "group");
    this.node.dataset.ask = ask.id;
    this.title = element("div", "ccx-ask-title");
    this.title.id = `ccx-${uniqueId()}`;
    this.node.setAttribute("aria-labelledby", this.title.id);
    this.problem = element("div", "ccx-ask-problem");
    this.problem.setAttribute("role", "alert");
    this.problem.hidden = true;
    this.buttons = [];
    this.guard = new Guard(() => this.drawButtons());
    if (ask.kind === "question") this.drawQuestions();
    else this.drawPermission();
    this.shield();
  }

  /** It has come, or moved, under the pointer: a click that was meant for something else answers nothing. */
  shield() {
    this.guard.raise();
    this.drawButtons();
  }

  drawButtons() {
    for (const node of this.buttons) disable(node, this.guard.isUp || this.isSent || (node === this.sender && this.missing >= 0));
  }

  drawPermission() {
    const { ask } = this;
    const edits = ask.body_kind === "diff";
    this.title.append(edits ? "The agent wants to change a file with " : "The agent wants to use ", element("b", "", ask.title));
    this.node.append(this.title);
    if (ask.about) this.node.append(element("div", "ccx-ask-about", ask.about));
    if (ask.body) this.node.append(this.drawBody());
    const row = element("div", "ccx-ask-row");
    const run = this.act("Allow for this run", "", () => this.send({ decision: "allow_run" }));
    run.title = ask.scope || "";
    this.reason = element("input", "ccx-ask-input");
    this.reason.type = "text";
    this.reason.placeholder = "Why not? (the agent sees it)";
    this.reason.setAttribute("aria-label", "Reason to deny, which the agent sees");
    this.reason.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.isComposing) return;
      event.preventDefault();
      this.send({ decision: "deny", text: this.reason.value });
    });
    const deny = this.act("Deny", "ccx-ask-deny", () => this.send({ decision: "deny", text: this.reason.value }));
    row.append(this.act("Allow once", "ccx-ask-first", () => this.send({ decision: "allow" })), run, deny, this.reason);
    const scope = element("div", "ccx-ask-scope");
    if (ask.scope) scope.append("For this run means: ", element("code", "", ask.scope));
    this.node.append(row, scope, this.problem);
  }

  drawBody() {
    const pre = element("pre", "ccx-pre ccx-ask-body");
    pre.tabIndex = 0; // long ones scroll, so the keyboard must reach them
    pre.setAttribute("aria-label", this.ask.body_kind === "diff" ? "What would change" : "What would be done");
    if (this.ask.body_kind !== "diff") {
      pre.textContent = this.ask.body;
      return pre;
    }
    this.ask.body.split("\n").forEach((line, index) => {
      const kind = { "+": "ccx-add", "-": "ccx-del", "@": "ccx-hunk" }[line[0]] || "";
      pre.append(index ? "\n" : "", element("span", kind, line));
    });
    return pre;
  }

  drawQuestions() {
    const { ask } = this;
    this.title.append(element("b", "", ask.title), " asks");
    this.node.append(this.title);
    this.fields = (ask.questions || []).map((question) => {
      const set = element("fieldset", "ccx-ask-set");
      const legend = element("legend", "ccx-ask-legend");
      if (question.header) legend.append(element("span", "ccx-ask-chip", question.header));
      legend.append(question.text);
      if (question.optional) legend.append(" ", element("span", "ccx-ask-quiet", "optional"));
      set.append(legend);
      const name = `ccx-${uniqueId()}`;
      const own = element("input", "ccx-ask-input");
      const choices = (question.options || []).map((option) => {
        const label = element("label", "ccx-ask-option");
        const box = element("input");
        box.type = question.multiple ? "checkbox" : "radio";
        box.name = name;
        box.addEventListener("change", () => {
          if (!question.multiple) own.value = "";
          this.drawButtons();
        });
        const words = element("span");
        words.append(element("span", "ccx-ask-label", option.label));
        if (option.description) words.append(element("span", "ccx-ask-quiet", option.description));
        label.append(box, words);
        set.append(label);
        return { box, label: option.label };
      });
      own.type = "text";
      own.placeholder = choices.length ? "Or in your own words" : "Your answer";
      own.setAttribute("aria-label", `${own.placeholder}: ${question.text}`);
      own.addEventListener("input", () => {
        if (!question.multiple && own.value.trim()) choices.forEach(({ box }) => (box.checked = false));
        this.drawButtons();
      });
      own.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" || event.isComposing) return;
        event.preventDefault();
        this.sendAnswers();
      });
      set.append(own);
      this.node.append(set);
      return { choices, own, optional: question.optional };
    });
    const row = element("div", "ccx-ask-row");
    this.sender = this.act("Send", "ccx-ask-first", () => this.sendAnswers());
    row.append(this.sender, this.act("Do not answer", "ccx-ask-deny", () => this.send({ decision: "deny" })));
    this.node.append(row, this.problem);
  }

  /** What was chosen and typed for each question; where several can be ticked, words of one's own go with them. */
  get answers() {
    return this.fields.map(({ choices, own }) =>
      [...choices.filter(({ box }) => box.checked).map(({ label }) => label), own.value.trim()].filter(Boolean).join(", "));
  }

  /** The first question that wants an answer and has none; -1 where there is no such. */
  get missing() {
    const { answers } = this;
    return this.fields.findIndex(({ optional }, index) => !optional && !answers[index]);
  }

  sendAnswers() {
    const { answers, missing } = this;
    if (missing < 0) return this.send({ decision: "answer", answers });
    this.fields[missing].own.focus();
  }

  act(label, className, press) {
    const node = button(label, className);
    node.addEventListener("click", () => this.guard.isUp || press());
    this.buttons.push(node);
    return node;
  }

  send(said) {
    if (this.isSent) return;
    this.isSent = true;
    this.say("");
    this.node.classList.add("ccx-is-sent");
    this.drawButtons();
    this.timer = setTimeout(() => this.failed("The kernel does not answer. In a terminal, cc-executor answer does the same."), ANSWER_MS);
    this.answer({ ask: this.ask.id, ...said });
  }

  failed(text) {
    clearTimeout(this.timer);
    this.isSent = false;
    this.node.classList.remove("ccx-is-sent");
    this.drawButtons();
    this.say(text);
  }

  say(text) {
    setText(this.problem, text);
    this.problem.hidden = !text;
  }

  dispose() {
    clearTimeout(this.timer);
    this.guard.dispose();
    this.node.remove();
  }
}

/** All that is open. What somebody types in one stays while others come and go. */
class Asks {
  /** `heir`: what has the keyboard when the question that had it is gone. Not the next question: a key that is pressed twice would answer that. */
  constructor(answer, heir) {
    this.answer = answer;
    this.heir = heir;
    this.known = new Map();
    this.node = element("div", "ccx-asks");
    this.node.hidden = true;
    this.spoken = element("div", "ccx-unseen");
    this.spoken.setAttribute("aria-live", "assertive"); // somebody is waited for
  }

  show(asks, isOver) {
    const open = isOver ? [] : asks || [];
    const ids = new Set(open.map((ask) => ask.id));
    let hasMoved = false;
    for (const [id, ask] of [...this.known]) {
      if (ids.has(id)) {
        if (hasMoved) ask.shield();
        continue;
      }
      hasMoved = true;
      yieldFocus(ask.node, this.heir);
      ask.dispose();
      this.known.delete(id);
    }
    for (const ask of open) {
      if (this.known.has(ask.id)) continue;
      const shown = new Ask(ask, this.answer);
      this.known.set(ask.id, shown);
      this.node.append(shown.node);
      setText(this.spoken, `${shown.title.textContent}: ${ask.about || (ask.questions && ask.questions[0].text) || ""}. It needs you.`);
    }
    if (!open.length) setText(this.spoken, "");
    this.node.hidden = !open.length;
  }

  failed(id, text) {
    const ask = this.known.get(id);
    if (ask) ask.failed(text);
  }

  dispose() {
    for (const ask of this.known.values()) ask.dispose();
  }
}

// --- a screen reader's share -----------------------------------------------------------------------------------------

/** Says the newest whole text, tool or notice, not more often than somebody can listen. */
class Announcer {
  constructor() {
    this.node = element("div", "ccx-unseen");
    this.node.setAttribute("aria-live", "polite");
    this.next = "";
    this.word = "";
    this.number = -1;
  }

  /** What the run has come to, and that it goes on again. */
  hearPhase(phase, word) {
    const isTold = phase !== this.phase && (TOLD_PHASES.includes(phase) || TOLD_PHASES.includes(this.phase));
    this.phase = phase;
    if (!isTold) return;
    this.word = word;
    this.later();
  }

  hear(row) {
    const { item, node } = row;
    if (item.number <= this.number || (item.state === "open" && item.kind !== "tool")) return;
    if (!["text", "tool", "notice"].includes(item.kind)) return;
    this.number = item.number;
    this.next = item.kind === "tool" ? `${item.title} ${item.summary || ""}` : (node.textContent || "").trim().slice(0, ANNOUNCE_CHARS);
    this.later();
  }

  later() {
    if (!this.timer) this.timer = setTimeout(() => this.speak(), ANNOUNCE_MS);
  }

  speak() {
    this.timer = null;
    setText(this.node, [this.word, this.next].filter(Boolean).join(". "));
    this.word = this.next = "";
  }

  dispose() {
    clearTimeout(this.timer);
  }
}

// --- one view --------------------------------------------------------------------------------------------------------

function readState(model) {
  try {
    return JSON.parse(model.get("state") || "{}");
  } catch {
    return {};
  }
}

/** `run`: the run's id, where the list that shows this view was told it by whoever has it; `isSilent`: that list's kernel says nothing. */
function render({ model, el, run, isSilent }) {
  const owner = { show, hear, hearServer, onState, schedule, isOver: () => bar.isOver };
  const channel = new Channel(model, owner, { op: "f", pattern: RUN_ID, idOf: (frame) => frame.run });
  const { view, detour } = channel;
  const root = element("div", "ccx");
  root.setAttribute("role", "region");
  root.setAttribute("aria-label", model.get("title") || "Agent run");
  const loseKeys = keepKeys(root);
  const handOn = keepPlace(root);
  const rehearsal = element("div", "ccx-rehearsal", "Rehearsal: scripted model, no real agent speaks, nothing is spent.");
  const log = new Log((before) => (channel.isRound ? detour.page(view, before) : channel.send({ op: "page", view, before })));
  const bar = new Bar(command, rehearsal, log.scroller);
  const asks = new Asks((said) => {
    if (channel.isRound) detour.answer(said).catch((error) => asks.failed(said.ask, error.message));
    else channel.send({ op: "answer", view, ...said });
  }, log.scroller);
  const announcer = new Announcer();
  const bell = new Bell(model, "Agent run", (text) => bar.say(text));
  bar.buttons.append(bell.node);
  root.append(bar.node, rehearsal, bar.note, log.node, asks.node, asks.spoken, announcer.node);
  el.replaceChildren(root);

  let painting = 0;
  let clicks = 0;
  let clickTimer = null;
  let cell = null; // of a notebook, that shows this output

  /** One click. It names the pauses that were seen, and may arrive by both ways, or late: the run obeys it once, and not after a later pause. */
  function command(name) {
    const said = { command: name, pauses: bar.status.pauses || 0 };
    clicks += 1;
    clearTimeout(clickTimer);
    if (channel.isRound) return goRound(said);
    channel.send({ op: "command", ...said, view, click: `${view} ${clicks}` });
    clickTimer = setTimeout(() => goRound(said), KERNEL_MS);
  }

  function goRound(said) {
    if (!detour.isPossible) return; // then the kernel may yet take it
    detour.control({ op: said.command, pauses: said.pauses }).then(
      () => {
        bar.taken();
        detour.open();
      },
      (error) => error.message && bar.refused(error.message),
    );
  }

  function isMine(click) {
    return click == null || click === `${view} ${clicks}`;
  }

  function schedule() {
    if (!painting) painting = requestAnimationFrame(paint);
  }

  function paint() {
    painting = 0;
    cell ||= el.closest(".jp-Cell");
    const fresh = [...log.dirty];
    log.draw();
    fresh.forEach((row) => announcer.hear(row));
    channel.acknowledge();
  }

  function show(frame, body, isReset) {
    if (isReset) log.clear();
    log.floor = frame.floor;
    log.elided = frame.elided;
    for (const number of body.withdrawn || []) log.remove(number);
    for (const number of body.elided || []) log.elide(number);
    for (const item of body.items || []) log.put(item, false);
    bar.show(frame.status || {}, frame.done);
    asks.show(frame.status?.asks, bar.isOver);
    bell.hearRun(frame.status || {}, frame.done);
    announcer.hearPhase(bar.isOver ? "ended" : bar.status.phase, bar.phase.textContent);
    schedule();
  }

  function hear(content, buffers) {
    if (content.op === "p") hearServer(content, bodyOf(buffers));
    else if (content.op === "unanswered") asks.failed(content.ask, content.text || "It was not taken.");
    else if (content.op === "taken" || content.op === "refused") {
      if (!isMine(content.click)) return; // another view's, or so late that it no longer matters
      clearTimeout(clickTimer);
      if (content.op === "taken") bar.taken();
      else if (!bar.isOver) bar.refused(content.text || "The run does not answer.");
    }
  }

  /** A page of older lines. */
  function hearServer(content, body) {
    if (content.op === "p" && content.to === view) log.addPage(content.first, body.items || []);
  }

  function onState(state, isAlone) {
    if (!state.status) return;
    bell.hearRun(state.status, state.done); // the end may be here before its frame, which a hidden page gets late
    if (isAlone) bar.show(state.status, state.done);
  }

  channel.open();
  if (run) detour.meet(run);
  if (isSilent) detour.open();

  return () => {
    channel.dispose(() => !run && cell?.isConnected);
    loseKeys();
    handOn();
    cancelAnimationFrame(painting);
    clearTimeout(clickTimer);
    bar.dispose();
    asks.dispose();
    log.dispose();
    announcer.dispose();
    bell.dispose();
  };
}

export default { initialize, render };
