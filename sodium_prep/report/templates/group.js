
"use strict";

const make = (name, parent, text) => {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  if (parent) parent.append(made);
  return made;
};

// Numbers before words, and cells without a value last, whichever way the table is sorted.
const key = (cell) => {
  const text = cell.textContent.trim();
  if (cell.dataset.order !== undefined) return Number(cell.dataset.order);
  const number = Number(text.replace("\u2212", "-"));
  return text === "" || text === "n/a" ? null : Number.isNaN(number) ? text.toLowerCase() : number;
};

const compare = (a, b, sign) => {
  if (a === null || b === null) return (a === null) - (b === null);
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
  return sign * (typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true }));
};

const sortable = (table) => {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = make("button", null, head.textContent);
    button.type = "button";
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      const rows = [...body.rows].map((row) => [key(row.cells[column]), row]);
      rows.sort((a, b) => compare(a[0], b[0], sign));
      body.append(...rows.map((pair) => pair[1]));
    });
  });
};

// Every word must occur in the row.
const filterable = (table) => {
  const rows = [...table.tBodies[0].rows];
  if (rows.length < 12) return;
  const line = document.createElement("p");
  line.className = "filter";
  const label = make("label", line, "Filter rows ");
  const input = make("input", label);
  input.type = "search";
  const found = make("span", line);
  found.setAttribute("role", "status");
  const texts = rows.map((row) => [...row.cells].map((cell) => cell.textContent).join(" ").toLowerCase());
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let n = 0;
    rows.forEach((row, i) => {
      row.hidden = !words.every((word) => texts[i].includes(word));
      n += !row.hidden;
    });
    found.textContent = words.length ? " " + n + " of " + rows.length : "";
  });
  table.parentElement.before(line);
};

const copyable = (box) => {
  const text = box.querySelector("textarea");
  const button = box.querySelector("button");
  const said = box.querySelector("[role=status]");
  button.hidden = false;
  button.addEventListener("click", async () => {
    text.select();
    try {
      await navigator.clipboard.writeText(text.value);
      said.textContent = "Copied.";
    } catch {
      said.textContent = document.execCommand("copy") ? "Copied." : "Selected: copy it with your keyboard.";
    }
  });
};

// The point nearest to the pointer, or, by the arrow keys, the next one, is named beside it.
const pointed = (frame) => {
  const points = JSON.parse(frame.dataset.points);
  const dot = make("span", frame);
  dot.className = "dot";
  const tip = make("span", frame);
  tip.className = "tip";
  tip.setAttribute("role", "status");
  let at = -1;
  const show = (i) => {
    at = i;
    dot.hidden = tip.hidden = i < 0;
    if (i < 0) return;
    const [x, y, text] = points[i];
    tip.textContent = text;
    for (const mark of [dot, tip]) {
      mark.style.left = x / 10 + "%";
      mark.style.top = y / 10 + "%";
    }
    tip.classList.toggle("left", x > 600);
  };
  const nearest = (event) => {
    const box = frame.getBoundingClientRect();
    let best = -1;
    let least = 15 * 15;
    points.forEach(([x, y], i) => {
      const far = (box.left + (x * box.width) / 1000 - event.clientX) ** 2 + (box.top + (y * box.height) / 1000 - event.clientY) ** 2;
      if (far < least) [best, least] = [i, far];
    });
    show(best);
  };
  show(-1);
  frame.tabIndex = 0;
  frame.setAttribute("role", "group");
  frame.setAttribute("aria-label", frame.querySelector("img").alt + " The arrow keys name its points.");
  frame.addEventListener("pointermove", nearest);
  frame.addEventListener("pointerdown", nearest);
  frame.addEventListener("pointerleave", () => show(-1));
  frame.addEventListener("blur", () => show(-1));
  frame.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") show(-1);
    if (!step) return;
    event.preventDefault();
    show(at < 0 ? (step > 0 ? 0 : points.length - 1) : (at + step + points.length) % points.length);
  });
};

document.querySelectorAll("table.sortable").forEach((table) => {
  sortable(table);
  filterable(table);
});
document.querySelectorAll(".copy").forEach(copyable);
document.querySelectorAll("[data-points]").forEach(pointed);
