// The live view of a task list. Plain ESM for anywidget; `RunView`, the view of one run (view.js), is put before this text by ../taskview.py.
//
// The protocol is described in ../../wire/taskfeed.py and ../taskview.py. Whatever an agent or a list wrote becomes text nodes.

const { element, button, uniqueId, setText, disable, yieldFocus, clockText, shortNumber, Bell, Channel, Guard, keepKeys, keepPlace, LIST_ID, ANSWER_MS, KERNEL_MS, SHOWN_MS } = RunView;

const ANNOUNCE_MS = 2500; // what a screen reader is told, at most this often

const WORDS = { waiting: "Waiting", running: "Running", ok: "Done", failed: "Failed", skipped: "Skipped", stopped: "Stopped" };
const ICONS = { waiting: "○", running: "", paused: "‖", asking: "?", ok: "✓", failed: "✗", skipped: "–", stopped: "■" };
const WISHES = { stop: "Stopping…", skip: "Skipping…" };
// What a run does that has written nothing yet.
const PHASES = { starting: "starting", requesting: "waiting for the model", thinking: "thinking", waiting: "waiting" };
const KINDS = { agent: "agent", shell: "command", call: "Python" };
const ACTIONS = { now: "Go on", edit: "Edit", skip: "Skip", retry: "Retry", stop: "Stop" };
const PENDING = { now: "Going on…", skip: "Skipping…", retry: "Again…", stop: "Stopping…" };

function money(cost) {
  return `$${cost.toFixed(cost < 0.1 && cost > 0 ? 4 : 2)}`;
}

function plural(count, noun) {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

// --- an opened run ---------------------------------------------------------------------------------------------------

/** What the view of a run takes for its model; its messages travel inside the list's. */
class RunModel {
  constructor(outer, run) {
    this.outer = outer;
    this.run = run;
    this.handlers = new Map();
    this.values = { title: `Run ${run}`, save_on_start: false, state: "{}" };
  }

  get(name) {
    return this.values[name];
  }

  set() {}

  send(content) {
    this.outer.send({ op: "run", run: this.run, content });
  }

  on(name, handler) {
    this.handlers.set(name, handler);
  }

  off(name) {
    this.handlers.delete(name);
  }

  receive(content, buffers) {
    this.handlers.get("msg:custom")?.(content, buffers);
  }
}

// --- one task --------------------------------------------------------------------------------------------------------

class TaskRow {
  constructor(list, row) {
    this.list = list;
    this.row = row;
    this.at = performance.now();
    this.pending = null; // a command that nobody has confirmed
    this.draft = null; // a text that was sent and that nobody has taken
    this.isOpen = false;
    this.run = null; // the opened run
    this.guard = new Guard(() => this.draw());
    this.make();
  }

  make() {
    const { row } = this;
    this.node = element("li", "ccx-task");
    const head = element("div", "ccx-task-head");
    this.number = element("span", "ccx-task-number", String(row.number));
    this.state = element("span", "ccx-task-state");
    this.icon = element("span", "ccx-task-icon");
    this.icon.setAttribute("aria-hidden", "true");
    this.word = element("span", "ccx-task-word");
    this.state.append(this.icon, this.word);
    const what = element("div", "ccx-task-what");
    this.title = button("", "ccx-task-title");
    this.title.setAttribute("aria-expanded", "false");
    this.title.tabIndex = -1;
    this.name = element("span", "ccx-task-name", row.title || row.id);
    this.title.append(this.name);
    if (row.title && row.title !== row.id) this.title.append(element("span", "ccx-task-id", row.id));
    this.edited = element("span", "ccx-task-tag", "edited");
    this.attempt = element("span", "ccx-task-tag");
    const first = element("div", "ccx-task-first");
    first.append(this.title, this.edited, this.attempt);
    if (row.needs.length) {
      const needs = `${row.needs.join(", ")}${row.more_needs ? ` and ${row.more_needs} more` : ""}`;
      const node = element("span", "ccx-task-needs", `← ${needs}`);
      node.title = `needs ${needs}`;
      node.setAttribute("role", "note");
      node.setAttribute("aria-label", `needs ${needs}`);
      first.append(node);
    }
    this.line = element("div", "ccx-task-line");
    what.append(first, this.line);
    this.clock = element("span", "ccx-task-clock");
    this.figures = element("span", "ccx-task-figures");
    this.actions = element("span", "ccx-task-actions");
    this.actions.setAttribute("role", "group");
    this.actions.setAttribute("aria-label", `Control task ${row.id}`);
    this.buttons = {};
    for (const [command, label] of Object.entries(ACTIONS)) {
      const node = button(label, `ccx-task-button ccx-${command}`);
      node.hidden = true;
      node.tabIndex = -1;
      node.setAttribute("aria-label", `${label} ${row.id}`);
      node.addEventListener("click", () => this.press(command));
      this.buttons[command] = node;
      this.actions.append(node);
    }
    const side = element("span", "ccx-task-side");
    side.append(this.clock, this.figures);
    head.append(this.number, this.state, what, side, this.actions);
    this.body = element("div", "ccx-task-body");
    this.body.hidden = true;
    this.body.id = `ccx-${uniqueId()}`;
    this.title.setAttribute("aria-controls", this.body.id);
    this.title.addEventListener("click", () => this.open(!this.isOpen));
    this.node.append(head, this.body);
    this.node.addEventListener("focusin", () => {
      this.list.makeCurrent(this);
      this.list.graph?.mark(row.id);
    });
    this.title.addEventListener("keydown", (event) => this.list.onKey(event, this));
  }

  update(row) {
    const before = this.row;
    this.row = { ...before, ...row };
    this.at = performance.now();
    if (this.pending && (this.row.status !== before.status || this.row.wish !== before.wish || this.row.attempt !== before.attempt || this.row.until !== before.until)) this.settle();
    if (this.isOpen && (row.run_id !== undefined || row.is_edited !== undefined || row.status !== undefined)) this.fill();
  }

  get shownState() {
    return this.row.status === "running" && ["paused", "asking"].includes(this.row.phase) ? this.row.phase : this.row.status;
  }

  get said() {
    const { row } = this;
    if (row.wish) return WISHES[row.wish] || "";
    if (this.shownState === "paused") return "Paused";
    if (this.shownState === "asking") return "Needs you";
    if (row.status === "running" && row.phase === "ended" && this.list.head.isAlone) return "Over"; // its run; nobody writes down what became of the task
    if (row.is_validated) return "Validating";
    if (row.status === "running" && row.phase === "retrying") return "Retrying";
    return WORDS[row.status] || row.status;
  }

  draw() {
    const { row } = this;
    this.node.dataset.status = this.shownState;
    setText(this.icon, ICONS[this.shownState] ?? "");
    setText(this.word, this.said);
    const line = row.line || (row.status !== "running" ? "" : row.kind === "agent" ? PHASES[row.phase] || "" : row.kind === "shell" ? "no output yet" : "");
    setText(this.line, line);
    this.line.title = line;
    this.edited.hidden = !row.is_edited;
    this.attempt.hidden = row.attempt < 2;
    setText(this.attempt, `attempt ${row.attempt}`);
    const cost = row.rehearsal ? (row.attempt ? "rehearsal" : "") : row.cost == null ? "" : money(row.cost);
    const tokens = row.tokens ? `${shortNumber(row.tokens)} tok` : "";
    const usual = row.estimate ? `usually ${row.estimate}` : "";
    setText(this.figures, [usual, cost, tokens].filter(Boolean).join(" · "));
    const can = row.can || [];
    for (const [command, node] of Object.entries(this.buttons)) {
      const isPending = this.pending === command;
      const isShown = isPending || can.includes(command);
      if (!isShown) yieldFocus(node, this.title);
      node.hidden = !isShown;
      setText(node, isPending ? PENDING[command] : ACTIONS[command]);
      disable(node, this.pending !== null || this.guard.isUp);
    }
    this.drawClock();
  }

  drawClock() {
    const { row } = this;
    const since = row.is_ticking && !this.list.isDone ? (performance.now() - this.at) / 1000 : 0;
    const seconds = (row.elapsed || 0) + since;
    if (row.until != null) {
      const left = row.until - this.list.kernelNow();
      setText(this.clock, left > 0 ? `in ${clockText(left)}` : "now");
      return;
    }
    const isShown = row.is_ticking || (seconds > 0 && row.status !== "waiting");
    setText(this.clock, !isShown ? "" : row.is_ticking || seconds >= 10 ? clockText(seconds) : `${seconds.toFixed(1)} s`);
  }

  press(command) {
    if (this.pending || this.guard.isUp) return;
    if (command === "edit") return this.edit();
    this.begin(command);
    this.list.command(command, this.row.id);
  }

  begin(command) {
    this.pending = command;
    this.guard.raise(); // a double click on Skip is no Retry
    this.list.say("");
    clearTimeout(this.answerTimer);
    this.answerTimer = setTimeout(() => {
      this.settle();
      this.list.say(`Nobody answers for task ${this.row.id}.`);
      this.draw();
    }, ANSWER_MS);
    this.draw();
  }

  settle() {
    this.pending = null;
    clearTimeout(this.answerTimer);
  }

  // --- what is inside of it ---

  open(wanted) {
    this.isOpen = wanted;
    if (!wanted) yieldFocus(this.body, this.title);
    this.body.hidden = !wanted;
    this.title.setAttribute("aria-expanded", String(wanted));
    if (wanted) this.fill();
    else this.shut();
  }

  fill() {
    if (!this.facts) {
      this.facts = element("div", "ccx-task-facts");
      this.form = element("div", "ccx-task-form");
      this.form.hidden = true;
      this.text = element("pre", "ccx-pre ccx-task-text");
      this.text.tabIndex = 0;
      this.text.setAttribute("aria-label", `Text of task ${this.row.id}`);
      this.made = element("pre", "ccx-pre ccx-task-made");
      this.made.tabIndex = 0;
      this.made.setAttribute("aria-label", `What task ${this.row.id} has made`);
      this.made.hidden = true;
      this.place = element("div", "ccx-task-run");
      this.body.append(this.facts, this.form, this.text, this.made, this.place);
    }
    this.list.askDetail(this.row.id);
    const wanted = this.row.run_id || null;
    if (wanted === (this.run && this.run.run)) return;
    this.shut();
    if (!wanted) return;
    this.run = new RunModel(this.list.model, wanted);
    this.list.runs.set(wanted, this);
    this.list.channel.send({ op: "open", run: wanted, view: this.list.channel.view });
    this.endRun = RunView.render({ model: this.run, el: this.place, run: wanted, isSilent: this.list.channel.isRound });
  }

  shut() {
    if (!this.run) return;
    yieldFocus(this.place, this.title);
    this.endRun();
    this.list.runs.delete(this.run.run);
    this.list.channel.send({ op: "close", run: this.run.run, view: this.list.channel.view });
    this.run = null;
    this.place.replaceChildren();
  }

  detail(detail) {
    if (!this.facts) return;
    this.whole = detail;
    const options = Object.entries(detail.options || {}).map(([name, value]) => `${name.replaceAll("_", " ")}: ${value}`);
    const parts = [KINDS[detail.kind] || detail.kind, detail.needs.length ? `needs ${detail.needs.join(", ")}` : "", ...options];
    setText(this.facts, parts.filter(Boolean).join(" · "));
    setText(this.text, detail.text + (detail.is_cut ? "\n…" : ""));
    setText(this.made, detail.made || "");
    this.made.hidden = !detail.made;
    if (this.wantsEdit) this.showForm();
  }

  edit() {
    this.wantsEdit = true;
    if (!this.isOpen) this.open(true);
    else if (this.whole) this.showForm();
  }

  showForm() {
    this.wantsEdit = false;
    if (this.whole.is_cut) return this.list.say(`The text of task ${this.row.id} is too long to be edited here.`);
    if (!this.form.hidden) return;
    const field = element("textarea", "ccx-task-field");
    field.value = this.draft?.text ?? this.whole.text;
    field.rows = Math.min(16, Math.max(3, this.whole.text.split("\n").length + 1));
    field.setAttribute("aria-label", `New text of task ${this.row.id}`);
    const save = button("Save", "ccx-task-button");
    const cancel = button("Leave as it was", "ccx-task-button");
    const leave = () => {
      this.form.hidden = true;
      this.form.replaceChildren();
      this.text.hidden = false;
      (this.buttons.edit.hidden ? this.title : this.buttons.edit).focus();
    };
    save.addEventListener("click", () => {
      this.list.say("");
      this.draft = { text: field.value, click: this.list.command("edit", this.row.id, field.value) };
      leave();
    });
    cancel.addEventListener("click", leave);
    field.addEventListener("keydown", (event) => {
      event.stopPropagation();
      if (event.key === "Escape") leave();
    });
    this.draft = null;
    const buttons = element("div", "ccx-task-formbuttons");
    buttons.append(save, cancel);
    this.form.replaceChildren(field, buttons);
    this.form.hidden = false;
    this.text.hidden = true;
    field.focus();
  }

  taken(click) {
    if (this.draft?.click === click) this.draft = null;
  }

  /** Nothing that was typed is lost: the form is there again. */
  refused(click) {
    this.settle();
    this.draw();
    if (this.draft && this.draft.click === click) this.edit(); // what is no press, as the question for a text, has no name
  }

  dispose() {
    clearTimeout(this.answerTimer);
    this.guard.dispose();
    this.shut();
  }
}

// --- the head --------------------------------------------------------------------------------------------------------

class Head {
  constructor(list) {
    this.list = list;
    this.totals = {};
    this.pending = null;
    this.guard = new Guard(() => this.draw());
    this.elapsed = 0;
    this.at = performance.now();
    this.node = element("div", "ccx-bar");
    this.dot = element("span", "ccx-dot");
    this.dot.setAttribute("aria-hidden", "true");
    this.word = element("span", "ccx-phase", "Connecting…");
    this.clock = element("span", "ccx-clock");
    this.clock.setAttribute("role", "timer");
    this.clock.setAttribute("aria-label", "Elapsed");
    this.clock.setAttribute("aria-live", "off");
    this.name = element("span", "ccx-doing");
    const lead = element("span", "ccx-lead");
    lead.append(this.dot, this.word, this.clock, this.name);
    this.figures = element("span", "ccx-figures");
    this.toggle = button("Pause", "ccx-toggle");
    this.stop = button("Stop", "ccx-cancel");
    this.toggle.addEventListener("click", () => this.press(this.toggle, this.totals.is_paused || this.isAlone ? "resume" : "pause"));
    this.stop.addEventListener("click", () => this.press(this.stop, this.hasStopped ? "kill" : "stop"));
    const buttons = element("span", "ccx-buttons");
    buttons.setAttribute("role", "group");
    buttons.setAttribute("aria-label", "Control the list");
    buttons.append(this.toggle, this.stop);
    this.buttons = buttons;
    this.node.append(lead, buttons);

    this.bars = element("div", "ccx-bars");
    this.progress = element("div", "ccx-progress");
    this.progress.setAttribute("role", "progressbar");
    this.progress.setAttribute("aria-label", "Tasks that have ended");
    this.parts = {};
    for (const name of ["ok", "failed", "stopped", "skipped", "running"]) {
      this.parts[name] = element("span", `ccx-part ccx-part-${name}`);
      this.progress.append(this.parts[name]);
    }
    this.budget = element("div", "ccx-budget");
    this.budget.hidden = true;
    this.budgetText = element("span", "ccx-budget-text");
    this.budgetBar = element("div", "ccx-budget-bar");
    this.budgetBar.setAttribute("role", "meter");
    this.budgetBar.setAttribute("aria-label", "Budget");
    this.budgetFill = element("span", "ccx-part");
    this.budgetBar.append(this.budgetFill);
    this.budget.append(this.budgetBar, this.budgetText);
    const numbers = element("div", "ccx-numbers");
    numbers.append(this.figures, this.budget);
    this.bars.append(this.progress, numbers);
  }

  /** `elapsed`: seconds by the clock of whoever speaks; undefined: ours goes on. */
  show(totals, elapsed) {
    const before = this.totals;
    this.elapsed = elapsed ?? this.seconds;
    this.totals = totals;
    this.at = performance.now();
    const { pending } = this;
    if ((pending === "pause" && totals.is_paused) || (pending === "resume" && !totals.is_paused) || (pending === "stop" && totals.is_stopping)) this.settle();
    if (totals.is_stopping && !this.hasStopped) {
      this.hasStopped = true;
      this.guard.raise(); // a Stop that was on its way when somebody else had stopped it is no Kill
    } else if (!totals.is_stopping && before.is_stopping) this.hasStopped = this.hasKilled = false;
    this.draw();
  }

  settle() {
    this.pending = null;
    clearTimeout(this.answerTimer);
  }

  press(node, command) {
    if (this.list.isDone || node.hasAttribute("aria-disabled")) return;
    this.pending = command;
    this.list.say("");
    if (command === "stop") {
      this.hasStopped = true;
      this.guard.raise();
    }
    if (command === "kill") this.hasKilled = true;
    clearTimeout(this.answerTimer);
    this.answerTimer = setTimeout(() => {
      this.settle();
      this.hasKilled = false;
      this.list.say("The kernel does not answer. In a terminal, cc-executor tasks does the same.");
      this.draw();
    }, ANSWER_MS);
    this.draw();
    this.list.command(command, "");
  }

  /** Nobody runs the list. */
  get isAlone() {
    return Boolean(this.totals.alone);
  }

  get seconds() {
    return this.elapsed + (this.phase === "ended" ? 0 : (performance.now() - this.at) / 1000);
  }

  /** The list has the command; what ends may take its time, as where a hook is waited for. */
  taken() {
    if (this.pending === null) return;
    clearTimeout(this.answerTimer);
    this.answerTimer = setTimeout(() => {
      this.settle();
      this.hasKilled = false;
      this.draw();
    }, SHOWN_MS);
  }

  refused() {
    this.settle();
    this.hasKilled = this.hasStopped = false;
    this.draw();
  }

  get phase() {
    const { totals } = this;
    if (this.list.isDone || totals.status !== "open") return "ended";
    if (totals.is_stopping || this.pending === "stop" || this.pending === "kill") return "stopping";
    if (this.isAlone) return "alone";
    return totals.is_paused ? "paused" : totals.running ? "tool" : totals.until != null ? "waiting" : "starting";
  }

  draw() {
    const { totals, phase } = this;
    const isOver = phase === "ended";
    const pending = { pause: "Pausing…", resume: "Resuming…", stop: "Stopping…", kill: "Killing…" }[this.pending];
    const ended = { ok: "Done", failed: "Failed", stopped: "Stopped", budget: "Budget used up", usage_limited: "Usage limit reached" }[totals.status] || "Ended";
    setText(this.word, isOver ? ended : pending || { stopping: "Stopping…", paused: "Paused", alone: "Interrupted", tool: "Running", waiting: "Waiting", starting: "Starting" }[phase]);
    this.dot.dataset.phase = phase;
    setText(this.name, totals.name || "");
    this.name.title = totals.name || "";
    const figures = [
      `${totals.ok} of ${totals.count} done`,
      totals.failed ? `${totals.failed} failed` : "",
      totals.stopped ? `${totals.stopped} stopped` : "",
      totals.skipped ? `${totals.skipped} skipped` : "",
      totals.running ? `${totals.running} running` : "",
      totals.tokens ? `${shortNumber(totals.tokens)} tokens` : "",
      totals.rehearsal ? (totals.max_cost == null ? "rehearsal, nothing spent" : "rehearsal") : totals.spent && totals.max_cost == null ? money(totals.spent) : "",
    ];
    setText(this.figures, figures.filter(Boolean).join(" · "));
    const over = totals.ok + totals.failed + totals.stopped + totals.skipped;
    this.progress.setAttribute("aria-valuemin", "0");
    this.progress.setAttribute("aria-valuemax", String(totals.count));
    this.progress.setAttribute("aria-valuenow", String(over));
    this.progress.setAttribute("aria-valuetext", `${over} of ${plural(totals.count, "task")}`);
    for (const [name, node] of Object.entries(this.parts)) node.style.width = `${(100 * (totals[name] || 0)) / Math.max(1, totals.count)}%`;
    this.budget.hidden = totals.max_cost == null;
    if (totals.max_cost != null) {
      const share = Math.min(1, totals.spent / totals.max_cost);
      setText(this.budgetText, `${money(totals.spent)} of ${money(totals.max_cost)}`);
      this.budgetBar.setAttribute("aria-valuemin", "0");
      this.budgetBar.setAttribute("aria-valuemax", String(totals.max_cost));
      this.budgetBar.setAttribute("aria-valuenow", String(Math.min(totals.spent, totals.max_cost)));
      this.budgetBar.setAttribute("aria-valuetext", `${this.budgetText.textContent} spent`);
      this.budgetFill.style.width = `${100 * share}%`;
      this.budgetBar.dataset.level = share >= 1 ? "full" : share > 0.8 ? "high" : "";
    }
    setText(this.toggle, this.pending === "pause" ? "Pausing…" : this.pending === "resume" ? "Resuming…" : this.isAlone ? "Continue" : totals.is_paused ? "Resume" : "Pause");
    disable(this.toggle, this.pending !== null || phase === "stopping" || Boolean(this.hasStopped));
    setText(this.stop, this.hasKilled ? "Killing…" : this.guard.isUp ? "Stopping…" : this.hasStopped ? "Kill now" : "Stop");
    disable(this.stop, Boolean(this.hasKilled || this.guard.isUp));
    if (isOver) yieldFocus(this.buttons, this.list.current.title);
    this.stop.hidden = isOver;
    const isToggled = !isOver && (!this.isAlone || totals.can_continue);
    if (!isToggled) yieldFocus(this.toggle, this.stop);
    this.toggle.hidden = !isToggled;
    this.drawClock();
  }

  drawClock() {
    setText(this.clock, clockText(this.seconds));
  }

  dispose() {
    this.guard.dispose();
    this.settle();
  }
}

/** Says what tasks have become, not more often than somebody can listen. The only live region of the list. */
class Announcer {
  constructor() {
    this.node = element("div", "ccx-unseen");
    this.node.setAttribute("aria-live", "polite");
    this.news = new Map();
  }

  hear(row) {
    this.news.set(row.row.id, `${row.row.title || row.row.id}: ${row.said}`);
    this.later();
  }

  say(text) {
    this.end = text;
    this.later();
  }

  later() {
    if (!this.timer) this.timer = setTimeout(() => this.speak(), ANNOUNCE_MS);
  }

  speak() {
    this.timer = null;
    const news = [...this.news.values()];
    const said = news.length > 3 ? [`${news.length} tasks have changed, the last is ${news[news.length - 1]}`] : news;
    setText(this.node, [...said, this.end].filter(Boolean).join(". "));
    this.news.clear();
    this.end = "";
  }

  dispose() {
    clearTimeout(this.timer);
  }
}

// --- the list --------------------------------------------------------------------------------------------------------

class List {
  constructor(model, el) {
    this.model = model;
    this.channel = new Channel(model, this, { op: "t", pattern: LIST_ID, idOf: (frame) => frame.totals.list_id });
    this.rows = new Map();
    this.runs = new Map();
    this.dirty = new Set();
    this.isDone = false;
    this.cell = null; // of a notebook, that shows this output
    this.told = "";
    this.clicks = 0;
    this.untaken = new Map(); // presses that the kernel has not taken yet
    this.follows = true; // the running task stays in sight, until somebody scrolls

    this.root = element("div", "ccx ccx-tasks");
    this.root.setAttribute("role", "region");
    this.root.setAttribute("aria-label", model.get("title") || "Task list");
    this.loseKeys = keepKeys(this.root);
    this.handOn = keepPlace(this.root);
    this.head = new Head(this);
    this.note = element("div", "ccx-note");
    this.note.setAttribute("role", "alert");
    this.note.hidden = true;
    this.scroller = element("div", "ccx-tasks-scroller");
    this.node = element("ol", "ccx-tasks-list");
    this.node.setAttribute("aria-label", "Tasks");
    this.scroller.append(this.node);
    for (const event of ["wheel", "pointerdown", "touchmove", "keydown"]) {
      this.scroller.addEventListener(event, () => (this.follows = false), { passive: true });
    }
    this.announcer = new Announcer();
    this.bell = new Bell(model, "Task list", (text) => this.say(text));
    this.head.buttons.append(this.bell.node);
    this.root.append(this.head.node, this.head.bars, this.note, this.scroller, this.announcer.node);
    el.replaceChildren(this.root);
    this.timer = setInterval(() => this.drawClocks(), 1000);
    this.channel.open();
  }

  isOver() {
    return this.isDone;
  }

  /** Seconds since the epoch by the kernel's clock; the browser's may be another. */
  kernelNow() {
    return Date.now() / 1000 + (this.skew || 0);
  }

  // --- to the kernel ---

  /** One press. Its name lets it arrive by both ways, or late: the list obeys it once. */
  command(command, task, text = "") {
    this.clicks += 1;
    const click = `${this.channel.view} ${this.clicks}`;
    const said = { op: command === "stop" ? "cancel" : command, task, text, click };
    if (this.channel.isRound) this.goRound(said);
    else {
      this.channel.send({ op: "command", command, task, text, view: this.channel.view, click });
      this.untaken.set(click, setTimeout(() => this.goRound(said), KERNEL_MS));
    }
    return click;
  }

  goRound(said) {
    const { detour } = this.channel;
    if (!detour.isPossible) return; // then the kernel may yet take it
    this.untaken.delete(said.click);
    detour.control(said).then(
      () => {
        this.taken(said.task, said.click);
        detour.open();
      },
      (error) => error.message && this.refused(said.task, error.message, said.click),
    );
  }

  askDetail(task) {
    if (!this.channel.isRound) return this.channel.send({ op: "detail", task });
    this.channel.detour.detail(task).then(
      (detail) => this.rows.get(task)?.detail(detail),
      (error) => this.say(error.message),
    );
  }

  say(text) {
    setText(this.note, text);
    this.note.hidden = !text;
  }

  // --- from the kernel ---

  hear(content, buffers) {
    switch (content.op) {
      case "run":
        this.runs.get(content.run)?.run?.receive(content.content, buffers);
        break;
      case "closed":
        this.runs.get(content.run)?.open(false);
        break;
      case "detail":
        this.rows.get(content.task)?.detail(content);
        break;
      case "taken":
      case "refused":
        if (content.click && !this.untaken.has(content.click)) break; // another view's, or so late that it no longer matters
        clearTimeout(this.untaken.get(content.click));
        this.untaken.delete(content.click);
        if (content.op === "refused") this.refused(content.task, content.text, content.click);
        else this.taken(content.task, content.click);
        break;
    }
  }

  taken(task, click) {
    const row = this.rows.get(task);
    if (row) row.taken(click);
    else this.head.taken();
  }

  refused(task, text, click) {
    const row = this.rows.get(task);
    if (row) row.refused(click);
    else this.head.refused();
    this.say(text || "That cannot be done now.");
  }

  show(frame, body, isReset) {
    const isFirst = this.rows.size === 0;
    if (frame.now) this.skew = frame.now - Date.now() / 1000;
    this.isDone = Boolean(frame.done);
    this.cell ||= this.root.closest(".jp-Cell");
    if (body.graph && !this.graph) this.makeGraph(body.graph);
    for (const row of body.rows || []) this.put(row, !isFirst && !isReset);
    this.head.show(frame.totals, frame.elapsed);
    const told = frame.totals.alone || frame.totals.note || ""; // nobody runs the list, or one of the user's hooks did not end well
    if (told !== this.told) {
      this.told = told;
      this.say(told);
    }
    if (frame.done) {
      this.announcer.say(`The list has ended: ${frame.totals.summary || frame.totals.status}`);
      for (const row of this.rows.values()) this.dirty.add(row);
    }
    this.ring({ ...frame, elapsed: this.head.seconds });
    this.schedule();
  }

  ring({ totals, elapsed, done }) {
    const asks = [...this.rows.values()].filter(({ row }) => row.status === "running" && row.phase === "asking").map(({ row }) => `${row.id} ${row.attempt}`);
    this.bell.hearList(totals, { seconds: elapsed || 0, isDone: done, began: Math.round(this.kernelNow() - (elapsed || 0)), asks });
  }

  put(row, isNews) {
    let held = this.rows.get(row.id);
    if (!held) {
      if (row.number === undefined) throw new Error("a piece of a row that is not here");
      held = new TaskRow(this, row);
      this.rows.set(row.id, held);
      this.place(held);
    } else held.update(row);
    this.dirty.add(held);
    if (isNews && (row.status !== undefined || row.attempt !== undefined)) this.announcer.hear(held);
  }

  makeGraph(data) {
    const choose = (id) => {
      const row = this.rows.get(id);
      if (!row) return;
      this.follows = false;
      this.bring(row);
      row.title.focus({ preventScroll: true });
    };
    this.graph = new TaskGraph.Graph(data, { label: `What needs what, ${plural(data.nodes.length, "task")}`, choose });
    this.scroller.before(this.graph.node);
  }

  place(held) {
    const { row } = held;
    held.node.dataset.number = row.number;
    let after = this.node.lastElementChild;
    while (after && Number(after.dataset.number) > row.number) after = after.previousElementSibling;
    if (after) after.after(held.node);
    else this.node.prepend(held.node);
    if (!this.current) this.makeCurrent(held);
    if (!row.group) return;
    held.node.dataset.group = row.group;
    const before = held.node.previousElementSibling;
    if (before?.dataset.group === row.group) return;
    const label = element("li", "ccx-task-group");
    label.dataset.group = row.group;
    label.dataset.number = row.number - 0.5;
    label.append(element("span", "ccx-task-group-name", row.group), element("span", "", "side by side"));
    held.node.before(label);
  }

  schedule() {
    if (!this.painting) this.painting = requestAnimationFrame(() => this.paint());
  }

  paint() {
    this.painting = 0;
    for (const row of this.dirty) {
      row.draw();
      this.graph?.update(row);
    }
    this.dirty.clear();
    this.graph?.settle();
    this.keepInSight();
    this.channel.acknowledge();
  }

  keepInSight() {
    if (!this.follows || !this.scroller.clientHeight || this.scroller.scrollHeight <= this.scroller.clientHeight) return;
    const row = [...this.rows.values()].filter((each) => each.row.status === "running").sort((a, b) => b.row.number - a.row.number)[0];
    if (row) this.bring(row);
  }

  /** Scrolls the list, and nothing but the list, until a row is in sight. */
  bring(row) {
    const top = row.node.offsetTop - this.scroller.offsetTop;
    const bottom = top + row.node.offsetHeight;
    if (top < this.scroller.scrollTop) this.scroller.scrollTop = top;
    else if (bottom > this.scroller.scrollTop + this.scroller.clientHeight) this.scroller.scrollTop = bottom - this.scroller.clientHeight;
  }

  drawClocks() {
    this.head.drawClock();
    for (const row of this.rows.values()) if (row.row.is_ticking || row.row.until != null) row.drawClock();
  }

  // --- the keyboard: Tab comes to one row, the arrows go through the rows ---

  makeCurrent(row) {
    if (this.current === row) return;
    for (const [each, index] of [[this.current, -1], [row, 0]]) {
      if (each) for (const node of [each.title, ...Object.values(each.buttons)]) node.tabIndex = index;
    }
    this.current = row;
  }

  onKey(event, row) {
    const order = [...this.rows.values()].sort((a, b) => a.row.number - b.row.number);
    const at = order.indexOf(row);
    const next = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: order.length - 1 }[event.key];
    if (next === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    order[Math.max(0, Math.min(order.length - 1, next))].title.focus();
  }

  dispose() {
    this.channel.dispose(() => this.cell?.isConnected);
    this.loseKeys();
    this.handOn();
    cancelAnimationFrame(this.painting);
    clearInterval(this.timer);
    for (const timer of this.untaken.values()) clearTimeout(timer);
    for (const row of this.rows.values()) row.dispose();
    this.head.dispose();
    this.bell.dispose();
    this.announcer.dispose();
  }
}

function render({ model, el }) {
  const list = new List(model, el);
  return () => list.dispose();
}

export default { initialize: RunView.initialize, render };
