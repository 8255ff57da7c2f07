// Sorting of tables and a choice of cases. Without this script every row and every case is simply there.
"use strict";

for (const table of document.querySelectorAll("table[data-sortable]")) makeSortable(table);
for (const gallery of document.querySelectorAll("[data-gallery]")) addFilter(gallery);

function makeSortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(table, heads, column));
    head.append(button);
  });
}

function sort(table, heads, column) {
  const head = heads[column];
  const numeric = head.classList.contains("number");
  // The first click shows the largest numbers, but names from A on.
  const first = numeric ? "descending" : "ascending";
  const other = numeric ? "ascending" : "descending";
  const order = head.getAttribute("aria-sort") === first ? other : first;
  for (const each of heads) each.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", order);
  const rows = [...table.tBodies[0].rows].map((row) => [keyOf(row.cells[column].textContent, numeric), row]);
  rows.sort(([a], [b]) => {
    // What has no value stays behind in both orders.
    if (a === null || b === null) return (a === null) - (b === null);
    const less = numeric ? a - b : a.localeCompare(b, "en", { numeric: true, sensitivity: "base" });
    return order === "ascending" ? less : -less;
  });
  table.tBodies[0].append(...rows.map(([, row]) => row));
}

// The first number of a cell ("0.412 [0.38, 0.44]" is 0.412), or its text; null for "-" and nothing.
function keyOf(text, numeric) {
  const said = text.trim();
  if (!numeric) return said === "" || said === "-" ? null : said;
  const found = said.replace(/(\d),(?=\d{3})/g, "$1").replace("\u2212", "-").match(/[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?/i);
  return found ? Number(found[0]) : null;
}

function addFilter(gallery) {
  const cases = [...gallery.querySelectorAll(".case")];
  const bar = document.createElement("div");
  bar.className = "filter";
  bar.setAttribute("role", "group");
  bar.setAttribute("aria-label", "Choose cases");
  const kind = addChoice(bar, "Kind", cases.map((one) => one.dataset.kind));
  const task = addChoice(bar, "Task", cases.map((one) => one.dataset.task));
  const flips = addBox(bar, "only contradictions", cases.filter((one) => "flips" in one.dataset).length);
  const count = document.createElement("p");
  count.setAttribute("role", "status");
  bar.append(count);
  bar.addEventListener("change", show);
  gallery.querySelector(".legend").after(bar);
  show();

  function show() {
    for (const one of cases) {
      one.hidden =
        (kind.value !== "" && one.dataset.kind !== kind.value) ||
        (task.value !== "" && one.dataset.task !== task.value) ||
        (flips.checked && !("flips" in one.dataset));
    }
    for (const group of gallery.querySelectorAll(".group")) {
      group.hidden = !group.querySelector(".case:not([hidden])");
    }
    count.textContent = `${cases.filter((one) => !one.hidden).length} of ${cases.length} cases shown`;
  }
}

function addChoice(bar, name, values) {
  const label = document.createElement("label");
  const select = document.createElement("select");
  const distinct = [...new Set(values)];
  select.add(new Option("all", ""));
  for (const value of distinct) select.add(new Option(value, value));
  label.append(`${name} `, select);
  if (distinct.length > 1) bar.append(label);
  return select;
}

function addBox(bar, name, size) {
  const label = document.createElement("label");
  const box = document.createElement("input");
  box.type = "checkbox";
  label.append(box, ` ${name} (${size})`);
  if (size > 0) bar.append(label);
  return box;
}
