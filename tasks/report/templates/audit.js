"use strict";
// Marks of right and wrong features, kept in this browser, and their download as the CSV that `audit --labels` takes.
const page = document.querySelector("main"), bar = document.getElementById("marks");
const key = "catalog-rectifier marks " + page.dataset.run, marks = new Map();
const FORMULA = /^[=+\-@\t\r]/, GUARDED = /^'[=+\-@\t\r']/;

function remember() {
  try { localStorage.setItem(key, JSON.stringify([...marks.values()])); } catch { /* a browser may keep nothing for local files */ }
}
function show() {
  for (const group of document.querySelectorAll(".mark")) {
    const mark = marks.get(JSON.stringify([group.dataset.modality, group.dataset.item]));
    for (const button of group.querySelectorAll("button")) {
      button.setAttribute("aria-pressed", String(mark !== undefined && mark[2] === button.value));
    }
  }
  bar.hidden = marks.size === 0;
  bar.querySelector("b").textContent = marks.size + " marked";
}
function cell(text) {
  const safe = FORMULA.test(text) || GUARDED.test(text) ? "'" + text : text;
  return /[",\n\r]/.test(safe) ? '"' + safe.replaceAll('"', '""') + '"' : safe;
}
document.addEventListener("click", event => {
  const button = event.target.closest("button");
  if (button === null) return;
  if (button.id === "download") {
    const lines = [["item_id", "modality", "is_mismatch"], ...[...marks.values()].map(([m, i, wrong]) => [i, m, wrong])];
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([lines.map(x => x.map(cell).join(",") + "\n").join("")], {type: "text/csv"}));
    link.download = "labels.csv";
    link.click();
    return;
  }
  const {modality, item} = button.closest(".mark").dataset, name = JSON.stringify([modality, item]);
  if (button.getAttribute("aria-pressed") === "true") marks.delete(name);
  else marks.set(name, [modality, item, button.value]);
  remember();
  show();
});
try {
  for (const mark of JSON.parse(localStorage.getItem(key) ?? "[]")) marks.set(JSON.stringify(mark.slice(0, 2)), mark);
} catch { /* nothing is kept */ }
show();
