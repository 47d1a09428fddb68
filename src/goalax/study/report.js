// The report's script: pointing at a drawing tells the values there, a click on a name of its legend hides the line.
"use strict";

const SVG = "http://www.w3.org/2000/svg";

for (const chart of document.querySelectorAll(".chart")) {
  const svg = chart.querySelector("svg");
  const data = JSON.parse(chart.dataset.curves);
  const hidden = new Set();  // labels
  const { width, height } = svg.viewBox.baseVal;
  const guide = svg.appendChild(document.createElementNS(SVG, "line"));
  const tip = chart.appendChild(document.createElement("div"));
  guide.setAttribute("class", "guide");
  guide.style.display = "none";
  tip.className = "tip";
  tip.hidden = true;

  function artists(name) {
    return [0, 1].map((part) => document.getElementById(`${data.name}-${name}-${part}`)).filter(Boolean);
  }

  function colour(curve) {
    const path = artists(data.curves.indexOf(curve))[0].querySelector("path");
    return path ? getComputedStyle(path).stroke : "currentColor";
  }

  // ---- lines that are shown and hidden ----

  function toggle(label) {
    hidden.has(label) ? hidden.delete(label) : hidden.add(label);
    const off = hidden.has(label);
    data.curves.forEach((curve, number) => {
      if (curve.label === label) for (const each of artists(number)) each.style.display = off ? "none" : "";
    });
    for (const each of artists(`legend-${label}`)) {
      each.style.opacity = off ? 0.3 : "";
      each.setAttribute("aria-pressed", String(!off));
    }
  }

  data.labels.forEach((words, label) => {
    for (const each of artists(`legend-${label}`)) {
      each.classList.add("key");
      each.addEventListener("click", () => toggle(label));
    }
    const text = artists(`legend-${label}`).at(-1);
    text.setAttribute("role", "button");
    text.setAttribute("tabindex", "0");
    text.setAttribute("aria-pressed", "true");
    text.setAttribute("aria-label", `show ${words}`);
    text.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        toggle(label);
      }
    });
  });

  // ---- values under the pointer ----

  function leave() {
    tip.hidden = true;
    guide.style.display = "none";
  }

  function show(event) {
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    const [across, down] = [point.x / width, point.y / height];
    const panel = data.panels.findIndex(({ box }) =>
      box[0] <= across && across <= box[2] && box[1] <= down && down <= box[3]);
    if (panel < 0) return leave();
    const { box, x, along } = data.panels[panel];
    const wanted = x[0] + ((across - box[0]) / (box[2] - box[0])) * (x[1] - x[0]);
    const rows = data.curves
      .filter((curve) => curve.panel === panel && !hidden.has(curve.label))
      .filter((curve) => covers(curve.x, wanted, x))
      .map((curve) => ({ curve, index: nearest(curve.x, wanted) }))
      .filter(({ curve, index }) => curve.y[0][index] !== null)
      .map((each) => ({ ...each, at: each.curve.x[each.index] }))
      .sort((a, b) => b.curve.y[0][b.index] - a.curve.y[0][a.index]);
    if (!rows.length) return leave();
    const place = rows[nearest(rows.map((each) => each.at), wanted)].at;
    const line = (box[0] + ((place - x[0]) / (x[1] - x[0])) * (box[2] - box[0])) * width;
    for (const [name, value] of [["x1", line], ["x2", line], ["y1", box[1] * height], ["y2", box[3] * height]]) {
      guide.setAttribute(name, value);
    }
    guide.style.display = "";
    tip.replaceChildren(entry(`${number(place)} ${along}`), ...rows.map((each) => row(each, place)));
    tip.hidden = false;
    const room = chart.getBoundingClientRect();
    const left = event.clientX - room.left;
    tip.style.left = `${left + 16 + tip.offsetWidth > room.width ? Math.max(0, left - 16 - tip.offsetWidth) : left + 16}px`;
    tip.style.top = `${event.clientY - room.top + 12}px`;
  }

  function row({ curve, index, at }, place) {
    const [value, low, high] = curve.y.map((part) => part[index]);
    const interval = low === null ? "" : ` (${low.toFixed(3)} to ${high.toFixed(3)})`;
    const elsewhere = at === place ? "" : ` at ${number(at)}`;
    const line = entry(`${value.toFixed(3)}${interval}  ${data.labels[curve.label]}${elsewhere}`);
    const swatch = document.createElement("i");
    swatch.style.background = colour(curve);
    line.prepend(swatch);
    return line;
  }

  svg.addEventListener("pointermove", show);
  svg.addEventListener("pointerdown", show);
  svg.addEventListener("pointerleave", leave);
}

/** Whether a curve says something about a place of a panel: not where it has ended, or not begun. */
function covers(x, wanted, [left, right]) {
  const near = Math.max((x.at(-1) - x[0]) / Math.max(x.length - 1, 1) / 2, 0.02 * (right - left));
  return x[0] - near <= wanted && wanted <= x.at(-1) + near;
}

function entry(text) {
  const line = document.createElement("div");
  line.textContent = text;
  return line;
}

function nearest(values, wanted) {
  let best = 0;
  values.forEach((value, index) => {
    if (Math.abs(value - wanted) < Math.abs(values[best] - wanted)) best = index;
  });
  return best;
}

function number(value) {
  return value.toLocaleString("en", { maximumSignificantDigits: Number.isInteger(value) ? 21 : 6 });
}
