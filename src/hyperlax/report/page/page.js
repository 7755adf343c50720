"use strict";
(() => {
  const { specs, themes } = JSON.parse(document.getElementById("charts").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const views = new Map();
  const picked = new Set();

  // Charts are made for a page of full width. On a narrow one their panels stand below one another, as wide as the
  // page, and legends below them; what has a width in steps keeps it, and scrolls inside its own box.
  const roomy = 700;
  function fitting(spec, room) {
    if (room >= roomy) return spec;
    const { legend = {}, axis = {} } = spec.config;
    spec.config = {
      ...spec.config, legend: { ...legend, orient: "bottom", columns: 1 }, axis: { ...axis, labelLimit: 112 },
    };
    return narrowed(spec, room - 8);
  }

  function narrowed(spec, room) {
    for (const row of ["hconcat", "concat"]) {
      if (!spec[row]) continue;
      spec.vconcat = spec[row];
      delete spec[row];
      delete spec.columns;
    }
    spec.vconcat?.forEach((part) => narrowed(part, room));
    if (spec.facet && spec.spec) {
      spec.columns = 1;
      narrowed(spec.spec, room);
    }
    if (typeof spec.width === "number") spec.width = Math.min(spec.width, room - 134);
    return spec;
  }

  // Colours are made for a light page; on a dark one the darkest of them get lighter, and keep their hue.
  function legible(spec) {
    const lighter = (colour) => {
      const channels = colour.match(/[0-9a-f]{2}/g).map((pair) => parseInt(pair, 16));
      const [red, green, blue] = channels.map((value) => (value / 255) ** 2.2);
      const share = 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.25 ? 0.35 : 0;
      const raised = channels.map((value) => Math.round(value + (255 - value) * share));
      return "#" + raised.map((value) => value.toString(16).padStart(2, "0")).join("");
    };
    return JSON.parse(JSON.stringify(spec).replace(/(?<=")#[0-9a-f]{6}(?=")/g, lighter));
  }

  async function draw(holder) {
    const name = holder.dataset.chart;
    const mode = dark.matches ? "dark" : "light";
    const drawn = dark.matches ? legible(specs[name]) : structuredClone(specs[name]);
    const spec = fitting({ ...drawn, config: themes[mode] }, holder.clientWidth);
    views.get(name)?.finalize();
    const { view } = await vegaEmbed(holder, spec, {
      mode: "vega-lite", renderer: "canvas", tooltip: { theme: mode },
      actions: { export: { png: true, svg: true }, source: false, compiled: false, editor: false },
      downloadFileName: name, scaleFactor: 2,
    });
    views.set(name, view);
    view.addEventListener("click", (_, item) => {
      const sample = item?.datum?.sample;
      if (Number.isInteger(sample) ? sample >= 0 : typeof sample === "string") toggle(sample);
    });
    highlight(view);
  }

  // Sample keys are integers on the page of one experiment, and strings "family number" on a page of several.
  const key = (row) => (/^\d+$/.test(row.dataset.sample) ? Number(row.dataset.sample) : row.dataset.sample);
  const visible = (holder) => !holder.closest("[hidden]");
  const holders = () => [...document.querySelectorAll("[data-chart]")];
  const drawAll = () => Promise.all(holders().filter(visible).map(draw));

  function highlight(view) {
    view.signal("picked", [...picked]).runAsync();
  }

  function toggle(sample) {
    if (!picked.delete(sample)) picked.add(sample);
    showSelection();
  }

  function showSelection() {
    for (const row of document.querySelectorAll("tr[data-sample]")) {
      const on = picked.has(key(row));
      row.classList.toggle("picked", on);
      row.setAttribute("aria-selected", on);
    }
    views.forEach(highlight);
    const bar = document.getElementById("selection");
    bar.hidden = picked.size === 0;
    bar.querySelector("b").textContent = [...picked].sort((a, b) => a - b || (a < b ? -1 : 1)).join(", ");
  }

  function sortBy(table, column, button) {
    const header = button.closest("th");
    const descending = header.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const content = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
    const empty = (value) => value === "" || value === "–";
    const compare = (a, b) => {
      const [x, y] = [content(a), content(b)];
      if (empty(x) || empty(y)) return empty(x) - empty(y);
      const numbers = [Number(x), Number(y)];
      const order = numbers.some(Number.isNaN) ? x.localeCompare(y) : numbers[0] - numbers[1];
      return descending ? -order : order;
    };
    table.tBodies[0].append(...[...table.tBodies[0].rows].sort(compare));
  }

  // Filter queries such as "relu gamma>0.95": a row must match every word. A comparison applies to the column of exactly
  // that name or, if there is none, to any column whose name contains it.
  function matcher(table, query) {
    const words = (name) => name.toLowerCase().replaceAll("_", " "); // headers show names in this form
    const names = [...table.tHead.rows[0].cells].map((cell) => words(cell.textContent.trim()));
    const tests = query.toLowerCase().split(/\s+/).filter(Boolean).map((word) => {
      const parts = word.match(/^([^<>=]+)(<=|>=|<|>|=)(.+)$/);
      if (!parts) return (row) => row.textContent.toLowerCase().includes(word);
      const [, name, sign, wanted] = parts;
      const exact = names.indexOf(words(name));
      const columns = exact >= 0 ? [exact] : names.flatMap((n, i) => (n.includes(words(name)) ? [i] : []));
      const holds = (value) => {
        const [a, b] = [Number(value), Number(wanted)];
        if (sign === "=") return value.toLowerCase() === wanted || (value !== "" && a === b);
        if (value === "") return false;
        return sign === "<" ? a < b : sign === ">" ? a > b : sign === "<=" ? a <= b : a >= b;
      };
      return (row) => columns.some((i) => holds(row.cells[i].dataset.value ?? row.cells[i].textContent));
    });
    return (row) => tests.every((test) => test(row));
  }

  function filterRows(table, query, output) {
    const matches = matcher(table, query);
    const rows = [...table.tBodies[0].rows];
    for (const row of rows) row.hidden = !matches(row);
    output.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length}`;
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((cell, column) => {
      cell.querySelector("button").addEventListener("click", (event) => sortBy(table, column, event.currentTarget));
    });
  }
  for (const input of document.querySelectorAll("input[data-filters]")) {
    const table = document.getElementById(input.dataset.filters);
    input.addEventListener("input", () => filterRows(table, input.value, input.parentElement.querySelector("output")));
  }
  for (const row of document.querySelectorAll("tr[data-sample]")) {
    row.tabIndex = 0;
    row.addEventListener("click", () => toggle(key(row)));
    row.addEventListener("keydown", (event) => {
      if (event.key === "Enter") toggle(key(row));
    });
  }
  for (const tab of document.querySelectorAll("[role=tab]")) {
    tab.addEventListener("click", () => {
      for (const other of tab.parentElement.querySelectorAll("[role=tab]")) {
        other.setAttribute("aria-selected", other === tab);
        document.getElementById(other.getAttribute("aria-controls")).hidden = other !== tab;
      }
      document.querySelectorAll(`#${tab.getAttribute("aria-controls")} [data-chart]`).forEach((holder) => {
        if (!views.has(holder.dataset.chart)) draw(holder);
      });
    });
  }
  document.getElementById("clear").addEventListener("click", () => {
    picked.clear();
    showSelection();
  });
  dark.addEventListener("change", () => {
    views.forEach((view) => view.finalize());
    views.clear();
    drawAll();
  });
  drawAll();
})();
