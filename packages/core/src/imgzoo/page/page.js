"use strict";
const at = (id) => document.getElementById(id);
const root = document.documentElement;
const data = at("data") && JSON.parse(at("data").textContent);

/** The chart library, unpacked; null where the page carries none, or the browser cannot unpack it. */
const library = (async () => {
  const packed = at("charts");
  if (!packed || !window.DecompressionStream) return null;
  const bytes = Uint8Array.from(atob(packed.textContent), (letter) => letter.charCodeAt(0));
  const plain = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(plain).text();
  document.head.append(script);
  return window.Plotly;
})();

/** A color of the stylesheet as the page shows it now. */
function color(name) {
  const probe = document.createElement("span");
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

/** What all charts of a page share. */
function layout(more) {
  const axis = { gridcolor: color("line"), linecolor: color("line"), zeroline: false, ticks: "outside", automargin: true,
    tickcolor: color("line") };
  const { xaxis, yaxis, ...others } = more;
  for (const each of [xaxis, yaxis]) if (each?.title) each.title.standoff = 12;
  return { margin: { l: 55, r: 15, t: 10, b: 45 }, hovermode: "closest", font: { color: color("ink"),
    family: "system-ui, sans-serif", size: 12 }, hoverlabel: { bgcolor: color("soft"), bordercolor: color("line"),
    font: { color: color("ink") } }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 }, ...others, xaxis: { ...axis, ...xaxis },
    yaxis: { ...axis, ...yaxis } };
}

const still = { responsive: true, displayModeBar: false };

function paint(dark) {
  root.dataset.theme = dark ? "dark" : "light";
  at("theme").textContent = dark ? "Light" : "Dark";
  at("theme").setAttribute("aria-pressed", dark);
  document.dispatchEvent(new Event("painted"));
}

at("theme").onclick = () => paint(root.dataset.theme !== "dark");
paint(matchMedia("(prefers-color-scheme: dark)").matches);
for (const button of document.querySelectorAll("[data-copy]")) {
  button.onclick = () => navigator.clipboard.writeText(at(button.dataset.copy).textContent)
    .then(() => { button.textContent = "Copied"; setTimeout(() => { button.textContent = "Copy"; }, 1500); });
}
