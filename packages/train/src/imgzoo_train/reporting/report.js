"use strict";
const frames = [...document.querySelectorAll("[data-figure]")].map((frame) => [frame, data.figures[frame.dataset.figure]]);

/** The running mean with weight `share` of what came before, without a bias to its beginning. */
function smoothed(values, share) {
  let sum = 0, weight = 0;
  return values.map((value) => {
    sum = share * sum + (1 - share) * value;
    weight = share * weight + (1 - share);
    return sum / weight;
  });
}

function traces(line, share) {
  const ink = color(`c${line.color}`), name = line.name, { x, y } = line;
  if (line.kind === "bar") return [{ type: "bar", name, x, y, marker: { color: ink, opacity: 0.75 }, width: 0.055 }];
  if (line.kind === "point") {
    return [{ type: "scatter", mode: "markers", name, x, y, marker: { color: ink, opacity: 0.5, size: 6 } }];
  }
  const style = { color: ink, width: 2, dash: line.dashed ? "dash" : "solid" };
  const plain = { type: "scatter", mode: x.length > 30 ? "lines" : "lines+markers", name, x, y, line: style,
    marker: { size: 5, color: ink } };
  if (!share || y.length < 3) return [plain];
  return [{ ...plain, opacity: 0.25, showlegend: false, hoverinfo: "skip" }, { ...plain, y: smoothed(y, share) }];
}

function drawLines(frame, figure) {
  const share = figure.smooth ? +(at("smoothing")?.value ?? 0) : 0, log = figure.up === "loss" && at("log")?.checked;
  const fixed = figure.range ? { range: figure.range } : {};
  return Plotly.react(frame, figure.lines.flatMap((line) => traces(line, share)), layout({
    showlegend: figure.lines.length > 1, xaxis: { title: { text: figure.across }, ...fixed },
    yaxis: { title: { text: figure.up }, type: log ? "log" : "linear", ...fixed } }), still);
}

/** Cells that nobody fell into stay empty; what is right counts up, a mistake down, by the root of its share. */
function drawHeat(frame, figure) {
  const { labels, rows, columns, counts } = figure, size = labels.length, whole = new Array(size).fill(0);
  rows.forEach((row, k) => { whole[row] += counts[k]; });
  const share = rows.map((row, k) => counts[k] / whole[row]);
  const most = rows.reduce((so, row, k) => (row === columns[k] ? so : Math.max(so, share[k])), 1e-9);
  const z = labels.map(() => new Float32Array(size).fill(NaN)), words = labels.map(() => []), few = size <= 25;
  const least = few ? 0 : 0.4;  // a single cell of many is small, and shall be seen
  rows.forEach((row, k) => {
    const column = columns[k];
    z[row][column] = row === column ? Math.sqrt(share[k]) : -least - (1 - least) * Math.sqrt(share[k] / most);
    words[row][column] = few ? counts[k] : `${labels[row]} → ${labels[column]}: ${counts[k]}, ${(100 * share[k]).toFixed(1)}%`;
  });
  const axis = size <= 40 ? { tickvals: labels.map((_, i) => i), ticktext: labels.map((name) => name.slice(0, 18)) } : {};
  const trace = { type: "heatmap", z, text: words, zmin: -1, zmax: 1, showscale: false, hoverongaps: false, xgap: few ? 1 : 0,
    ygap: few ? 1 : 0, colorscale: [[0, color("c1")], [0.5, color("paper")], [1, color("c0")]],
    hovertemplate: few ? "right %{y}<br>given %{x}<br>%{text}<extra></extra>" : "%{text}<extra></extra>" };
  if (few) trace.texttemplate = "%{text}";
  return Plotly.react(frame, [trace], layout({ margin: { l: 60, r: 10, t: 10, b: 60 },
    xaxis: { showgrid: false, constrain: "domain", ...axis },
    yaxis: { showgrid: false, autorange: "reversed", scaleanchor: "x", constrain: "domain",
      ...axis } }), still);
}

function draw(which = () => true) {
  const start = performance.now();
  const drawn = frames.filter(([, figure]) => which(figure)).map(([frame, figure]) => (
    figure.kind === "heat" ? drawHeat(frame, figure) : drawLines(frame, figure)));
  return Promise.all(drawn).then(() => { root.dataset.drawMs = (performance.now() - start).toFixed(0); });
}

library.then(async (charts) => {
  if (charts) {
    for (const [frame] of frames) { frame.replaceChildren(); frame.parentElement.classList.add("drawn"); }
    await draw();
    document.addEventListener("painted", () => draw());
    for (const id of ["smoothing", "log"]) at(id)?.addEventListener("input", () => draw((figure) => figure.smooth));
  } else {
    for (const id of ["smoothing", "log"]) if (at(id)) at(id).closest("p").hidden = true;
  }
  root.dataset.ready = "true";
});
