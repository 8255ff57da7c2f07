// Words or maps over the picture, patch by patch. Without this script the drawn picture and the tables are there.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const root = document.getElementById("explorer");
const cells = root.querySelector(".cells");
const told = root.querySelector(".patch");
const controls = root.querySelector(".controls");
let grid = null;
let chosen = 0;

root.hidden = false;
root.classList.add(data.kind);
root.querySelector(".stage img").src = data.picture.src;

function lay(rows, columns, view) {
  if (grid && grid.rows === rows && grid.columns === columns && String(grid.view) === String(view)) return;
  grid = { rows, columns, view, cells: [] };
  chosen = 0;
  cells.replaceChildren();
  const [x0, y0, x1, y1] = view;
  Object.assign(cells.style, {
    left: `${100 * x0}%`, top: `${100 * y0}%`, width: `${100 * (x1 - x0)}%`, height: `${100 * (y1 - y0)}%`,
    gridTemplateColumns: `repeat(${columns}, minmax(0, 1fr))`, gridTemplateRows: `repeat(${rows}, minmax(0, 1fr))`,
  });
  root.classList.toggle("fine", columns > 16);
  for (let row = 0; row < rows; row++) {
    const line = document.createElement("div");
    line.setAttribute("role", "row");
    for (let column = 0; column < columns; column++) {
      const cell = document.createElement("div");
      const number = row * columns + column;
      cell.className = "cell";
      cell.setAttribute("role", "gridcell");
      cell.tabIndex = number === 0 ? 0 : -1;
      cell.addEventListener("pointerenter", () => choose(number));
      cell.addEventListener("focus", () => choose(number));
      line.append(cell);
      grid.cells.push(cell);
    }
    cells.append(line);
  }
}

cells.addEventListener("keydown", (event) => {
  const { rows, columns } = grid;
  const row = Math.floor(chosen / columns);
  const column = chosen % columns;
  const to = {
    ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1], ArrowUp: [row - 1, column], ArrowDown: [row + 1, column],
    Home: [row, 0], End: [row, columns - 1],
  }[event.key];
  if (!to) return;
  event.preventDefault();
  const next = Math.min(Math.max(to[0], 0), rows - 1) * columns + Math.min(Math.max(to[1], 0), columns - 1);
  grid.cells[next].focus();
});

function choose(number) {
  grid.cells[chosen].tabIndex = -1;
  grid.cells[chosen].classList.remove("here");
  chosen = number;
  grid.cells[chosen].tabIndex = 0;
  grid.cells[chosen].classList.add("here");
  told.replaceChildren(...describe(number));
}

let describe = () => [];

function place(number) {
  return `Row ${Math.floor(number / grid.columns) + 1}, column ${(number % grid.columns) + 1}`;
}

function paragraph(text) {
  const made = document.createElement("p");
  made.textContent = text;
  return made;
}

function showWords() {
  lay(data.rows, data.columns, data.view);
  const counts = new Map();
  data.tokens.forEach((token, number) => {
    const word = token.near[0][0];
    counts.set(word, (counts.get(word) ?? 0) + 1);
    const cell = grid.cells[number];
    cell.textContent = word;
    cell.style.color = data.colors[word] ?? "#202020";
    cell.setAttribute("aria-label", `${place(number)}: ${word}, cosine ${token.near[0][1]}`);
  });
  const words = [...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
  const select = addChoice("Show where a word is nearest", ["none", ...words.map(([word, count]) => `${word} (${count})`)]);
  select.addEventListener("change", () => {
    const word = select.selectedIndex > 0 ? words[select.selectedIndex - 1][0] : null;
    data.tokens.forEach((token, number) => grid.cells[number].classList.toggle("alike", token.near[0][0] === word));
  });
  describe = (number) => {
    const token = data.tokens[number];
    const list = document.createElement("ol");
    for (const [word, cosine] of token.near) {
      const item = document.createElement("li");
      item.textContent = `${word}: cosine ${cosine.toFixed(3)}, distance ${(1 - cosine).toFixed(3)}`;
      list.append(item);
    }
    const [word, cosine] = token.blank;
    return [
      paragraph(`${place(number)}, nearest words:`), list,
      paragraph(`An average word: cosine ${token.mean.toFixed(3)}, distance ${(1 - token.mean).toFixed(3)}.`),
      paragraph(`The same place of a blank picture: ${word}, cosine ${cosine.toFixed(3)}.`),
    ];
  };
  choose(0);
}

function unpack(packed) {
  const bytes = Uint8Array.from(atob(packed.data), (letter) => letter.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  const size = packed.high - packed.low;
  return Array.from({ length: bytes.length / 2 }, (_, at) => packed.low + (view.getUint16(2 * at, true) / 65535) * size);
}

function ramp(anchors, share) {
  const value = Math.min(Math.max(share, 0), 1);
  let at = 1;
  while (at < anchors.length - 1 && anchors[at][0] < value) at++;
  const [[low, from], [high, to]] = [anchors[at - 1], anchors[at]];
  const part = high > low ? (value - low) / (high - low) : 0;
  return from.map((channel, number) => Math.round(channel + part * (to[number] - channel)));
}

function colorOf(value, low, high) {
  const { above, below } = data.ramps;
  if (low >= 0) return ramp(above, high > low ? (value - low) / (high - low) : 0);
  return value < 0 ? ramp(below, -value / Math.max(high, -low)) : ramp(above, high > 0 ? value / high : 0);
}

function addChoice(name, values) {
  const label = document.createElement("label");
  const select = document.createElement("select");
  for (const value of values) select.add(new Option(value));
  label.append(`${name} `, select);
  controls.append(label);
  return select;
}

function showMaps() {
  const map = addChoice("Map", data.maps.map((one) => one.name));
  const about = data.tokens.some((token) => !token.counts) ? "all words that count" : "the whole answer";
  const token = addChoice("Token", [about, ...data.tokens.map((one, at) => `${at + 1}: ${one.text.trim() || "(blank)"}`)]);
  const label = document.createElement("label");
  const strength = document.createElement("input");
  Object.assign(strength, { type: "range", min: 0, max: 100, value: 62 });
  label.append("Strength ", strength);
  controls.append(label);
  for (const one of [map, token, strength]) one.addEventListener("input", show);
  show();

  function show() {
    const one = data.maps[map.selectedIndex];
    token.disabled = one.tokens.length === 0;
    const own = token.disabled || token.selectedIndex === 0 ? one.all : one.tokens[token.selectedIndex - 1];
    lay(one.rows, one.columns, one.view);
    const values = unpack(own);
    const low = own.low < 0 ? Math.min(own.low, 0) : own.low;
    const high = own.low < 0 ? Math.max(own.high, 0) : own.high;
    const peak = values.indexOf(Math.max(...values));
    values.forEach((value, number) => {
      const cell = grid.cells[number];
      cell.style.backgroundColor = `rgba(${colorOf(value, low, high).join(",")},${strength.value / 100})`;
      cell.classList.toggle("peak", number === peak);
      cell.setAttribute("aria-label", `${place(number)}: ${value.toPrecision(3)}`);
    });
    const scale = root.querySelector(".scale");
    scale.hidden = false;
    const stops = Array.from({ length: 11 }, (_, at) => `rgb(${colorOf(low + ((high - low) * at) / 10, low, high).join(",")})`);
    scale.querySelector(".bar").style.background = `linear-gradient(to right, ${stops.join(",")})`;
    const ends = scale.querySelectorAll("span");
    ends[0].textContent = low.toPrecision(3);
    ends[1].textContent = one.unit;
    ends[2].textContent = high.toPrecision(3);
    const total = values.reduce((sum, value) => sum + value, 0);
    describe = (number) => {
      const lines = [paragraph(`${place(number)}${number === peak ? ", the peak" : ""}: ${values[number].toPrecision(3)}.`)];
      lines.push(paragraph(`Unit: ${one.unit}.`));
      if (one.tokens.length) lines.push(paragraph(`All patches together: ${(100 * total).toFixed(1)} % of the attention.`));
      if (one.note) lines.push(paragraph(one.note));
      return lines;
    };
    choose(chosen < values.length ? chosen : 0);
  }
}

if (data.kind === "words") showWords();
else showMaps();
