// Filters, panels of metrics over the runs, and the way to a comparison. Without this script all tables still stand.
"use strict";

const MOST_PANELS = 12;
const waiting = new Map(); // name of a part -> what to call with its value
const parts = new Map(); // name -> its promise
const root = document.body.dataset.root;

// Parts of data are scripts: a page that is opened from disk may load nothing else.
function hvbenchPart(name, value) {
  if (waiting.has(name)) waiting.get(name)(value);
  else parts.set(name, Promise.resolve(value));
}

function load(name) {
  if (!parts.has(name)) {
    parts.set(name, new Promise((resolve) => {
      waiting.set(name, resolve);
      const script = document.createElement("script");
      script.src = `${root}data/${name}.js`;
      script.addEventListener("error", () => resolve(null));
      document.head.append(script);
    }));
  }
  return parts.get(name);
}

// --- filters and permalinks: the address' fragment holds what is chosen ---

const controls = document.getElementById("controls");
const chart = document.getElementById("chart");
let suite = null;

function fields() {
  return [...controls.querySelectorAll("select, input"), ...chart.querySelectorAll("select")];
}

function readAddress() {
  const chosen = new URLSearchParams(location.hash.slice(1));
  for (const field of fields()) {
    const value = chosen.get(field.name) ?? "";
    if (field.dataset.axis) {
      const option = [...field.options].find((each) => each.text === value && each.value !== "");
      field.value = option ? option.value : "";
    } else if (field.tagName === "SELECT") {
      field.value = [...field.options].some((each) => each.value === value) ? value : field.options[0].value;
    } else field.value = value;
  }
}

function writeAddress() {
  const chosen = new URLSearchParams();
  for (const field of fields()) {
    const isFirst = field.tagName === "SELECT" ? field.selectedIndex === 0 : field.value === "";
    if (!isFirst) chosen.set(field.name, field.dataset.axis ? field.selectedOptions[0].text : field.value);
  }
  const text = chosen.toString();
  history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
}

function rowsOf(number) {
  const scope = number === undefined ? document : document.querySelector(`table[data-setup="${number}"]`);
  return scope ? [...scope.querySelectorAll("tr[data-point]")] : [];
}

async function loadRows() {
  for (const block of suite.blocks.filter((each) => !each.isLoaded)) {
    block.isLoaded = true;
    const part = await load(`${suite.id}-${block.number}-rows`);
    const table = part && document.querySelector(`table[data-setup="${part.setup}"]`);
    if (table) table.tBodies[0].insertAdjacentHTML("beforeend", part.rows);
  }
  const pages = document.querySelector("#points nav.pages");
  if (pages) pages.hidden = true;
}

function filterRows() {
  const axes = [...controls.querySelectorAll("select")].filter((field) => field.value !== "");
  const words = controls.elements.words.value.toLowerCase().split(/\s+/).filter(Boolean);
  let [shown, all] = [0, 0];
  for (const row of rowsOf()) {
    const chosen = JSON.parse(row.dataset.chosen);
    const text = [...row.cells].map((cell) => cell.textContent.toLowerCase());
    row.hidden = !(axes.every((field) => chosen[field.dataset.axis] === Number(field.value))
      && words.every((word) => text.some((cell) => cell.includes(word))));
    all += 1;
    if (!row.hidden) shown += 1;
  }
  const missing = suite.blocks.filter((block) => !block.isLoaded).reduce((sum, block) => sum + block.points.length, 0);
  const of = missing ? `, ${missing} more on further pages` : "";
  controls.querySelector("output").textContent = shown === all ? `${all} rows${of}` : `${shown} of ${all} rows${of}`;
}

let turn = 0;

async function apply() {
  const mine = ++turn;
  const isFiltered = [...controls.querySelectorAll("select, input")].some((field) => field.value !== "");
  if (isFiltered) await loadRows();
  if (mine !== turn) return;
  filterRows();
  if (!chart.hidden) await draw(mine);
}

// --- panels: one a configuration, its metric over the runs ---

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [320, 150, 52, 10, 12, 26];

function element(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function show4(value) {
  if (value === null) return "–";
  return Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : value.toPrecision(4);
}

function place(entries, over) {
  // Position of each entry: by number, by time, or by revision in the order in which they first appear.
  const runs = entries.map((entry) => suite.runs[entry[0]]);
  if (over === "time" && runs.every((run) => run[2] !== null)) return runs.map((run) => run[2]);
  if (over === "revisions") {
    const seen = [...new Set(runs.map((run) => run[3]))];
    return runs.map((run) => seen.indexOf(run[3]));
  }
  return runs.map((_, index) => index);
}

function panel(label, href, entries, words, over) {
  const figure = document.createElement("div");
  figure.className = "panel";
  const title = document.createElement("a");
  title.href = href;
  title.textContent = label;
  title.className = "panel-title";
  const last = entries[entries.length - 1];
  const svg = element("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${label}: ${words}, ${entries.length} runs, the newest ${show4(last[1])}` });
  const ends = entries.flatMap((entry) => [entry[1], entry[2], entry[3]]).filter((value) => value !== null);
  let [low, high] = [Math.min(...ends), Math.max(...ends)];
  const short = Math.max(0, 0.06 * high - (high - low)) / 2;
  [low, high] = [low - short, high + short];
  const xs = place(entries, over);
  const [first, end] = [Math.min(...xs), Math.max(...xs)];
  const toX = (value) => (end > first ? LEFT + 6 + (value - first) / (end - first) * (WIDTH - LEFT - RIGHT - 12) : (LEFT + WIDTH - RIGHT) / 2);
  const toY = (value) => TOP + (high - value) / (high - low || 1) * (HEIGHT - TOP - BOTTOM);
  for (const value of [low, (low + high) / 2, high]) {
    svg.append(element("line", { class: "grid-line", x1: LEFT, x2: WIDTH - RIGHT, y1: toY(value), y2: toY(value) }));
    svg.append(element("text", { class: "tick", x: LEFT - 6, y: toY(value) + 3.5, "text-anchor": "end" }, show4(value)));
  }
  const name = (entry) => (over === "revisions" ? suite.runs[entry[0]][3].slice(0, 7) || "unknown" : suite.runs[entry[0]][1].slice(0, 10));
  svg.append(element("text", { class: "tick", x: LEFT, y: HEIGHT - 8 }, name(entries[0])));
  if (entries.length > 1) svg.append(element("text", { class: "tick", x: WIDTH - RIGHT, y: HEIGHT - 8, "text-anchor": "end" }, name(last)));
  svg.marks = [];
  entries.forEach((entry, index) => {
    const [run, x] = [suite.runs[entry[0]], toX(xs[index])];
    const mark = entry[5];
    if (mark) {
      svg.append(element("line", { class: "step", x1: x, x2: x, y1: TOP - 8, y2: HEIGHT - BOTTOM + 4 }));
      svg.append(element("text", { class: "step-text", x: Math.min(x + 4, WIDTH - 44), y: TOP }, mark.text));
    }
    if (entry[2] !== null) svg.append(element("line", { class: "interval", x1: x, x2: x, y1: toY(entry[2]), y2: toY(entry[3]) }));
  });
  if (over !== "revisions") svg.append(element("polyline", { class: "line", points: entries.map((entry, index) => `${toX(xs[index]).toFixed(1)},${toY(entry[1]).toFixed(1)}`).join(" ") }));
  entries.forEach((entry, index) => {
    const [run, mark] = [suite.runs[entry[0]], entry[5]];
    const dot = element("circle", { class: "dot", cx: toX(xs[index]).toFixed(1), cy: toY(entry[1]).toFixed(1), r: 2.8 });
    const interval = entry[2] === null ? `n = ${entry[4]}` : `${show4(entry[2])} to ${show4(entry[3])}, n = ${entry[4]}`;
    const level = mark ? `; a new level, ${mark.text}${mark.commits ? `, ${mark.commits}` : ""}${mark.ab ? `, ab: ${mark.ab.verdict}` : ""}` : "";
    dot.dataset.tip = `${run[1]}${run[3] ? `, ${run[3].slice(0, 12)}` : ""}: ${show4(entry[1])} (${interval})${level}`;
    dot.addEventListener("click", () => { location.href = root + run[0]; });
    svg.marks.push(dot);
    svg.append(dot);
  });
  svg.addEventListener("pointermove", (event) => show(svg, event));
  svg.addEventListener("pointerdown", (event) => show(svg, event));
  svg.addEventListener("pointerleave", hide);
  figure.append(title, svg);
  return figure;
}

async function draw(mine) {
  const [metric, over, on] = ["metric", "over", "on"].map((name) => chart.querySelector(`select[name=${name}]`).value);
  const rows = rowsOf(Number(on)).filter((row) => !row.hidden);
  const drawn = [];
  for (const row of rows.slice(0, MOST_PANELS)) {
    const block = suite.blocks.find((each) => each.setup === Number(on) && each.points.includes(row.dataset.point));
    if (!block || !block.metrics.includes(metric)) continue;
    const lines = await load(`${suite.id}-${block.number}-${metric}`);
    const entries = lines && lines[row.dataset.point];
    if (entries) drawn.push(panel(row.dataset.label, row.querySelector("a").getAttribute("href"), entries, suite.metrics[metric], over));
  }
  if (mine !== turn) return;
  document.getElementById("panels").replaceChildren(...drawn);
  const more = rows.length > MOST_PANELS ? ` The first ${MOST_PANELS} of ${rows.length} configurations: filter to see others.` : "";
  const none = drawn.length ? "" : " No run has it here.";
  document.getElementById("drawn-note").textContent = `${suite.metrics[metric]}: a dot a run with its 95 % interval; a line across where a new level begins.${more}${none}`;
}

function begin(value) {
  suite = value;
  controls.hidden = false;
  chart.hidden = suite.runs.length < 2; // one run is no line
  readAddress();
  for (const field of fields()) field.addEventListener("input", () => { writeAddress(); apply(); });
  addEventListener("hashchange", () => { readAddress(); apply(); });
  apply();
}

if (controls && chart) load(`${controls.dataset.suite}-suite`).then((value) => value && begin(value));

// --- the way to a comparison of two runs ---

const pick = document.getElementById("pick");

function findComparison(a, b) {
  // The row of B against A names both runs by the links to their pages.
  const pages = [b, a].map((id) => `${root}runs/${id}.html`);
  const row = [...document.querySelectorAll("#compare tbody tr")].find((each) =>
    pages.every((page, index) => each.cells[index].querySelector("a").getAttribute("href") === page));
  return row && row.cells[row.cells.length - 1].querySelector("a").getAttribute("href");
}

function offer() {
  const [a, b] = ["a", "b"].map((name) => pick.elements[name].selectedOptions[0]);
  const [there, back] = [findComparison(a.value, b.value), findComparison(b.value, a.value)];
  const output = pick.querySelector("output");
  if (there || back) {
    const way = document.createElement("a");
    way.href = there || back;
    way.textContent = there ? "B against A" : "A against B";
    output.replaceChildren(way);
  } else if (a.value === b.value) output.textContent = "the same run twice";
  else {
    const command = document.createElement("code");
    command.textContent = `hvbench compare ${a.dataset.name} ${b.dataset.name}`;
    output.replaceChildren(command);
  }
}

if (pick) {
  pick.hidden = false;
  pick.elements.b.selectedIndex = 0;
  pick.elements.a.selectedIndex = Math.min(1, pick.elements.a.options.length - 1);
  pick.addEventListener("input", offer);
  offer();
}

// --- served on this machine: show a new build as soon as there is one ---

let known = null;

function hvbenchBuilt(digest) {
  if (known !== null && digest !== known) location.reload();
  known = digest;
}

function look() {
  const script = document.createElement("script");
  script.src = `${document.body.dataset.built}?${Date.now()}`;
  script.addEventListener("load", () => script.remove());
  script.addEventListener("error", () => script.remove());
  document.head.append(script);
}

if (["127.0.0.1", "localhost"].includes(location.hostname)) {
  look();
  setInterval(look, 4000);
}
