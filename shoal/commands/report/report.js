"use strict";
/* The script of a report: hover, zoom, smoothing, axes and lines of its charts, and the updates of a live page.

   Everything that it shows is on the page without it, too: the charts as pictures (chart.py), the values as tables. The
   data come from chart_data.py. Means and bands over runs are computed as in traces.py, and ticks as in axis_ticks.py.

   state --> linesOf (view, axis, smoothing, band) --> draw (scales, SVG) --> the pointer moves a crosshair, a drag zooms

   Elements with data-script belong to this script; an update of a live page leaves them alone. */
(() => {
  const BAND_POINTS = 200, TOO_SMALL = 1e-12, DRAG_PIXELS = 6;
  const MARGIN = { left: 44, right: 12, top: 8, bottom: 36 };
  const state = { axis: 0, byAgent: false, smoothing: 0, zoom: null, hidden: new Set() };
  let data = null;

  const one = (selector, root = document) => root.querySelector(selector);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  function readData(page) {
    const found = one("#chart-data", page);
    if (!found) return null;
    const read = JSON.parse(found.textContent);
    read.arrays = read.arrays.map(values => values.map(value => value === null ? NaN : value));
    return read;
  }

  // ---- the lines of a figure ---------------------------------------------------------------------------------------

  function linesOf(figure) {
    const chosen = (state.byAgent && figure.views.agents) || figure.views.sides;
    return chosen.map(line => {
      const runs = line.runs.map(run => ({ x: data.arrays[run.x[state.axis]], y: data.arrays[run.y] }));
      const mean = runs.length > 1 ? bandOf(runs, figure.scale.log) : runs[0];
      const behind = runs.length > 1 ? runs : state.smoothing ? [mean] : [];
      const shown = mean || { x: [], y: [] };
      const smoothed = { x: shown.x, y: smooth(shown.y) };
      if (shown.low) Object.assign(smoothed, { low: smooth(shown.low), high: smooth(shown.high) });
      return { label: line.label, colour: line.colour, dash: line.dash, behind, ...smoothed };
    });
  }

  /* Returns the mean over runs and its 95 % band over the range that all runs share (Student's t). */
  function bandOf(runs, log) {
    const known = runs.map(({ x, y }) => {
      const kept = x.map((_, i) => i).filter(i => isFinite(x[i]) && isFinite(y[i]) && (!log || y[i] > 0));
      return { x: kept.map(i => x[i]), y: kept.map(i => log ? Math.log(y[i]) : y[i]) };
    });
    if (known.some(run => run.x.length < 2)) return null;
    const first = Math.max(...known.map(run => run.x[0])), last = Math.min(...known.map(run => run.x.at(-1)));
    if (first >= last) return null;
    const undo = log ? Math.exp : value => value, count = known.length, quantile = data.quantiles[count];
    const band = { x: [], y: [], low: [], high: [] };
    for (let i = 0; i < BAND_POINTS; i++) {
      const x = first + (last - first) * i / (BAND_POINTS - 1);
      const values = known.map(run => interpolate(run, x));
      const mean = values.reduce((sum, value) => sum + value, 0) / count;
      const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (count - 1);
      const half = quantile * Math.sqrt(variance / count);
      band.x.push(x); band.y.push(undo(mean)); band.low.push(undo(mean - half)); band.high.push(undo(mean + half));
    }
    return band;
  }

  /* Returns the index of the first x that is not smaller. */
  function firstFrom(xs, x) {
    let low = 0, high = xs.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (xs[middle] < x) low = middle + 1; else high = middle;
    }
    return low;
  }

  function interpolate(run, x) {
    const i = Math.min(Math.max(firstFrom(run.x, x), 1), run.x.length - 1);
    const part = (x - run.x[i - 1]) / (run.x[i] - run.x[i - 1] || 1);
    return run.y[i - 1] + Math.min(Math.max(part, 0), 1) * (run.y[i] - run.y[i - 1]);
  }

  /* Returns the exponential moving average, without its bias towards the start value 0. */
  function smooth(values) {
    if (!state.smoothing) return values;
    let average = 0, weight = 0;
    return values.map(value => {
      if (!isFinite(value)) return NaN;
      average = state.smoothing * average + (1 - state.smoothing) * value;
      weight = state.smoothing * weight + (1 - state.smoothing);
      return average / weight;
    });
  }

  // ---- axes --------------------------------------------------------------------------------------------------------

  function xRange(lines) {
    let low = Infinity, high = -Infinity;
    for (const { x, y } of lines.flatMap(line => [line, ...line.behind])) {
      x.forEach((value, i) => {
        if (isFinite(y[i]) && isFinite(value)) { low = Math.min(low, value); high = Math.max(high, value); }
      });
    }
    if (low > high) return null;
    if (low < 0.25 * high) low = 0;
    return high > low ? [low, high] : [low - 1, high + 1];
  }

  function yRange(lines, scale, [from, to]) {
    let known = [];
    for (const { x, y } of lines.flatMap(line => [line, ...line.behind])) {
      y.forEach((value, i) => { if (isFinite(value) && x[i] >= from && x[i] <= to) known.push(value); });
    }
    if (scale.log) {
      const largest = known.reduce((most, value) => Math.max(most, value), 0);
      known = known.filter(value => value > largest * TOO_SMALL);
    }
    if (!known.length) return null;
    if (scale.reference) known.push(scale.reference[0]);
    if (scale.up_to) known.push(scale.up_to);
    let low = Infinity, high = -Infinity;
    for (const value of known) { low = Math.min(low, value); high = Math.max(high, value); }
    if (scale.log) {
      const room = Math.max((high / low) ** 0.06, 1.2);
      return [low / room, high * room];
    }
    const room = 0.06 * (high - low) || Math.max(Math.abs(high) * 0.1, 0.5);
    return [scale.from_zero ? Math.min(0, low) : low - room, high + room];
  }

  function linearTicks(low, high, most) {
    const span = high - low;
    if (!(span > 0) || !isFinite(span)) return [low];
    const power = 10 ** Math.floor(Math.log10(span / most));
    const step = power * [1, 2, 5, 10, 20].find(factor => span / (factor * power) <= most);
    const ticks = [];
    for (let i = Math.ceil(low / step - 1e-9); i <= Math.floor(high / step + 1e-9); i++) ticks.push(i * step);
    return ticks;
  }

  function logTicks(low, high, most = 6) {
    let ticks = [];
    for (const factors of [[1, 1.5, 2, 3, 4, 5, 6, 8], [1, 2, 3, 5], [1, 2, 5], [1, 3], [1]]) {
      ticks = [];
      for (let d = Math.floor(Math.log10(low)); d <= Math.ceil(Math.log10(high)); d++) {
        for (const factor of factors) ticks.push(factor * 10 ** d);
      }
      ticks = ticks.filter(tick => low * 0.999 <= tick && tick <= high * 1.001);
      if (ticks.length <= most) return ticks;
    }
    return ticks.filter((_, i) => i % Math.ceil(ticks.length / most) === 0);
  }

  const withMinus = text => text.replace("-", "\u2212");

  function tickLabels(ticks) {
    const largest = Math.max(...ticks.map(Math.abs));
    const [scale, unit] = [[1e9, "G"], [1e6, "M"], [1e3, "k"]].find(([size]) => largest >= size) || [1, ""];
    const isExact = (value, digits) => Math.abs(value - +value.toFixed(digits)) <= 1e-6 * Math.max(1, Math.abs(value));
    let digits = 0;
    while (digits < 9 && !ticks.every(tick => isExact(tick / scale, digits))) digits++;
    return ticks.map(tick => withMinus((tick / scale).toFixed(digits) + (tick ? unit : "")));
  }

  const logLabel = tick => withMinus(String(+tick.toPrecision(6)));

  function numberText(value, digits = 4) {
    if (!isFinite(value)) return "\u2013";
    const size = Math.abs(value);
    if (size && (size < 1e-3 || size >= 1e9)) return withMinus(value.toExponential(digits - 2));
    const decimals = size ? Math.min(Math.max(digits - 1 - Math.floor(Math.log10(size)), 0), 6) : 0;
    return withMinus(value.toLocaleString("en", { minimumFractionDigits: decimals, maximumFractionDigits: decimals }));
  }

  // ---- drawing -----------------------------------------------------------------------------------------------------

  /* Draws a figure, and stores with its plot what the pointer needs. */
  function draw(box) {
    const figure = data.figures[box.id], plot = one(".plot", box);
    if (!figure || !plot) return;
    const lines = linesOf(figure);
    drawLegend(box, figure, lines);
    const visible = lines.filter(line => !state.hidden.has(line.label));
    const whole = xRange(lines);
    const xs = state.zoom && whole ? [Math.max(state.zoom[0], whole[0]), Math.min(state.zoom[1], whole[1])] : whole;
    const ys = xs && xs[0] < xs[1] && yRange(visible, figure.scale, xs);
    const width = plot.clientWidth, wide = box.classList.contains("wide");
    const height = Math.round(Math.min(Math.max(width * (wide ? 0.32 : 0.61), 220), wide ? 340 : 240));
    const view = plot.view = { box, plot, figure, lines: visible, xs, ys, width, height };
    plot.dataset.script = "";
    if (!ys) {
      plot.innerHTML = '<p class="empty">No values here.</p>';
      plot.view = null;
      return;
    }
    const floor = height - MARGIN.bottom, end = width - MARGIN.right, log = figure.scale.log;
    view.toX = x => MARGIN.left + (x - xs[0]) / (xs[1] - xs[0]) * (end - MARGIN.left);
    view.fromX = pixel => xs[0] + (pixel - MARGIN.left) / (end - MARGIN.left) * (xs[1] - xs[0]);
    const position = log
      ? y => Math.log(y / ys[0]) / Math.log(ys[1] / ys[0])
      : y => (y - ys[0]) / (ys[1] - ys[0]);
    view.toY = y => floor + (MARGIN.top - floor) * position(y);

    const xTicks = linearTicks(...xs, Math.max(3, Math.floor(width / 90)));
    const yTicks = log ? logTicks(...ys) : linearTicks(...ys, Math.floor(height / 36));
    const xLabels = tickLabels(xTicks), yLabels = log ? yTicks.map(logLabel) : tickLabels(yTicks);
    const at = value => +value.toFixed(1);
    const parts = [`<g class="rules">${yTicks.map(y => `<path d="M${MARGIN.left} ${at(view.toY(y))}H${end}"/>`).join("")}</g>`];
    parts.push(`<path class="axis" d="M${MARGIN.left} ${floor}H${end}"/><g class="y">`);
    yTicks.forEach((y, i) => parts.push(`<text x="${MARGIN.left - 6}" y="${at(view.toY(y) + 4)}">${yLabels[i]}</text>`));
    parts.push('</g><g class="x">');
    xTicks.forEach((x, i) => {
      const left = at(view.toX(x)), last = left > end - 12 ? ' class="end"' : "";
      parts.push(`<path d="M${left} ${floor}v4"/><text x="${left}" y="${floor + 16}"${last}>${xLabels[i]}</text>`);
    });
    const axis = data.axes[state.axis].label;
    parts.push(`</g><text class="label" x="${(MARGIN.left + end) / 2}" y="${height - 4}">${axis}</text>`);
    const clip = `clip-${box.id}`;
    parts.push(`<clipPath id="${clip}"><rect x="${MARGIN.left}" y="${MARGIN.top - 2}" width="${end - MARGIN.left}"`
      + ` height="${floor - MARGIN.top + 2}"/></clipPath><g clip-path="url(#${clip})">`);
    if (figure.scale.reference) {
      parts.push(`<path class="reference" d="M${MARGIN.left} ${at(view.toY(figure.scale.reference[0]))}H${end}"/>`);
    }
    for (const line of visible) {
      if (line.low) {
        const upper = pathOf(view, line.x, line.high), lower = pathOf(view, line.x, line.low, true);
        parts.push(`<path class="band c${line.colour}" d="${upper}L${lower.slice(1)}Z"/>`);
      }
      for (const run of line.behind) parts.push(`<path class="behind c${line.colour}" d="${pathOf(view, run.x, run.y)}"/>`);
    }
    for (const line of visible) {
      parts.push(`<path class="line c${line.colour} d${line.dash}" d="${pathOf(view, line.x, line.y)}"/>`);
      const last = line.y.findLastIndex(isFinite);
      if (last >= 0 && line.y[last] >= ys[0]) {
        parts.push(`<circle class="c${line.colour}" cx="${at(view.toX(line.x[last]))}" cy="${at(view.toY(line.y[last]))}" r="3"/>`);
      }
    }
    parts.push('</g><g class="pointer"></g>');
    const label = one("svg", plot)?.getAttribute("aria-label") || plot.label || "";
    plot.label = label;
    plot.innerHTML = `<svg class="chart" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img"`
      + ` tabindex="0">${parts.join("")}</svg><div class="tip" hidden></div>`;
    one("svg", plot).setAttribute("aria-label", label);
  }

  /* Returns a line as an SVG path, interrupted where a value is missing or below a logarithmic axis. */
  function pathOf(view, xs, ys, backwards = false) {
    const { log } = view.figure.scale, points = [];
    let pen = "M";
    for (let k = 0; k < xs.length; k++) {
      const i = backwards ? xs.length - 1 - k : k;
      if (!isFinite(ys[i]) || (log && ys[i] < view.ys[0] / 10)) { pen = "M"; continue; }
      const y = Math.min(Math.max(view.toY(ys[i]), -view.height), 2 * view.height);
      points.push(`${pen}${view.toX(xs[i]).toFixed(1)} ${y.toFixed(1)}`);
      pen = "L";
    }
    return points.join("");
  }

  function drawLegend(box, figure, lines) {
    const list = one(".legend", box);
    if (!list) return;
    list.dataset.script = "";
    const focused = list.contains(document.activeElement) ? document.activeElement.textContent : null;
    const swatch = kind => {
      const made = element("span", { class: "swatch" });
      made.innerHTML = `<svg width="30" height="10" viewBox="0 0 30 10" aria-hidden="true"><path class="${kind}" d="M2 5H28"/></svg>`;
      return made;
    };
    const named = lines.filter(line => line.label);
    const items = (named.length > 1 ? named : []).map(line => {
      const pressed = String(!state.hidden.has(line.label));
      const title = "Click: show or hide. Double click: show only this line.";
      const button = element("button", { type: "button", "aria-pressed": pressed, title }, swatch(`line c${line.colour} d${line.dash}`), line.label);
      button.onclick = event => { if (event.detail < 2) toggle(line.label, lines, false); };
      button.ondblclick = () => toggle(line.label, lines, true);
      if (line.label === focused) setTimeout(() => button.focus());
      return element("li", {}, button);
    });
    if (figure.scale.reference) {
      const [value, label] = figure.scale.reference;
      items.push(element("li", {}, swatch("reference"), `${label} ${withMinus(String(+value.toPrecision(3)))}`));
    }
    list.replaceChildren(...items);
    list.hidden = !items.length;
  }

  /* Shows or hides a line in every chart that has it; `alone` leaves it alone, or brings all lines back. */
  function toggle(label, lines, alone) {
    if (alone) {
      const others = lines.map(line => line.label).filter(name => name !== label);
      const isAlone = others.every(name => state.hidden.has(name));
      for (const name of others) if (isAlone) state.hidden.delete(name); else state.hidden.add(name);
      state.hidden.delete(label);
    } else if (!state.hidden.delete(label)) state.hidden.add(label);
    drawAll();
  }

  const figures = () => all("figure[data-chart]");

  function drawAll() {
    if (data) figures().forEach(draw);
    const reset = one("#reset-zoom");
    if (reset) reset.disabled = !state.zoom;
  }

  // ---- the pointer -------------------------------------------------------------------------------------------------

  function point(view, x) {
    for (const other of figures().map(box => one(".plot", box)?.view).filter(Boolean)) {
      mark(other, x, other === view);
    }
  }

  /* Draws the crosshair of a chart at x, and the values there if `withValues`. */
  function mark(view, x, withValues) {
    const layer = one(".pointer", view.plot), tip = one(".tip", view.plot);
    if (!layer) return;
    if (x === null || x < view.xs[0] || x > view.xs[1]) { layer.innerHTML = ""; tip.hidden = true; return; }
    const left = view.toX(x), rows = [];
    const dots = [`<path class="crosshair" d="M${left.toFixed(1)} ${MARGIN.top}V${view.height - MARGIN.bottom}"/>`];
    for (const line of view.lines) {
      const i = nearest(line, x);
      if (i < 0) continue;
      const y = view.toY(line.y[i]);
      if (y >= MARGIN.top - 2 && y <= view.height - MARGIN.bottom + 2) {
        dots.push(`<circle class="c${line.colour}" cx="${view.toX(line.x[i]).toFixed(1)}" cy="${y.toFixed(1)}" r="4"/>`);
      }
      rows.push({ line, i });
    }
    layer.innerHTML = dots.join("");
    tip.hidden = !withValues || !rows.length;
    if (tip.hidden) return;
    const { label, decimals } = data.axes[state.axis];
    const position = x.toLocaleString("en", { maximumFractionDigits: decimals });
    const head = element("p", {}, `${position} ${label}`);
    const table = element("table", { role: "presentation" });
    for (const { line, i } of rows) {
      const key = element("td", {}, element("i", { class: `key c${line.colour}` }), line.label || one("h3, h4", view.box).textContent);
      const range = line.low ? ` (${numberText(line.low[i])} to ${numberText(line.high[i])})` : "";
      table.append(element("tr", {}, key, element("td", { class: "number" }, numberText(line.y[i]) + range)));
    }
    tip.replaceChildren(head, table);
    const room = view.width - tip.offsetWidth;
    tip.style.left = `${Math.max(0, left + 14 + tip.offsetWidth > view.width ? Math.min(left - 14 - tip.offsetWidth, room) : left + 14)}px`;
  }

  /* Returns the x of the nearest known value of a chart. */
  function snap(view, x) {
    const xs = view.lines.map(line => line.x[nearest(line, x)]).filter(value => value >= view.xs[0] && value <= view.xs[1]);
    return xs.reduce((best, value) => Math.abs(value - x) < Math.abs(best - x) ? value : best, xs[0] ?? x);
  }

  /* Returns the index of the known value that is nearest to x; -1 outside the line. */
  function nearest(line, x) {
    const known = line.x.map((_, i) => i).filter(i => isFinite(line.y[i]) && isFinite(line.x[i]));
    if (!known.length) return -1;
    const at = firstFrom(known.map(i => line.x[i]), x);
    if (at === 0) return known[0];
    if (at === known.length) return known.at(-1);
    return x - line.x[known[at - 1]] < line.x[known[at]] - x ? known[at - 1] : known[at];
  }

  function zoomTo(range) {
    state.zoom = range;
    drawAll();
  }

  let drag = null;
  const viewAt = event => event.target.closest?.(".plot")?.view;
  const pixelIn = (view, event) => {
    const pixel = event.clientX - view.plot.getBoundingClientRect().left;
    return Math.min(Math.max(pixel, MARGIN.left), view.width - MARGIN.right);
  };

  document.addEventListener("pointerdown", event => {
    const view = viewAt(event);
    if (view && event.pointerType !== "touch" && event.button === 0) drag = { view, from: pixelIn(view, event) };
  });
  document.addEventListener("pointermove", event => {
    if (drag) {
      const to = pixelIn(drag.view, event), layer = one(".pointer", drag.view.plot);
      const [left, right] = [Math.min(drag.from, to), Math.max(drag.from, to)];
      if (layer) {
        layer.innerHTML = `<rect class="selection" x="${left}" y="${MARGIN.top}" width="${right - left}"`
          + ` height="${drag.view.height - MARGIN.bottom - MARGIN.top}"/>`;
      }
      const tip = one(".tip", drag.view.plot);
      if (tip) tip.hidden = true; // an update may have emptied the chart
      return;
    }
    const view = viewAt(event);
    point(view, view ? snap(view, view.fromX(pixelIn(view, event))) : null);
  });
  document.addEventListener("pointerup", event => {
    if (!drag) return;
    const { view, from } = drag, to = pixelIn(view, event);
    drag = null;
    if (Math.abs(to - from) >= DRAG_PIXELS) zoomTo([view.fromX(Math.min(from, to)), view.fromX(Math.max(from, to))]);
  });
  document.addEventListener("pointercancel", () => { drag = null; });
  document.addEventListener("dblclick", event => { if (viewAt(event)) zoomTo(null); });
  document.addEventListener("keydown", event => {
    const view = viewAt(event);
    if (!view) return;
    if (event.key === "Escape") { zoomTo(null); point(null, null); return; }
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const span = view.xs[1] - view.xs[0];
    view.at = Math.min(Math.max((view.at ?? view.xs[1]) + step * span / 50, view.xs[0]), view.xs[1]);
    point(view, snap(view, view.at));
  });
  document.addEventListener("focusout", event => { if (viewAt(event)) point(null, null); });

  // ---- the controls ------------------------------------------------------------------------------------------------

  function connectControls() {
    const tools = one(".tools");
    if (!tools) return;
    tools.hidden = false;
    // An update of a live page may have made the controls anew.
    for (const control of all("input", tools)) {
      if (control.name === "axis") control.checked = +control.value === state.axis;
      if (control.name === "lines") control.checked = (control.value === "agents") === state.byAgent;
      if (control.name === "smoothing") control.value = state.smoothing;
    }
    tools.oninput = event => {
      const control = event.target;
      if (control.name === "axis") { state.axis = +control.value; state.zoom = null; }
      if (control.name === "lines") state.byAgent = control.value === "agents";
      if (control.name === "smoothing") state.smoothing = +control.value;
      drawAll();
    };
    one("#reset-zoom").onclick = () => zoomTo(null);
  }

  let resized = 0;
  window.addEventListener("resize", () => { cancelAnimationFrame(resized); resized = requestAnimationFrame(drawAll); });
  window.addEventListener("beforeprint", drawAll);

  // ---- a live page -------------------------------------------------------------------------------------------------

  /* Makes an element equal to its newer version, and leaves alone what is equal, what a reader has opened, and what
     belongs to this script. */
  function update(old, newer) {
    if (old.isEqualNode(newer) || old.dataset?.script !== undefined) return;
    const same = old.nodeName === newer.nodeName && old.id === newer.id;
    if (!same || old.childNodes.length !== newer.childNodes.length) { old.replaceWith(document.importNode(newer, true)); return; }
    if (old.nodeType !== Node.ELEMENT_NODE) { old.nodeValue = newer.nodeValue; return; }
    const isOfReader = name => ["hidden", "open"].includes(name);
    for (const { name } of [...old.attributes]) {
      if (!isOfReader(name) && !newer.hasAttribute(name)) old.removeAttribute(name);
    }
    for (const { name, value } of newer.attributes) {
      if (!isOfReader(name)) old.setAttribute(name, value);
    }
    [...old.childNodes].forEach((child, i) => update(child, newer.childNodes[i]));
  }

  let failures = 0;

  /* Requests the page again and shows what is new; the last answer is the final report, which does not ask for more. */
  async function poll() {
    const { reload, paused } = document.body.dataset;
    if (!reload) return;
    if (paused === undefined) {
      try {
        const answer = await fetch(location.pathname, { cache: "no-store" });
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        const parts = ["header", "main", "footer"].map(name => [one(name), one(name, page)]);
        if (!answer.ok || !parts.flat().every(Boolean)) throw new Error("not a report");
        data = readData(page) || data;
        for (const [old, newer] of parts) update(old, newer);
        document.title = page.title;
        if (!page.body.dataset.reload) delete document.body.dataset.reload;
        start();
        failures = 0;
      } catch {
        failures += 1;
      }
    }
    const notice = one("#ended");
    if (notice) notice.hidden = failures < 2;
    setTimeout(poll, 1000 * reload);
  }

  function start() {
    connectControls();
    const pause = one("#pause");
    if (pause) {
      pause.hidden = false;
      pause.onclick = () => {
        const paused = document.body.toggleAttribute("data-paused");
        pause.textContent = paused ? "Continue" : "Pause";
      };
    }
    drawAll();
  }

  data = readData(document);
  start();
  setTimeout(poll, 1000 * (document.body.dataset.reload || 0));
  window.shoalReport = { linesOf: key => linesOf(data.figures[key]), state };
})();
