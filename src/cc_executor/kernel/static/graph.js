// The needs of a task list as a picture. Where everything stands is computed in ../../model/graph.py; here it is only drawn, by DOM calls alone.
// `taskview.py` puts this between the view of a run and that of a list.

const SVG = "http://www.w3.org/2000/svg";
const WIDE = 8; // columns; with more, tasks are small and without their names
const NAME_CHARS = 12;
const EDGE = 6; // px around everything
const ARROW = 4; // px
const SIZES = { wide: { width: 104, height: 24, gap: 30, row: 32 }, small: { width: 46, height: 22, gap: 20, row: 28 } };

function svg(name, classes, attributes) {
  const node = document.createElementNS(SVG, name);
  if (classes) node.setAttribute("class", classes);
  for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, String(value));
  return node;
}

function rounded(x, y, width, height, radius) {
  const r = Math.min(radius, height / 2);
  return `M${x + r} ${y}h${width - 2 * r}a${r} ${r} 0 0 1 ${r} ${r}v${height - 2 * r}a${r} ${r} 0 0 1 ${-r} ${r}h${2 * r - width}a${r} ${r} 0 0 1 ${-r} ${-r}v${2 * r - height}a${r} ${r} 0 0 1 ${r} ${-r}z`;
}

function cut(x, y, width, height, by) {
  return `M${x + by} ${y}h${width - 2 * by}l${by} ${by}v${height - 2 * by}l${-by} ${by}h${2 * by - width}l${-by} ${-by}v${2 * by - height}z`;
}

// Each state has an outline of its own, beside its colour, its sign and its word.
const SHAPES = {
  waiting: (...box) => rounded(...box, 4),
  running: (...box) => rounded(...box, 4),
  paused: (...box) => rounded(...box, 4),
  asking: (...box) => rounded(...box, 4),
  ok: (...box) => rounded(...box, 99),
  failed: (...box) => cut(...box, 6),
  stopped: (...box) => rounded(...box, 0),
  skipped: (...box) => rounded(...box, 4),
};
const SIGNS = { waiting: "○", running: "▶", paused: "‖", asking: "?", ok: "✓", failed: "✗", skipped: "–", stopped: "■" };

/** One task in the picture. */
class Spot {
  constructor(graph, index, [id, column, height]) {
    this.graph = graph;
    this.index = index;
    this.id = id;
    this.column = column;
    this.height = height;
    this.state = null;
    const { width, height: tall } = graph.size;
    const [x, y] = graph.at(column, height);
    this.box = [x - width / 2, y - tall / 2, width, tall];
    this.node = svg("g", "ccx-spot", { role: "button", tabindex: -1 });
    this.outline = svg("path", "ccx-spot-outline");
    this.sign = svg("text", "ccx-spot-sign", { x: this.box[0] + 12, y, "dominant-baseline": "central", "text-anchor": "middle" });
    this.name = svg("text", "ccx-spot-name", { x: this.box[0] + 23, y, "dominant-baseline": "central" });
    this.title = svg("title");
    this.node.append(this.title, this.outline, this.sign, this.name);
    this.node.addEventListener("click", () => graph.select(this));
    this.node.addEventListener("focus", () => graph.makeCurrent(this));
    this.node.addEventListener("keydown", (event) => graph.onKey(event, this));
  }

  draw(row) {
    const state = row.shownState in SHAPES ? row.shownState : "waiting";
    if (state !== this.state) {
      this.state = state;
      this.node.dataset.status = state;
      this.outline.setAttribute("d", SHAPES[state](...this.box));
      this.sign.textContent = SIGNS[state];
    }
    const name = this.graph.isSmall ? String(row.row.number) : this.id.length > NAME_CHARS ? `${this.id.slice(0, NAME_CHARS - 1)}…` : this.id;
    if (this.name.textContent !== name) this.name.textContent = name;
    const needs = row.row.needs.length ? `, needs ${row.row.needs.join(", ")}${row.row.more_needs ? ` and ${row.row.more_needs} more` : ""}` : "";
    const said = `${row.row.number} ${this.id}: ${row.said}${needs}`;
    if (said === this.title.textContent) return;
    this.title.textContent = said;
    this.node.setAttribute("aria-label", said);
  }
}

class Graph {
  /** `choose(id)` is called for the task that somebody picks. */
  constructor(data, { label, choose }) {
    this.choose = choose;
    this.isSmall = data.columns > WIDE;
    this.size = this.isSmall ? SIZES.small : SIZES.wide;
    this.current = null;
    this.selected = null;
    this.node = document.createElement("details");
    this.node.className = "ccx-graph";
    this.node.open = true;
    const summary = document.createElement("summary");
    summary.className = "ccx-graph-summary";
    summary.textContent = "What needs what";
    this.scroller = document.createElement("div");
    this.scroller.className = "ccx-graph-scroller";
    const width = data.columns * (this.size.width + this.size.gap) - this.size.gap + 2 * EDGE;
    const height = Math.ceil(data.height * this.size.row - (this.size.row - this.size.height) + 2 * EDGE);
    this.svg = svg("svg", "ccx-graph-picture", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": label });
    this.spots = data.nodes.map((entry, index) => new Spot(this, index, entry));
    this.byId = new Map(this.spots.map((spot) => [spot.id, spot]));
    this.edges = data.edges.map(([before, after, points]) => {
      const line = svg("path", "ccx-need", { d: this.line(points), "aria-hidden": "true" });
      this.svg.append(line);
      return { before, after, line };
    });
    for (const spot of this.spots) this.svg.append(spot.node);
    this.scroller.append(this.svg);
    this.node.append(summary, this.scroller);
    for (const event of ["wheel", "pointerdown", "touchmove"]) this.scroller.addEventListener(event, () => (this.isTouched = true), { passive: true });
    if (this.spots.length) this.makeCurrent(this.spots[0]);
  }

  at(column, height) {
    const { width, gap, row, height: tall } = this.size;
    return [EDGE + width / 2 + column * (width + gap), EDGE + height * row - (row - tall) / 2];
  }

  line(points) {
    const { width, gap } = this.size;
    const places = points.map(([column, height]) => this.at(column, height));
    const last = places.length - 1;
    let [x, y] = [places[0][0] + width / 2, places[0][1]];
    let d = `M${x} ${y}`;
    for (const [index, [px, py]] of places.entries()) {
      if (index === 0) continue;
      const to = px - width / 2 - (index === last ? 1 : 0);
      d += `C${x + gap / 2} ${y} ${to - gap / 2} ${py} ${to} ${py}`;
      if (index !== last) d += `H${px + width / 2}`;
      [x, y] = [index === last ? to : px + width / 2, py];
    }
    return `${d}m${-ARROW} ${-ARROW}l${ARROW} ${ARROW}l${-ARROW} ${ARROW}`;
  }

  update(row) {
    const spot = this.byId.get(row.row.id);
    if (!spot) return;
    const before = spot.state;
    spot.draw(row);
    if (spot.state === "running" && before !== "running") this.wanted = spot;
  }

  /** After all updates of a frame: what has begun last comes into sight, until somebody scrolls. */
  settle() {
    const spot = this.wanted;
    this.wanted = null;
    if (!spot || this.isTouched || !this.node.open || this.scroller.scrollWidth <= this.scroller.clientWidth) return;
    this.show(spot);
  }

  show(spot) {
    const { scroller } = this;
    const [x, y, width, height] = spot.box;
    if (x < scroller.scrollLeft || x + width > scroller.scrollLeft + scroller.clientWidth) scroller.scrollLeft = x - (scroller.clientWidth - width) / 2;
    if (y < scroller.scrollTop || y + height > scroller.scrollTop + scroller.clientHeight) scroller.scrollTop = y - (scroller.clientHeight - height) / 2;
  }

  /** Marks a task and what it hangs together with. */
  mark(id) {
    const spot = this.byId.get(id) || null;
    if (spot === this.selected) return;
    if (this.selected) delete this.selected.node.dataset.selected;
    this.selected = spot;
    if (spot) spot.node.dataset.selected = "";
    for (const { before, after, line } of this.edges) {
      const isNear = spot && (before === spot.index || after === spot.index);
      if (isNear) line.dataset.near = "";
      else delete line.dataset.near;
    }
  }

  select(spot) {
    this.makeCurrent(spot);
    this.mark(spot.id);
    this.choose(spot.id);
  }

  // --- the keyboard: Tab comes to one task, the arrows go along the needs ---

  makeCurrent(spot) {
    if (this.current === spot) return;
    if (this.current) this.current.node.setAttribute("tabindex", "-1");
    spot.node.setAttribute("tabindex", "0");
    this.current = spot;
  }

  onKey(event, spot) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Enter" || event.key === " ") this.select(spot);
    else {
      const next = this.next(event.key, spot);
      if (next === undefined) return;
      if (next) {
        next.node.focus({ preventScroll: true });
        this.show(next);
      }
    }
    event.preventDefault();
    event.stopPropagation();
  }

  /** The task to which a key leads, null where there is none, undefined for other keys. */
  next(key, spot) {
    const nearest = (spots) => spots.sort((a, b) => Math.abs(a.height - spot.height) - Math.abs(b.height - spot.height))[0] || null;
    const column = this.spots.filter((each) => each.column === spot.column).sort((a, b) => a.height - b.height);
    switch (key) {
      case "ArrowRight":
        return nearest(this.edges.filter((edge) => edge.before === spot.index).map((edge) => this.spots[edge.after]));
      case "ArrowLeft":
        return nearest(this.edges.filter((edge) => edge.after === spot.index).map((edge) => this.spots[edge.before]));
      case "ArrowUp":
        return column[column.indexOf(spot) - 1] || null;
      case "ArrowDown":
        return column[column.indexOf(spot) + 1] || null;
      case "Home":
        return this.spots[0];
      case "End":
        return this.spots[this.spots.length - 1];
      default:
        return undefined;
    }
  }
}
