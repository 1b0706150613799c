"use strict";
const { columns, version } = data;
const TITLES = { name: "name", top1: "ImageNet", gmacs: "GMACs", params: "M params", ms: "ms", size: "size",
  family: "family", license: "license", plugin: "plugin", real: "ReaL", v2: "V2", a: "A", r: "R", sketch: "Sketch",
  macts: "M activations" };
const WORDS = ["name", "family", "license", "plugin"];
const SCORES = ["top1", "real", "v2", "a", "r", "sketch"];
const COSTS = ["gmacs", "params", "macts", "ms", "size"];
const PAGE = 100;
const lower = columns.name.map((name) => name.toLowerCase());
const millions = columns.params.map((value) => (value === null ? null : value / 1e6));
const value = (column, i) => (column === "params" ? millions[i] : columns[column][i]);
const has = (column) => columns[column].some((item) => item !== null);
const HEAD = Object.keys(TITLES).filter((column) => WORDS.includes(column) || has(column));
let order = { column: "top1", down: true };
let found = [];
let shown = PAGE;

function fill(select, options, all) {
  select.replaceChildren(...(all ? [new Option(all, "")] : []), ...options.map(([text, key]) => new Option(text, key)));
}

function different(column) {
  const known = [...new Set(columns[column].filter((item) => item !== null && item !== ""))];
  return known.sort((a, b) => (typeof a === "number" ? a - b : a.localeCompare(b))).map((item) => [item, item]);
}

function kept() {
  const words = at("text").value.toLowerCase().split(/\s+/).filter(Boolean);
  const equal = ["family", "plugin", "license", "size"].map((id) => [columns[id], at(id).value]).filter(([, v]) => v);
  const most = ["params", "gmacs"].map((id) => [id, at(id).value]).filter(([, v]) => v !== "").map(([c, v]) => [c, +v]);
  const least = at("top1").value === "" ? null : +at("top1").value;
  const able = [...document.querySelectorAll("#capabilities input:checked")].map((box) => box.value);
  const rows = [];
  for (let i = 0; i < lower.length; i++) {
    if (words.every((word) => lower[i].includes(word))
      && equal.every(([items, wanted]) => String(items[i]) === wanted)
      && most.every(([column, bound]) => value(column, i) !== null && value(column, i) <= bound)
      && (least === null || (columns.top1[i] !== null && columns.top1[i] >= least))
      && able.every((item) => columns.capabilities[i].includes(item))) rows.push(i);
  }
  return rows;
}

function sorted(rows) {
  const { column, down } = order, sign = down ? -1 : 1;
  return rows.sort((i, j) => {
    const a = value(column, i), b = value(column, j);
    if (a === null || b === null) return (a === null) - (b === null) || i - j;
    return sign * (typeof a === "number" ? a - b : a.localeCompare(b, undefined, { numeric: true })) || i - j;
  });
}

function figure(column, i) {
  const item = value(column, i);
  if (item === null) return "";
  if (typeof item !== "number") return item;
  return SCORES.includes(column) ? item.toFixed(2) : String(+item.toPrecision(4));
}

function drawRows() {
  const rows = found.slice(0, shown).map((i) => {
    const row = document.createElement("tr");
    row.append(...HEAD.map((column) => {
      const cell = document.createElement("td");
      if (WORDS.includes(column)) cell.className = "word";
      if (column === "name") {
        const button = document.createElement("button");
        button.type = "button";
        button.textContent = columns.name[i];
        button.onclick = () => choose(i);
        cell.append(button);
      } else cell.textContent = figure(column, i);
      return cell;
    }));
    return row;
  });
  at("rows").replaceChildren(...rows);
  at("more").hidden = shown >= found.length;
}

function drawHead() {
  at("head").replaceChildren(...HEAD.map((column) => {
    const cell = document.createElement("th"), button = document.createElement("button"), here = order.column === column;
    cell.scope = "col";
    if (WORDS.includes(column)) cell.className = "word";
    cell.setAttribute("aria-sort", here ? (order.down ? "descending" : "ascending") : "none");
    button.type = "button";
    button.dataset.column = column;
    button.textContent = TITLES[column] + (here ? (order.down ? " ↓" : " ↑") : "");
    button.onclick = () => {
      order = { column, down: here ? !order.down : !WORDS.includes(column) };
      drawHead();
      update();
      document.querySelector(`#head [data-column="${column}"]`).focus();
    };
    cell.append(button);
    return cell;
  }));
}

function front(rows, x, y) {
  const line = [];
  for (const i of [...rows].sort((i, j) => value(x, i) - value(x, j) || columns[y][j] - columns[y][i])) {
    if (!line.length || columns[y][i] > columns[y][line[line.length - 1]]) line.push(i);
  }
  return line;
}

function drawChart() {
  const x = at("x").value, y = at("y").value, accent = color("accent");
  const rows = found.filter((i) => value(x, i) !== null && columns[y][i] !== null), line = front(rows, x, y);
  const points = { type: "scatter", mode: "markers", name: "weights", customdata: rows, x: rows.map((i) => value(x, i)),
    y: rows.map((i) => columns[y][i]), text: rows.map((i) => columns.name[i]),
    hovertemplate: `%{text}<br>${TITLES[x]} %{x}<br>${TITLES[y]} %{y}<extra></extra>`,
    marker: { size: 6, color: accent, opacity: 0.45 } };
  const best = { ...points, mode: "lines+markers", name: "Pareto front", customdata: line, x: line.map((i) => value(x, i)),
    y: line.map((i) => columns[y][i]), text: line.map((i) => columns.name[i]), line: { color: accent, width: 1.5 },
    marker: { size: 8, color: accent } };
  Plotly.react("chart", [points, best], layout({ showlegend: true,
    xaxis: { title: { text: TITLES[x] }, type: at("log").checked ? "log" : "linear" },
    yaxis: { title: { text: `${TITLES[y]} top-1, %` } } }), still);
  root.dataset.front = line.length;
}

function choose(i) {
  const name = columns.name[i], scored = SCORES.filter((column) => columns[column][i] !== null);
  at("chosen").hidden = false;
  at("chosen-name").textContent = name;
  at("chosen-facts").textContent = [columns.family[i], columns.plugin[i], columns.license[i],
    millions[i] === null ? "" : `${figure("params", i)} M parameters`,
    columns.gmacs[i] === null ? "" : `${figure("gmacs", i)} GMACs at ${columns.size[i]}`,
    ...scored.map((column) => `${TITLES[column]} ${figure(column, i)}`), columns.capabilities[i].join(", ")]
    .filter(Boolean).join(" · ");
  at("python").textContent = `imgzoo.create_model("${name}", pretrained=${name.includes(".") ? "True" : "False"})`;
  at("shell").textContent = `imgzoo info ${name}`;
  at("chosen").scrollIntoView({ block: "nearest" });
}

function update() {
  const start = performance.now();
  found = sorted(kept());
  shown = PAGE;
  drawRows();
  at("line").textContent = `${found.length} of ${lower.length} models and weights, imgzoo ${version}`;
  root.dataset.filterMs = (performance.now() - start).toFixed(2);
}

let later = 0;
function changed() {
  update();
  clearTimeout(later);
  later = setTimeout(() => library.then((charts) => charts && drawChart()), 120);
}

fill(at("family"), different("family"), "all");
fill(at("plugin"), different("plugin"), "all");
fill(at("license"), different("license"), "all");
fill(at("size"), different("size"), "all");
fill(at("x"), COSTS.filter(has).map((column) => [TITLES[column], column]));
fill(at("y"), SCORES.filter(has).map((column) => [TITLES[column], column]));
at("capabilities").append(...[...new Set(columns.capabilities.flat())].sort().map((item) => {
  const label = document.createElement("label"), box = document.createElement("input");
  box.type = "checkbox";
  box.value = item;
  label.append(box, item);
  return label;
}));
at("filters").addEventListener("input", changed);
at("everything").onclick = () => { at("filters").reset(); changed(); };
at("more").onclick = () => { shown += PAGE; drawRows(); };
at("filters").onsubmit = () => false;
drawHead();
update();
library.then((charts) => {
  if (!charts) { at("chart").textContent = "This browser cannot unpack the chart."; return; }
  drawChart();
  for (const id of ["x", "y", "log"]) at(id).addEventListener("change", drawChart);
  document.addEventListener("painted", drawChart);
  at("chart").on("plotly_click", (event) => choose(event.points[0].customdata));
  root.dataset.ready = "true";
});
