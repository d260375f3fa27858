"use strict";
// Asks for the figures every two seconds, keeps the last minutes, and draws them.  Whatever comes
// from the server is shown as text, never as markup.
(() => {
  const EVERY = 2000; // ms between two looks
  const PATIENCE = 5000; // ms to wait for an answer
  const KEPT = 5 * 60 * 1000; // ms that are shown
  const RECENT = 60 * 1000; // ms that warnings about rates look back
  const MOST = 50; // rows of a table of loads
  const NONE = "–";
  const SVG = "http://www.w3.org/2000/svg";

  const $ = (id) => document.getElementById(id);
  const make = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value !== null && value !== undefined) node.setAttribute(name, value);
    }
    node.append(...children.filter((child) => child !== null));
    return node;
  };
  const draw = (tag, attributes, text) => {
    const node = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    if (text !== undefined) node.textContent = text;
    return node;
  };

  // --- how numbers are written -----------------------------------------------------------------

  const some = (number) => number !== null && number !== undefined && Number.isFinite(number);
  const count = (number) => {
    if (!some(number)) return NONE;
    for (const [limit, unit] of [[1e12, "T"], [1e9, "G"], [1e6, "M"]]) {
      if (number >= limit) return (number / limit).toFixed(1) + unit;
    }
    if (number > 0 && number < 9.95 && !Number.isInteger(number)) return number.toFixed(1);
    return Math.round(number).toLocaleString("en-US");
  };
  const rate = (number) => (some(number) ? `${count(number)}/s` : NONE);
  // 100% is said of everything only: the one miss in a million reads is what is looked for.
  const share = (number) =>
    some(number)
      ? `${((number >= 0.999 && number < 1 ? 0.999 : number) * 100).toFixed(1)}%` : NONE;
  const trimmed = (number, digits) => String(Number(number.toFixed(digits)));
  const seconds = (number) => {
    if (!some(number)) return NONE;
    if (number < 1) {
      const ms = number * 1000;
      return `${ms >= 10 ? Math.round(ms) : trimmed(ms, ms >= 0.1 ? 1 : 2)} ms`;
    }
    for (const [limit, per, unit] of [[172800, 86400, "d"], [7200, 3600, "h"], [120, 60, "min"]]) {
      if (number >= limit) return `${Math.round(number / per)} ${unit}`;
    }
    return `${number >= 10 ? Math.round(number) : trimmed(number, 1)} s`;
  };
  const size = (number) => {
    if (!some(number)) return NONE;
    for (const [limit, unit] of [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]]) {
      if (number >= limit) return `${(number / limit).toFixed(1)} ${unit}`;
    }
    return `${Math.round(number)} B`;
  };
  const upTo = (number) => (some(number) ? `≤ ${seconds(number)}` : NONE);
  const ago = (number) => (some(number) ? `${seconds(number)} ago` : "never");
  const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

  // --- what has happened between two looks -----------------------------------------------------

  const COUNTED = [
    "local_hit", "local_miss", "object_hit", "remote_hit", "load_total", "set", "delete",
    "evictions", "expired",
  ];
  // What is counted and not recorded among the events, of which the server itself warns; with the
  // section of the runbook that it belongs to.
  const TROUBLE = {
    load_refused: ["a read was refused a load of its own, as max_loads of them ran",
      "loader-timeout"],
    l2_undecodable: ["a value in Redis could not be read", "deploy-with-a-new-layout"],
    store_rejected_size: ["a value was too large to be stored", "segment-full"],
    store_rejected_encode: ["a value could not be encoded", "wrong-data-suspected"],
    lock_giveup: ["a write was given up, as a part of the segment stayed locked", "worker-killed"],
    corrupt_item: ["an item did not verify and was dropped", "wrong-data-suspected"],
    outbox_dropped: ["a change did not fit into the outbox", "invalidation-broadcast-failure"],
  };
  const zeros = (n) => new Array(n).fill(0);
  const less = (now, then) => now.map((n, i) => Math.max(0, n - (then ? then[i] : 0)));
  const add = (into, from) => from.forEach((n, i) => { into[i] += n; });

  // An upper bound of a quantile: that of the bucket in which it lies.
  const quantile = (portion, bounds, histogram) => {
    const counts = histogram.slice(0, -1);
    const number = counts.reduce((sum, n) => sum + n, 0);
    if (!number) return null;
    let seen = 0;
    for (let i = 0; i < bounds.length; i++) {
      seen += counts[i];
      if (seen >= portion * number) return bounds[i];
    }
    return bounds[bounds.length - 1];
  };

  const tiers = (counted) => {
    const reads = counted.local_hit + counted.local_miss;
    if (!reads) return { reads: 0, hits: null, objects: null, redis: null };
    const redis = Math.min(counted.remote_hit || 0, counted.local_miss) / reads;
    return { reads, hits: counted.local_hit / reads, objects: counted.object_hit / reads, redis };
  };

  const difference = (then, now) => {
    const passed = now.at - then.at;
    if (then.origin !== now.origin || passed <= 0) return null;
    const total = Object.fromEntries(COUNTED.map((name) => [name, 0]));
    const loads = zeros(now.latency_bounds.length + 2);
    const l2 = zeros(loads.length);
    const areas = {};
    const trouble = [];
    for (const [name, area] of Object.entries(now.areas)) {
      const before = then.areas[name] || {};
      const counted = {};
      for (const counter of COUNTED) {
        counted[counter] = Math.max(0, area[counter] - (before[counter] || 0));
        total[counter] += counted[counter];
      }
      for (const counter of Object.keys(TROUBLE)) {
        const number = area[counter] - (before[counter] || 0);
        if (number > 0) trouble.push({ area: name, counter, number });
      }
      const own = less(area.load_latency, before.load_latency);
      add(loads, own);
      add(l2, less(area.l2_latency, before.l2_latency));
      areas[name] = { counted, loads: own };
    }
    const dropped = now.remote ? now.remote.outbox_dropped : 0;
    const earlier = then.remote ? then.remote.outbox_dropped : 0;
    if (dropped > earlier) {
      trouble.push({ area: "", counter: "outbox_dropped", number: dropped - earlier });
    }
    const known = new Map(then.processes.map((each) => [each.incarnation, each]));
    const processes = new Map();
    for (const each of now.processes) {
      const before = known.get(each.incarnation);
      // Whoever took over what a dead one had counted counts in other blocks than before.
      if (!before || before.blocks !== each.blocks) continue;
      const counted = {};
      for (const counter of ["local_hit", "local_miss", "object_hit", "load_total", "set"]) {
        counted[counter] = Math.max(0, each[counter] - before[counter]);
      }
      const used = some(each.cpu) && some(before.cpu) ? (each.cpu - before.cpu) / passed : null;
      processes.set(each.incarnation, { counted, cpu: used });
    }
    return { passed, total, loads, l2, areas, processes, trouble };
  };

  const pointOf = (now, change) => {
    const point = { t: now.time * 1000, live: now.segment.live_bytes, trouble: [] };
    if (!change) return point;
    const { total, passed } = change;
    const { reads, hits, objects, redis } = tiers(total);
    const by = (number) => number / passed;
    return {
      ...point,
      ratio: hits,
      both: hits === null ? null : hits + redis,
      reads: by(reads),
      objects: by(reads * (objects || 0)),
      segment: by(reads * ((hits || 0) - (objects || 0))),
      redis: by(reads * (redis || 0)),
      rest: by(reads * (1 - (hits || 0) - (redis || 0))),
      loads: by(total.load_total),
      p50: quantile(0.5, now.latency_bounds, change.loads),
      p99: quantile(0.99, now.latency_bounds, change.loads),
      calls: by(change.l2.slice(0, -1).reduce((sum, n) => sum + n, 0)),
      r50: quantile(0.5, now.latency_bounds, change.l2),
      r99: quantile(0.99, now.latency_bounds, change.l2),
      evicted: by(total.evictions),
      expired: by(total.expired),
      sets: by(total.set),
      deletes: by(total.delete),
      trouble: change.trouble,
    };
  };

  // --- charts ----------------------------------------------------------------------------------

  const points = [];
  let cursor = null; // time that is pointed at
  let hasRemote = false; // whether anybody has Redis
  const HEIGHT = 168;
  const EDGE = { left: 58, right: 6, top: 8, bottom: 20 };

  const round = (top) => {
    const power = 10 ** Math.floor(Math.log10(top));
    return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((n) => n * power).find((n) => n >= top * 0.999);
  };
  const SCALES = {
    ratio: (values) => {
      const least = values.length ? Math.min(...values) : 0;
      const floor = [0.98, 0.9, 0.8, 0.5, 0].find((n) => n <= least - (1 - least) * 0.2) ?? 0;
      return { ticks: [floor, (floor + 1) / 2, 1], at: (v) => (v - floor) / (1 - floor) };
    },
    linear: (values) => {
      const top = round(Math.max(1, ...values));
      return { ticks: [0, top / 2, top], at: (v) => v / top };
    },
    bytes: (values, most) => ({ ticks: [0, most / 2, most], at: (v) => v / most }),
    log: () => {
      const low = Math.log10(0.0005), high = Math.log10(30);
      const at = (v) => (Math.log10(Math.max(v, 0.0005)) - low) / (high - low);
      return { ticks: [0.001, 0.01, 0.1, 1, 10], at };
    },
  };

  class Chart {
    constructor(title, series, options) {
      this.title = title;
      this.series = series;
      this.options = options;
      this.most = 1;
      const id = `chart-${options.id}`;
      this.legend = make("div", { class: "legend" });
      this.svg = draw("svg", { role: "img", tabindex: "0", "aria-labelledby": id });
      this.node = make("figure", { class: "chart card" },
        make("h3", { id }, title), this.legend, this.svg);
      this.values = series.map(({ label, color }) => {
        const value = make("b", {}, NONE);
        const entry = make("span", {}, make("i", { class: `k${color}` }), label, value);
        this.legend.append(entry);
        return { value, entry };
      });
      this.svg.addEventListener("pointermove", (event) => this.point(event));
      this.svg.addEventListener("pointerleave", () => show(null));
      this.svg.addEventListener("blur", () => show(null));
      this.svg.addEventListener("keydown", (event) => step(event));
      this.observer = new ResizeObserver(() => this.render());
      this.observer.observe(this.svg);
    }

    span() {
      const end = points.length ? points[points.length - 1].t : Date.now();
      const length = Math.max(60000, Math.min(KEPT, points.length ? end - points[0].t : 0));
      return [end - length, end];
    }

    point(event) {
      const box = this.svg.getBoundingClientRect();
      const [from, to] = this.span();
      const inside = box.width - EDGE.left - EDGE.right;
      show(from + ((event.clientX - box.left - EDGE.left) / inside) * (to - from));
    }

    render() {
      const width = this.svg.clientWidth;
      if (!width) return;
      this.svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
      const [from, to] = this.span();
      const shown = points.filter((point) => point.t >= from);
      const stacked = this.options.kind === "stack";
      const levels = shown.map((point) => {
        let sum = 0;
        return this.series.map(({ key, remote }) => {
          if (!some(point[key]) || (remote && !hasRemote)) return null;
          sum += point[key];
          return stacked ? sum : point[key];
        });
      });
      const values = levels.flat().filter(some);
      const scale = SCALES[this.options.scale](values, this.most);
      const right = width - EDGE.right, bottom = HEIGHT - EDGE.bottom;
      const x = (t) => EDGE.left + ((t - from) / (to - from)) * (right - EDGE.left);
      const y = (v) =>
        bottom - Math.min(1, Math.max(0, scale.at(v))) * (bottom - EDGE.top);
      const parts = this.axes(scale, y, right, bottom, to - from);
      for (let i = this.series.length - 1; i >= 0; i--) {
        for (const run of this.runs(shown, levels, i)) {
          parts.push(...this.shapes(run, i, x, y, bottom, stacked));
        }
      }
      if (!values.length) {
        const middle = (EDGE.left + right) / 2;
        const text = this.options.empty || "nothing yet";
        parts.push(draw("text", { class: "empty", x: middle, y: (EDGE.top + bottom) / 2 }, text));
      }
      const at = this.label(shown);
      if (at && cursor !== null) {
        const place = x(at.t);
        parts.push(draw("line", { class: "cursor", x1: place, x2: place, y1: EDGE.top, y2: bottom }));
      }
      this.svg.replaceChildren(...parts);
    }

    axes(scale, y, right, bottom, length) {
      const parts = [];
      for (const tick of scale.ticks) {
        const place = y(tick);
        const line = { x1: EDGE.left, x2: right, y1: place, y2: place };
        parts.push(draw("line", { class: place >= bottom - 0.5 ? "base" : "grid", ...line }));
        const text = { x: EDGE.left - 6, y: place + 4, "text-anchor": "end" };
        parts.push(draw("text", text, this.options.tick(tick)));
      }
      const minutes = length / 60000;
      const begin = minutes > 1.05 ? `${trimmed(minutes, 1)} min ago` : "1 min ago";
      parts.push(draw("text", { x: EDGE.left, y: HEIGHT - 5 }, begin));
      parts.push(draw("text", { x: right, y: HEIGHT - 5, "text-anchor": "end" }, "now"));
      return parts;
    }

    // What lies between two gaps: where nothing was, or nobody looked.
    runs(shown, levels, i) {
      const found = [];
      let run = [], last = null;
      shown.forEach((point, n) => {
        const value = levels[n][i];
        const gap = last !== null && point.t - last > 4 * EVERY;
        if (run.length && (!some(value) || gap)) {
          found.push(run);
          run = [];
        }
        if (some(value)) run.push([point.t, value]);
        last = point.t;
      });
      return run.length ? [...found, run] : found;
    }

    shapes(run, i, x, y, bottom, stacked) {
      const { color } = this.series[i];
      const at = run.map(([t, v]) => `${x(t).toFixed(1)},${y(v).toFixed(1)}`);
      const path = at.length > 1 ? `M${at.join("L")}` : `M${at[0]}h0.01`;
      const filled =
        `${path}L${x(run[run.length - 1][0]).toFixed(1)},${bottom}L${x(run[0][0]).toFixed(1)},${bottom}Z`;
      if (stacked) return [draw("path", { class: `stack a${color}`, d: filled })];
      const line = draw("path", { class: `line l${color}`, d: path });
      if (!this.options.filled) return [line];
      return [draw("path", { class: `area a${color}`, d: filled }), line];
    }

    // Write the values of the moment pointed at, else of the last one.
    label(shown) {
      const nearest = (best, point) =>
        Math.abs(point.t - cursor) < Math.abs(best.t - cursor) ? point : best;
      const at = !shown.length ? null
        : cursor === null ? shown[shown.length - 1] : shown.reduce(nearest);
      const said = this.series.map(({ key, label, remote }, i) => {
        const text = at ? this.options.write(at[key]) : NONE;
        const { value, entry } = this.values[i];
        value.textContent = text;
        entry.hidden = Boolean(remote) && !hasRemote;
        return entry.hidden ? null : `${label} ${text}`;
      }).filter(Boolean);
      const when = at && cursor !== null ? clock(at.t) : "now";
      this.svg.setAttribute("aria-label", `${this.title}, ${when}: ${said.join(", ")}`);
      this.svg.removeAttribute("aria-labelledby");
      return at;
    }
  }

  const clock = (t) => new Date(t).toLocaleTimeString();
  const show = (t) => {
    cursor = t;
    $("span").textContent = t === null || !points.length ? "" : `at ${clock(t)}`;
    charts.forEach((chart) => chart.render());
  };
  const step = (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") show(null);
    if (!by || !points.length) return;
    event.preventDefault();
    let here = points.length - 1;
    if (cursor !== null) {
      points.forEach((point, n) => {
        if (Math.abs(point.t - cursor) < Math.abs(points[here].t - cursor)) here = n;
      });
      here += by;
    }
    show(points[Math.max(0, Math.min(points.length - 1, here))].t);
  };

  const charts = [
    new Chart("Hit ratio",
      [{ key: "ratio", label: "this host", color: 1 }, { key: "both", label: "with Redis", color: 2, remote: true }],
      { id: "ratio", scale: "ratio", tick: (v) => `${trimmed(v * 100, 1)}%`, write: share,
        empty: "no reads yet" }),
    new Chart("Reads by what answered",
      [{ key: "objects", label: "objects", color: 1 }, { key: "segment", label: "segment", color: 2 },
        { key: "redis", label: "Redis", color: 3, remote: true }, { key: "rest", label: "loads, misses", color: 4 }],
      { id: "reads", kind: "stack", scale: "linear", tick: count, write: rate }),
    new Chart("Load latency",
      [{ key: "p50", label: "p50", color: 2 }, { key: "p99", label: "p99", color: 4 }],
      { id: "loads", scale: "log", tick: seconds, write: upTo, empty: "no loads" }),
    new Chart("Memory", [{ key: "live", label: "live values", color: 1 }],
      { id: "memory", scale: "bytes", filled: true, tick: (v) => size(v).replace(".0 ", " "),
        write: size }),
    new Chart("Made room",
      [{ key: "evicted", label: "evicted", color: 4 }, { key: "expired", label: "expired", color: 3 }],
      { id: "room", scale: "linear", tick: count, write: rate }),
    new Chart("Writes",
      [{ key: "sets", label: "sets", color: 1 }, { key: "deletes", label: "deletes", color: 4 }],
      { id: "writes", scale: "linear", tick: count, write: rate }),
  ];
  const ofRedis = new Chart("Redis latency",
    [{ key: "r50", label: "p50", color: 2 }, { key: "r99", label: "p99", color: 4 }],
    { id: "redis", scale: "log", tick: seconds, write: upTo, empty: "no calls" });

  // --- tables ----------------------------------------------------------------------------------

  class Table {
    constructor(id, title, columns, empty, { size = "", tools = null } = {}) {
      this.empty = empty;
      this.body = make("tbody");
      const head = columns.map(([text, kind]) =>
        make("th", { scope: "col", class: kind || null }, text));
      this.kinds = columns.map(([, kind]) => kind);
      this.note = make("span", { class: "note" });
      this.scroll = make("div", { class: "scroll", tabindex: "0", role: "region",
        "aria-labelledby": id },
      make("table", { "aria-labelledby": id }, make("thead", {}, make("tr", {}, ...head)),
        this.body));
      this.none = make("p", { class: "none" }, empty);
      this.node = make("section", { class: `panel card ${size}`.trim(), "aria-labelledby": id },
        make("div", { class: "top" }, make("h2", { id }, title, " ", this.note), tools),
        this.scroll, this.none);
    }

    fill(rows, note, print) {
      // What has not changed stays: somebody may be reading, or marking it to copy.
      if (print !== undefined && print === this.print) return;
      this.print = print;
      this.note.textContent = note || "";
      this.scroll.hidden = !rows.length;
      this.none.hidden = rows.length > 0;
      this.body.replaceChildren(...rows.map((cells) => make("tr", {}, ...cells.map((cell, i) =>
        i === 0 ? make("th", { scope: "row", title: cell.title || cell.textContent || cell }, cell)
          : make("td", { class: this.kinds[i] || null }, cell)))));
    }

    // Say something else than usual where there are no rows.
    say(text) {
      this.none.textContent = text || this.empty;
    }
  }

  class Facts {
    constructor(id, title) {
      this.list = make("dl", { class: "facts" });
      this.node = make("section", { class: "panel quarter card", "aria-labelledby": id },
        make("h2", { id }, title), this.list);
    }

    fill(facts) {
      this.node.hidden = facts === null;
      this.list.replaceChildren(...(facts || []).map(([name, value]) =>
        make("div", {}, make("dt", {}, name), make("dd", {}, value))));
    }
  }

  // The options of one area at a time, as they are in force, beside what they are judged by.
  class Config {
    constructor() {
      const id = "config-title";
      this.choice = make("select", { id: "config-area" });
      this.choice.addEventListener("change", () => this.show());
      this.note = make("span", { class: "note" });
      this.groups = make("div", { class: "groups" });
      this.none = make("p", { class: "none" }, "No process has told its configuration yet.");
      this.label = make("label", { for: "config-area" }, "Area ", this.choice);
      this.node = make("section", { class: "panel card", "aria-labelledby": id },
        make("div", { class: "top" }, make("h2", { id }, "Configuration ", this.note), this.label),
        this.groups, this.none);
    }

    fill(now, minute) {
      const names = Object.keys(now.areas).filter((name) => now.areas[name].config);
      const chosen = names.includes(this.choice.value) ? this.choice.value : names[0];
      if (this.names !== names.join("\n")) {
        this.names = names.join("\n");
        this.choice.replaceChildren(...names.map((name) => make("option", { value: name }, name)));
        this.choice.value = chosen;
      }
      this.label.hidden = this.groups.hidden = this.note.hidden = !names.length;
      this.none.hidden = names.length > 0;
      this.now = now;
      this.minute = minute;
      if (names.length) this.show();
    }

    show() {
      const { now, minute } = this;
      const name = this.choice.value, area = now.areas[name];
      // The host's come first, so that those of the area take their place.
      const forced = new Map(now.overrides.filter((each) => each.area === name || !each.area)
        .map(({ option, text }) => [option, text]));
      this.note.textContent = forced.size ? "with overrides, as it is in force" : "as it is in force";
      const groups = [["Values", VALUES], ["Loads", LOADS], ["Stale reads and Redis", STALE]];
      const seen = this.seen(area, minute && minute[name], now.latency_bounds);
      this.groups.replaceChildren(...groups.map(([title, options]) => make("div", {},
        make("h3", {}, title), make("dl", { class: "facts" },
          ...Object.entries(options).flatMap(([option, written]) => {
            // An area that nobody has used since has not told that it is overridden.
            const shown = forced.has(option) ? tag("warn", `${forced.get(option)}, overridden`)
              : written(area.config[option], area.config);
            return [[option, shown], ...(seen[option] || [])];
          }).map(([term, value]) => make("div", {}, make("dt", {}, term), make("dd", {}, value)))))));
    }

    // What was measured, behind the option that it is to be compared with.
    seen(area, loads, bounds) {
      const both = (p50, p99) => (some(p99) ? `p50 ${upTo(p50)}, p99 ${upTo(p99)}` : NONE);
      const [p50, p99] = [0.5, 0.99].map((q) => loads && quantile(q, bounds, loads));
      const limit = area.config.loader_timeout;
      const recent = both(p50, p99);
      return {
        loader_timeout: [
          ["its loads, last minute", some(p99) && some(limit) && p99 >= limit / 2
            ? tag("warn", recent) : recent],
          ["its loads, all time", both(area.load_p50, area.load_p99)]],
        allow_stale: [
          ["answered with a stale value", count(area.stale_fallback)],
          ...(some(area.stale_allowed)
            ? [["missed, and allowed one", count(area.stale_allowed)]] : [])],
      };
    }
  }

  const yes = (value) => (value ? "yes" : "no");
  const lasts = (none) => (value) => (value === null ? none : value === 0 ? "0" : seconds(value));
  const words = (value) => (value === null ? NONE : String(value));
  const VALUES = {
    mode: words, local_ttl: lasts("no end"), remote_ttl: lasts("no end"), null_ttl: lasts("no end"),
    ttl_jitter_ratio: (value) => (value ? `up to ${share(value)} less` : "none"),
    cache_null_value: yes, max_value_size: size, objects: words, version: (value) =>
      (value ? "given" : "none"),
  };
  const LOADS = {
    loader: (value) => (value ? "given" : "none"), loader_timeout: lasts("no limit"),
    batch_timeout: lasts("no limit"), wait_timeout: lasts("no limit"),
    soft_timeout: lasts("none"), lease: lasts(NONE), max_loads: count, penetration_protect: yes,
    error_ttl: lasts("none"),
    refresh_ahead: (value, { refresh_ahead_window: window }) =>
      (value ? `${seconds(window)} before the end` : "no"),
    warmup_enabled: yes,
  };
  const STALE = {
    allow_stale: yes, stale_on_error: yes, stale_ttl: lasts("none"),
    max_staleness: lasts("no limit"), on_desync: words, redis: yes, broadcast_invalidation: yes,
    broadcast_sets: yes, compress_over: (value) => (value === null ? "nothing" : size(value)),
  };

  const tag = (level, text) => make("span", { class: `tag ${level}` }, text);
  const only = make("button", { type: "button", class: "small", "aria-pressed": "false" },
    "Only what failed");
  only.addEventListener("click", () => {
    only.setAttribute("aria-pressed", String(only.getAttribute("aria-pressed") !== "true"));
    if (last) fillEvents(last);
  });
  const tables = {
    areas: new Table("areas-title", "Areas",
      [["area"], ["reads"], ["hits"], ["objects"], ["from Redis", "redis"], ["loads"], ["p50"], ["p99"],
        ["limit"], ["sets"], ["evicted"], ["entries"], ["memory"], ["in step", "words redis"]],
      "No area yet: a cache appears here with its first use."),
    processes: new Table("processes-title", "Workers",
      [["process"], ["reads"], ["hits"], ["objects"], ["loads"], ["sets"], ["processor"], ["memory"],
        ["loading"], ["attached"], ["notes", "words"]],
      "No process uses this segment."),
    flights: new Table("flights-title", "Loads and locks",
      [["area"], ["key hash", "mono"], ["process"], ["age"], ["lease left"], ["waiters"],
        ["notes", "words"]],
      "Nothing is being loaded at this moment, and no lock is held."),
    overrides: new Table("overrides-title", "Overrides in force",
      [["area"], ["option", "words"], ["value", "words"], ["for the next"]], ""),
    keys: new Table("keys-title", "Hottest keys",
      [["area"], ["key hash", "mono"], ["reads"], ["of all reads", "words"]],
      "No key stands out: reads are few, or spread over many.", { size: "five tall" }),
    kinds: new Table("kinds-title", "What has happened",
      [["area"], ["operation", "words"], ["result", "words"], ["times"], ["last"]],
      "Nothing is recorded yet. Hits and plain sets never are.", { size: "seven tall", tools: only }),
    events: new Table("events-title", "Recent events",
      [["time"], ["area", "words"], ["operation", "words"], ["result", "words"], ["took"],
        ["times"], ["key hash", "mono"], ["process"]],
      "Nothing is recorded yet. Hits and plain sets never are.", { size: "tall" }),
    config: new Config(),
    redis: new Facts("redis-title", "Redis and its breaker"),
    listener: new Facts("listener-title", "Listener"),
    outbox: new Facts("outbox-title", "Outbox"),
    segment: new Facts("segment-title", "Segment"),
  };

  const inStep = (area) => {
    if (!area.remote) return NONE;
    if (area.in_step_for === null) return tag("warn", "never");
    return area.in_step ? tag("good", "yes")
      : tag("bad", `no, for ${seconds(-area.in_step_for)}`);
  };

  const limitOf = ({ config }) => (config && config.loader ? LOADS.loader_timeout(
    config.loader_timeout) : NONE);
  const nearLimit = (p99, { config }) =>
    (config && some(config.loader_timeout) && some(p99) && p99 >= config.loader_timeout / 2
      ? tag("warn", upTo(p99)) : upTo(p99));
  const fillAreas = (now, change) => {
    const rows = Object.entries(now.areas).map(([name, area]) => {
      const of = change && change.areas[name];
      const by = (counter) => (of ? rate(of.counted[counter] / change.passed) : NONE);
      const found = of ? tiers(of.counted) : {};
      const [p50, p99] = [0.5, 0.99].map((q) => of && quantile(q, now.latency_bounds, of.loads));
      return [area.local_hit + area.local_miss, [
        name, of ? rate(found.reads / change.passed) : NONE, share(found.hits),
        share(found.objects), area.remote ? share(found.redis) : NONE, by("load_total"),
        upTo(p50), nearLimit(p99, area), limitOf(area), by("set"), by("evictions"), count(area.entries), size(area.bytes),
        inStep(area)]];
    });
    tables.areas.fill(rows.sort((a, b) => b[0] - a[0]).map(([, cells]) => cells),
      rows.length ? count(rows.length) : "");
  };

  const STATES = { T: "stopped", t: "traced", Z: "zombie", D: "waits for a disk" };
  const fillProcesses = (now, change) => {
    const leading = new Map();
    for (const flight of now.flights) {
      if (flight.lock) continue;
      leading.set(flight.incarnation, (leading.get(flight.incarnation) || 0) + 1);
    }
    const living = now.processes.filter((each) => each.alive);
    const rows = living.sort((a, b) => a.pid - b.pid).map((each) => {
      const of = change && change.processes.get(each.incarnation);
      const found = of ? tiers(of.counted) : {};
      const by = (counter) => (of ? rate(of.counted[counter] / change.passed) : NONE);
      const notes = make("span");
      if (each.listens) notes.append(tag("good", "listens"));
      if (!each.here) notes.append(" elsewhere");
      else if (each.here !== each.pid) notes.append(` here ${each.here}`);
      if (STATES[each.state]) notes.append(" ", tag("bad", STATES[each.state]));
      return [String(each.pid), of ? rate(found.reads / change.passed) : NONE, share(found.hits),
        share(found.objects), by("load_total"), by("set"), share(of && of.cpu), size(each.memory),
        count(leading.get(each.incarnation) || 0), seconds(each.attached), notes];
    });
    tables.processes.fill(rows, rows.length ? count(rows.length) : "");
  };

  const fillFlights = (now) => {
    const rows = now.flights.slice(0, MOST).map((each) => {
      const notes = ["lock", "alone", "overtaken"].filter((name) => each[name]);
      const words = make("span", {}, notes.join(", "));
      if (!each.alive) words.append(" ", tag("bad", "its process is dead"));
      else if (each.lease_left < 0) words.append(" ", tag("warn", "past its lease"));
      return [each.area, each.hash, String(each.pid), seconds(each.age),
        each.lease_left < 0 ? NONE : seconds(each.lease_left), count(each.waiters), words];
    });
    const more = now.flights.length - rows.length;
    const number = now.flights.length ? count(now.flights.length) : "";
    tables.flights.fill(rows, more > 0 ? `${number}, the oldest ${MOST} shown` : number);
  };

  // --- what has been recorded ------------------------------------------------------------------

  const BAD = new Set(["error", "timeout", "lost", "opened", "killed"]);
  const WATCH = new Set(["late", "queued", "gap", "cancelled", "deposed", "refused", "changed"]);
  // As observability/events.py has it: a load whose process died has no end of its own.
  const resultOf = (each) => (each.running ? (each.alive ? "running" : "killed") : each.result);
  const hasFailed = (result, kind) => result === "killed" || !["", "none"].includes(kind);
  const marked = (result, kind) => {
    const text = ["", "none", result].includes(kind) ? result : `${result}: ${kind}`;
    return BAD.has(result) ? tag("bad", text) : WATCH.has(result) ? tag("warn", text) : text;
  };
  const ofHost = (area) => (area === "" ? make("span", { class: "note", title: "the whole host" },
    "the host") : area);

  const fillEvents = (now) => {
    const failed = only.getAttribute("aria-pressed") === "true";
    const kinds = now.events_by
      .filter((each) => !failed || hasFailed(each.result, each.error_kind));
    tables.kinds.fill(kinds.map((each) => [ofHost(each.area), each.op,
      marked(each.result, each.error_kind), count(each.count), ago(Math.max(0, now.time - each.last))]),
    now.events_by.length ? "by kind" : "");
    const rows = now.events
      .filter((each) => !failed || hasFailed(resultOf(each), each.error_kind));
    const print = JSON.stringify([failed, rows.map((each) => [each.number, resultOf(each)])]);
    tables.events.fill(rows.map((each) => [
      clock(each.time * 1000), ofHost(each.area), each.op, marked(resultOf(each), each.error_kind),
      each.latency_ms === null ? NONE : seconds(each.latency_ms / 1000), count(each.count),
      each.hash || NONE, String(each.pid)]),
    now.events.length ? `the newest ${count(rows.length)}` : "", print);
    const none = failed && now.events.length ? "Nothing of what is kept has failed." : null;
    for (const table of [tables.kinds, tables.events]) table.say(none);
  };

  const bar = (portion) => {
    const width = Math.min(1, portion) * 100;
    const svg = draw("svg", { class: "bar", viewBox: "0 0 100 8", preserveAspectRatio: "none",
      "aria-hidden": "true" });
    svg.append(draw("rect", { class: "rest", width: 100, height: 8, rx: 2 }),
      draw("rect", { class: "a1", width, height: 8, rx: 2 }));
    return make("span", { class: "portion" }, svg, share(portion));
  };
  const fillKeys = (now) => {
    tables.keys.fill(now.hot_keys.map(({ area, hash, rate: by, share: portion }) =>
      [area, hash, rate(by), some(portion) ? bar(portion) : NONE]),
    now.hot_keys.length ? "sampled; the hash says accelerator hash" : "");
  };

  const fillOverrides = (now) => {
    tables.overrides.node.hidden = !now.overrides.length;
    const [acting, all] = now.overrides_seen || [null, null];
    tables.overrides.fill(now.overrides.map(({ area, option, text, left }) => [
      area === "" ? "all areas" : area, option,
      text,
      some(left) ? seconds(left) : "until it is reset"]),
    some(all) ? `${acting} of ${plural(all, "process", "processes")} ${
      acting === 1 ? "acts" : "act"} on them` : "");
  };

  // Of which areas what loads ended in the last minute, by what they took.
  const history = [];
  const loadsOfMinute = (now) => {
    const loads = Object.fromEntries(
      Object.entries(now.areas).map(([name, area]) => [name, area.load_latency]));
    history.push({ t: now.at, origin: now.origin, loads });
    while (history[0].origin !== now.origin || history[0].t < now.at - RECENT / 1000) history.shift();
    const then = history[0].loads;
    if (history.length < 2) return null;
    return Object.fromEntries(
      Object.entries(loads).map(([name, own]) => [name, less(own, then[name])]));
  };

  const fillFacts = (now) => {
    const { remote, segment } = now;
    tables.redis.fill(remote && [
      ...(remote.redis ? [["where", remote.redis]] : []),
      ["answers", remote.refused ? tag("bad", "refuses writes")
        : remote.ready ? tag("good", "yes") : tag("bad", "no")],
      ["took a write", ago(remote.confirmed_age)],
      ["breaker", remote.breaker === "closed" ? tag("good", "closed") : tag("bad", remote.breaker)],
      ["failures in a row", count(remote.failures)],
      ...(remote.breaker === "open" ? [["asked again in", seconds(remote.open_for)]] : []),
      ["bound", seconds(remote.bound)],
    ]);
    const listener = remote && remote.listener;
    tables.listener.fill(remote && [
      ["process", listener.pid === null ? tag("bad", "nobody") : String(listener.pid)],
      ["connected", listener.connected_since === null
        ? tag("bad", listener.next_retry_in === null ? "no"
          : `no, tries in ${seconds(listener.next_retry_in)}`)
        : `for ${seconds(listener.connected_since)}`],
      ["last message", ago(listener.last_message_age)],
      ["lease renewed", ago(listener.lease_age)],
      ["reconnects", count(listener.reconnects)],
      ["term", count(listener.term)],
    ]);
    tables.outbox.fill(remote && [
      ["waiting for Redis", remote.outbox_depth
        ? tag("warn", plural(remote.outbox_depth, "change")) : tag("good", "nothing")],
      ["the oldest", remote.outbox_oldest_age === null ? NONE : ago(remote.outbox_oldest_age)],
      ["did not fit", count(remote.outbox_dropped)],
      ["areas that owe a clear",
        count(Object.values(now.areas).filter((area) => area.owes_clear).length)],
    ]);
    tables.segment.fill([
      ["memory", now.local === "shared" ? "shared by the host" : "of this process"],
      ["size", size(segment.size)],
      ["largest item", size(segment.max_item)],
      ["created", new Date(segment.created * 1000).toLocaleString()],
      ["locks taken over", count(segment.dead_owner_takeover)],
      ["rings dropped", segment.resets ? tag("bad", count(segment.resets)) : "0"],
      ...(segment.process_slots > 1 ? [
        ["places for processes", count(segment.process_slots)],
        ["places for areas", count(segment.area_slots)]] : []),
    ]);
  };

  // --- the head --------------------------------------------------------------------------------

  const tiles = {};
  const tile = (id, title) => {
    const big = make("dd", { class: "big" }, NONE), more = make("dd", { class: "more" }, "\u00a0");
    $("tiles").append(make("div", { class: "tile card" }, make("dt", {}, title), big, more));
    tiles[id] = (value, unit, text) => {
      big.replaceChildren(value, ...(unit ? [make("small", {}, ` ${unit}`)] : []));
      more.textContent = text || "\u00a0";
      more.title = text || "";
    };
  };

  const fillTiles = (now, point) => {
    const { segment, remote } = now;
    tiles.ratio(share(point.ratio), "", some(point.ratio)
      ? remote ? `${share(point.both)} with Redis` : "of reads, on this host" : "no reads now");
    tiles.reads(count(point.reads), some(point.reads) ? "/s" : "",
      some(point.sets) ? `${rate(point.sets)} sets` : "");
    tiles.loads(count(point.loads), some(point.loads) ? "/s" : "",
      some(point.p99) ? `p99 ${upTo(point.p99)}` : "no load now");
    const live = segment.live_bytes / segment.data_bytes;
    const [value, unit] = size(segment.live_bytes).split(" ");
    tiles.memory(value, unit, `${share(live)} of ${size(segment.data_bytes)}`);
    tiles.entries(count(segment.entries), "", `in ${plural(Object.keys(now.areas).length, "area")}`);
    const living = now.processes.filter((each) => each.alive).length;
    const link = !remote ? "no Redis" : !remote.ready ? "Redis does not answer"
      : remote.outbox_depth ? `${plural(remote.outbox_depth, "change")} queued` : "Redis answers";
    tiles.processes(count(living), "", link);
  };

  // What was counted in the last minute and should not have been: one warning a section.
  const recent = (now) => {
    const sums = new Map();
    const since = now.time * 1000 - RECENT;
    for (const point of points.filter((each) => each.t > since)) {
      for (const { area, counter, number } of point.trouble) {
        const known = sums.get(counter) || { number: 0, areas: new Set() };
        known.number += number;
        if (area) known.areas.add(area);
        sums.set(counter, known);
      }
    }
    const sections = new Map();
    for (const [counter, { number, areas }] of sums) {
      const [text, section] = TROUBLE[counter];
      const names = [...areas].sort();
      const listed = names.length > 3 ? `${names.length} areas` : names.join(", ");
      const line = `${count(number)} × ${text}${listed && ` (${listed})`}`;
      sections.set(section, [...(sections.get(section) || []), line]);
    }
    const docs = now.docs && now.docs.replace(/\/$/, "");
    return [...sections].map(([section, lines]) => ({
      level: "warn",
      what: "In the last minute:",
      lines,
      means: "",
      page: `docs/runbook.md#${section}`,
      url: docs ? `${docs}/runbook.md#${section}` : null,
    }));
  };

  let told = "";
  const fillWarnings = (now) => {
    const found = [...now.warnings, ...recent(now)];
    const box = $("warnings");
    box.hidden = !found.length;
    box.replaceChildren(...found.map(({ level, what, means, lines, page, url }) => {
      const read = url && /^https?:/.test(url)
        ? make("a", { href: url, rel: "noreferrer" }, `Read ${page}`) : `Read ${page}`;
      return make("div", { class: `notice ${level}` },
        make("span", { class: "sign", "aria-hidden": "true" }, "!"), make("strong", {}, what),
        means ? make("span", { class: "means" }, means) : null,
        lines ? make("ul", {}, ...lines.map((line) => make("li", {}, line))) : null,
        make("span", { class: "read" }, read));
    }));
    // Said once, not every two seconds: only which warnings there are, not their seconds.
    const kinds = found.map(({ what }) => what.replace(/[\d.,]+/g, "#")).join("|");
    if (kinds !== told) {
      say(found.length ? `${plural(found.length, "warning")}. ${found[0].what}` : "No warnings.");
      told = kinds;
    }
    const bad = found.filter(({ level }) => level === "bad").length;
    document.title = `${bad ? `(${bad}) ` : ""}${now.name} – accelerator`;
  };

  const say = (text) => { $("live").textContent = text; };
  let condition = "";
  const state = (kind, text, spoken = text) => {
    $("state").dataset.state = kind;
    $("state-text").textContent = text;
    document.body.classList.toggle("gone", kind === "bad");
    if (spoken !== condition) say(spoken);
    condition = spoken;
  };

  // --- looking ---------------------------------------------------------------------------------

  let last = null, timer = 0, held = false, busy = false, heard = null, looks = 0;

  const fill = (now) => {
    const change = last && difference(last, now);
    if (last && last.origin !== now.origin) points.length = 0; // another segment: begin anew
    last = now;
    points.push(pointOf(now, change));
    while (points.length && points[0].t < now.time * 1000 - KEPT) points.shift();
    const point = points[points.length - 1];
    hasRemote = Boolean(now.remote);
    document.body.classList.toggle("alone", !hasRemote);
    charts[3].most = now.segment.data_bytes;
    if (now.remote && charts[5] !== ofRedis) {
      charts[5].node.replaceWith(ofRedis.node);
      charts[5] = ofRedis;
    }
    $("where").textContent = `${now.name} · ${now.path || "memory of one process"}`;
    $("where").title = $("where").textContent;
    $("version").textContent = `accelerator ${now.version}`;
    fillTiles(now, point);
    fillWarnings(now);
    charts.forEach((chart) => chart.render());
    fillAreas(now, change);
    fillProcesses(now, change);
    fillFlights(now);
    fillOverrides(now);
    fillKeys(now);
    fillEvents(now);
    tables.config.fill(now, loadsOfMinute(now));
    fillFacts(now);
  };

  const gone = (why) => {
    const since = heard === null ? "" : `, last at ${clock(heard)}`;
    state("bad", `${why}${since}`, why);
  };

  const look = async () => {
    if (busy) return;
    busy = true;
    const abort = new AbortController();
    const limit = setTimeout(() => abort.abort(), PATIENCE);
    try {
      const answer = await fetch("diagnostics", { cache: "no-store", signal: abort.signal });
      const kind = answer.headers.get("content-type") || "";
      const data = kind.startsWith("application/json") ? await answer.json() : null;
      if (answer.ok && data) {
        heard = Date.now();
        if (!held) state("good", "Live");
        fill(data);
      } else if (answer.status === 401 || answer.status === 403) {
        gone("Not allowed");
      } else {
        gone((data && data.message) ? "There is nothing to see" : `Answered with ${answer.status}`);
      }
    } catch (error) {
      if (error.name !== "AbortError" && error.name !== "TypeError") console.error(error);
      gone("No answer");
    } finally {
      clearTimeout(limit);
      busy = false;
      document.documentElement.dataset.looks = String(++looks);
    }
  };

  const again = async () => {
    clearTimeout(timer);
    if (held || document.hidden) return;
    await look();
    clearTimeout(timer);
    if (!held && !document.hidden) timer = setTimeout(again, EVERY);
  };

  $("hold").addEventListener("click", () => {
    held = !held;
    $("hold").setAttribute("aria-pressed", String(held));
    $("hold").textContent = held ? "Go on" : "Pause";
    if (held) state("wait", "Paused");
    else again();
  });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) clearTimeout(timer);
    else again();
  });

  for (const [id, title] of [["ratio", "Hit ratio"], ["reads", "Reads"], ["loads", "Loads"],
    ["memory", "Live memory"], ["entries", "Entries"], ["processes", "Processes"]]) tile(id, title);
  $("charts").append(...charts.map((chart) => chart.node));
  $("tables").append(tables.overrides.node, tables.areas.node, tables.keys.node,
    tables.kinds.node, tables.events.node, tables.processes.node, tables.flights.node,
    tables.config.node, tables.redis.node, tables.listener.node, tables.outbox.node,
    tables.segment.node);
  for (const panel of [tables.redis, tables.listener, tables.outbox]) panel.node.hidden = true;
  again();
})();
