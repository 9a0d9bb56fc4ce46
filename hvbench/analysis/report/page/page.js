// Tables that sort and filter, and exact figures beside the pointer. Without this script the page still shows everything.
"use strict";

const collator = new Intl.Collator("en", { numeric: true });

function compare(a, b, sign) {
  // What is missing stands last, whichever way the column is sorted.
  const [x, y] = [a.dataset.v, b.dataset.v];
  if (x !== undefined && y !== undefined) return sign * (Number(x) - Number(y));
  if (x !== undefined || y !== undefined) return x === undefined ? 1 : -1;
  return sign * collator.compare(a.textContent, b.textContent);
}

function sort(table, index, header) {
  const direction = header.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", direction);
  const sign = direction === "ascending" ? 1 : -1;
  const rows = [...table.tBodies[0].rows].sort((a, b) => compare(a.cells[index], b.cells[index], sign));
  table.tBodies[0].append(...rows);
}

function filter(table, words, output) {
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = [...table.tBodies[0].rows];
  for (const row of rows) {
    const cells = [...row.cells].map((cell) => cell.textContent.toLowerCase());
    row.hidden = !wanted.every((word) => cells.some((cell) => cell.includes(word)));
  }
  const shown = rows.filter((row) => !row.hidden).length;
  output.textContent = shown === rows.length ? `${rows.length} rows` : `${shown} of ${rows.length} rows`;
}

for (const grid of document.querySelectorAll(".grid")) {
  const table = grid.querySelector("table");
  [...table.tHead.rows[0].cells].forEach((header, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => sort(table, index, header));
  });
  const tools = grid.querySelector(".tools");
  if (tools && table.tBodies[0].rows.length > 4) {
    const [input, output] = [tools.querySelector("input"), tools.querySelector("output")];
    tools.hidden = false;
    input.addEventListener("input", () => filter(table, input.value, output));
    filter(table, "", output);
  }
}

const tip = document.getElementById("tip");
const REACH = 24; // pixels around a mark

function hide() {
  tip.hidden = true;
  document.querySelector(".near")?.classList.remove("near");
}

function show(svg, event) {
  let best = null;
  for (const mark of svg.marks) {
    const box = mark.getBoundingClientRect();
    const dx = Math.max(box.left - event.clientX, 0, event.clientX - box.right);
    const dy = Math.max(box.top - event.clientY, 0, event.clientY - box.bottom);
    const distance = Math.hypot(dx, dy);
    if (distance <= REACH && (!best || distance < best.distance)) best = { mark, box, distance };
  }
  hide();
  if (!best) return;
  best.mark.classList.add("near");
  tip.textContent = best.mark.dataset.tip;
  tip.hidden = false;
  const size = tip.getBoundingClientRect();
  const left = Math.min(Math.max(6, best.box.left + best.box.width / 2 - size.width / 2), innerWidth - size.width - 6);
  const above = best.box.top - size.height - 8;
  tip.style.left = `${left}px`;
  tip.style.top = `${above > 4 ? above : best.box.bottom + 8}px`;
}

for (const svg of document.querySelectorAll(".panel svg")) {
  // The browser's own tooltip is slow and wants the pointer exactly on the mark.
  svg.marks = [];
  for (const title of svg.querySelectorAll("title")) {
    const mark = title.parentNode;
    mark.dataset.tip = title.textContent;
    title.remove();
    svg.marks.push(mark);
  }
  svg.addEventListener("pointermove", (event) => show(svg, event));
  svg.addEventListener("pointerdown", (event) => show(svg, event));
  svg.addEventListener("pointerleave", hide);
}
addEventListener("scroll", hide, { passive: true });
