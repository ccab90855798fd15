"use strict";
const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const { pieces, layers, heads, sides } = data;
const N = pieces.length, L = layers.length, SHADES = 8, NAMES = ["a", "b"];
const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const bitmaps = sides.map((side) => side.held.map(bytes));
const kindOf = bytes(data.kindOf);
const view = { layer: null, head: null };  // indices; null: all of them

function make(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) name === "text" ? (node.textContent = value) : node.setAttribute(name, value);
  node.append(...children);
  return node;
}
const holds = (s, head, token) => (bitmaps[s][head][token >> 3] >> (token & 7)) & 1;
const headsOf = ({ layer, head }) => {
  const all = [...Array(L * heads).keys()];
  return all.filter((p) => (layer === null || (p / heads | 0) === layer) && (head === null || p % heads === head));
};
function countHolders(s, chosen) {
  const counts = new Uint16Array(N);
  for (const p of chosen) for (let t = 0, bits = bitmaps[s][p]; t < N; t++) counts[t] += (bits[t >> 3] >> (t & 7)) & 1;
  return counts;
}
const sum = (values) => values.reduce((a, b) => a + b, 0);
const percent = (share) => (100 * share).toFixed(1) + " %";
const grouped = (n) => Math.round(n).toString().replace(/\B(?=(\d{3})+$)/g, "\u202f");
const size = (n) => (n >= 1e9 ? (n / 1e9).toFixed(1) + " GB" : n >= 1e6 ? (n / 1e6).toFixed(1) + " MB" : Math.ceil(n / 1e3) + " kB");
const quoted = (text) => JSON.stringify(text).slice(1, -1).replaceAll('\\"', '"').replaceAll(" ", "\u00b7");
const shareOf = sides.map((_, s) => bitmaps[s].map((bits) => { let n = 0; for (let t = 0; t < N; t++) n += (bits[t >> 3] >> (t & 7)) & 1; return n / N; }));

// -- the document: a row for each group of lines, in it a paragraph for each side, in it an <i> for each token ---------------------------

const cells = sides.map(() => new Array(N));
function buildDocument() {
  const rows = make("div", { class: "rows" });
  for (let start = 0; start < N; ) {
    let stop = start + 1, characters = 0;
    // lines end rows, because a row that ended within a line would break it
    while (stop < N && !(stop - start >= 120 && pieces[stop - 1].endsWith("\n"))) stop++;
    for (let t = start; t < stop; t++) characters += pieces[t].length;
    const row = make("div", { style: `contain-intrinsic-height: auto ${Math.ceil(characters / (data.code ? 40 : 90)) * 23}px` });
    sides.forEach((_, s) => {
      const paragraph = make("p", { class: NAMES[s] });
      for (let t = start; t < stop; t++) {
        const cell = document.createElement("i");
        cell.textContent = pieces[t];
        cell.token = t;
        cells[s][t] = cell;
        paragraph.append(cell);
      }
      row.append(paragraph);
    });
    rows.append(row);
    start = stop;
  }
  const names = make("div", { class: "names" }, ...sides.map((side, s) => {
    const scale = make("span", { class: "scale" }, "forgotten ", make("span", { class: "k0", text: "abc" }));
    for (let k = 1; k <= SHADES; k++) scale.append(make("i", { class: `k${k}` }));
    scale.append(" kept by all");
    return make("div", { class: NAMES[s] }, make("b", { text: side.policy }), scale, figures(side, s));
  }));
  $("document").style.setProperty("--sides", sides.length);
  $("document").classList.toggle("code", data.code);
  $("document").classList.toggle("pair", sides.length > 1);
  $("document").append(names, rows);
}

function go(token, s = 0, length = 1) {
  document.querySelectorAll(".found, .here").forEach((cell) => cell.classList.remove("found", "here"));
  const cell = cells[s][token];
  // twice: rows on the way get their real heights only when they are seen
  cell.scrollIntoView({ block: "center" });
  requestAnimationFrame(() => cell.scrollIntoView({ block: "center" }));
  cell.classList.add("here");
  for (let t = token; t < Math.min(N, token + length, token + 4000); t++) cells[s][t].classList.add("found");
}

// -- what is shown ------------------------------------------------------------------------------------------------------------------------

function show(layer, head) {
  view.layer = layer; view.head = head;
  const chosen = headsOf(view), counts = sides.map((_, s) => countHolders(s, chosen));
  counts.forEach((own, s) => {
    for (let t = 0; t < N; t++) {
      const shade = `k${Math.ceil(SHADES * own[t] / chosen.length)}`;
      if (cells[s][t].className !== shade) cells[s][t].className = shade;
    }
  });
  const where = layer === null ? "all layers and heads" : `layer ${layers[layer]}` + (head === null ? ", all heads" : `, head ${head + 1}`);
  const shares = counts.map((own) => percent(sum(own) / (N * chosen.length)));
  $("shown").textContent = `Shown: ${where}; ${shares.join(" and ")} of the entries kept.`;
  document.querySelectorAll("#switch [data-layer]").forEach((button) => {
    const same = button.dataset.layer === String(layer) && button.dataset.head === String(head);
    button.setAttribute("aria-pressed", same);
  });
  $("all").setAttribute("aria-pressed", layer === null);
  drawAge(counts, chosen.length);
  drawKinds(counts, chosen.length);
  listSpans(counts);
}

function buildSwitch() {
  for (let l = 0; l < L; l++) {
    const means = sides.map((_, s) => sum(shareOf[s].slice(l * heads, (l + 1) * heads)) / heads);
    const bars = make("div", { class: "bars" }, ...means.map((m, s) => make("i", { class: NAMES[s], style: `width: ${100 * m}%` })));
    const numbers = make("span", { text: means.map((m) => Math.round(100 * m)).join(" · ") + " %" });
    const group = make("div", { class: "heads", style: `--columns: ${Math.min(heads, 8)}` });
    for (let h = 0; h < heads; h++) {
      const shares = sides.map((_, s) => shareOf[s][l * heads + h]);
      const colours = shares.map((share, s) => `rgb(var(--${NAMES[s]}) / ${(0.06 + 0.8 * share).toFixed(3)}) ${100 * s / sides.length}% ${100 * (s + 1) / sides.length}%`);
      const title = `layer ${layers[l]}, head ${h + 1}: ${shares.map(percent).join(" and ")} kept`;
      group.append(make("button", { type: "button", "data-layer": l, "data-head": h, title, "aria-label": title, style: `background: linear-gradient(${colours})`, text: h + 1 }));
    }
    const button = make("button", { type: "button", "data-layer": l, "data-head": "null", text: `L${layers[l]}`, title: `layer ${layers[l]}, all heads` });
    $("switch").append(make("div", { class: "layer" }, button, bars, numbers, group));
  }
  $("switch").addEventListener("click", (event) => {
    const { layer, head } = event.target.closest("[data-layer]")?.dataset || {};
    if (layer === undefined) return;
    const again = view.layer === +layer && String(view.head) === head;
    again ? show(null, null) : show(+layer, head === "null" ? null : +head);
  });
  $("all").addEventListener("click", () => show(null, null));
  addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
    const next = (view.layer === null ? (step > 0 ? 0 : L - 1) : view.layer + step);
    show(next < 0 || next >= L ? null : next, next < 0 || next >= L ? null : view.head);
  });
}

function buildTitle() {
  $("title").append(data.name, make("small", { text: `what the cache of ${data.model} kept of ${grouped(N)} tokens, ${L} layers × ${heads} heads` }));
}

// what one memory kept, above its column
function figures(side, s) {
  const counts = countHolders(s, headsOf(view));
  const gone = counts.reduce((n, c) => n + (c === 0), 0);
  const text = [make("em", { text: percent(sum(counts) / (N * L * heads)) }), " kept · ", make("em", { text: percent(gone / N) }), ` of the tokens forgotten everywhere · ${size(side.nbytes)} of ${size(side.fullNbytes)}`];
  return make("span", { class: "figures" }, ...text);
}

// -- plots and lists ----------------------------------------------------------------------------------------------------------------------

function drawAge(counts, most) {
  const bins = Math.min(60, N), W = 320, H = 90, left = 30;
  const shares = counts.map((own) => Array.from({ length: bins }, (_, b) => {
    const from = Math.floor(b * N / bins), to = Math.floor((b + 1) * N / bins);
    let n = 0;
    for (let t = from; t < to; t++) n += own[t];
    return n / (to - from) / most;
  }));
  const x = (b) => left + (W - left) * b / bins, top = [0.1, 0.25, 0.5].find((limit) => Math.max(...shares.flat()) <= limit) || 1, y = (share) => H * (1 - share / top) + 4;
  const paths = shares.map((values, s) => {
    const line = values.map((v, b) => `L${x(b).toFixed(1)} ${y(v).toFixed(1)}L${x(b + 1).toFixed(1)} ${y(v).toFixed(1)}`).join("");
    return `<path class="${NAMES[s]}" d="M${x(0)} ${y(0)}${line}L${x(bins)} ${y(0)}"/>`;
  });
  const grid = [0, top / 2, top].map((v) => `<line x1="${left}" x2="${W}" y1="${y(v)}" y2="${y(v)}"/><text x="${left - 4}" y="${y(v) + 3}" text-anchor="end">${+(100 * v).toFixed(1)}%</text>`);
  const ticks = [0, 0.5, 1].map((v) => `<text x="${x(v * bins)}" y="${H + 17}" text-anchor="${["start", "middle", "end"][2 * v]}">${v === 1 ? "newest" : grouped(N * (1 - v)) + (v ? "" : " tokens ago")}</text>`);
  $("age").innerHTML = `<svg viewBox="0 0 ${W} ${H + 22}" role="img" aria-label="share kept by age">${grid.join("")}${paths.join("")}${ticks.join("")}</svg>`;
  const ages = counts.map((own) => {
    let half = sum(own) / 2, t = N - 1;
    for (; t > 0 && (half -= own[t]) > 0; t--);
    return grouped(N - 1 - t);
  });
  $("age").append(make("p", { class: "hint", text: `Share kept of each sixtieth of the document. Half of what is kept is younger than ${ages.join(" and ")} tokens.` }));
}

function drawMap() {
  const canvas = $("map"), columns = Math.min(160, N), tall = Math.max(2, Math.min(8, Math.floor(320 / (L * heads * sides.length))));
  canvas.width = columns; canvas.height = L * heads * sides.length;
  canvas.style.height = `${canvas.height * tall}px`;
  const context = canvas.getContext("2d"), style = getComputedStyle(document.documentElement);
  for (let p = 0; p < L * heads; p++) sides.forEach((_, s) => {
    const colour = style.getPropertyValue(`--${NAMES[s]}`);
    for (let c = 0; c < columns; c++) {
      const from = Math.floor(c * N / columns), to = Math.floor((c + 1) * N / columns);
      let n = 0;
      for (let t = from; t < to; t++) n += holds(s, p, t);
      context.fillStyle = `rgb(${colour} / ${n / (to - from)})`;
      context.fillRect(c, s * L * heads + p, 1, 1);
    }
  });
  canvas.onclick = (event) => go(Math.min(N - 1, Math.floor(N * event.offsetX / canvas.clientWidth)));
}

function drawKinds(counts, most) {
  const totals = data.kinds.map(() => 0), kept = counts.map(() => data.kinds.map(() => 0));
  for (let t = 0; t < N; t++) { totals[kindOf[t]]++; counts.forEach((own, s) => (kept[s][kindOf[t]] += own[t])); }
  const order = data.kinds.map((_, k) => k).filter((k) => data.kinds[k]).sort((a, b) => kept[0][b] / totals[b] - kept[0][a] / totals[a]);
  $("kinds").replaceChildren(...order.map((k) => {
    const shares = kept.map((own) => own[k] / totals[k] / most);
    const bars = make("div", { class: "bars" }, ...shares.map((v, s) => make("i", { class: NAMES[s], style: `width: ${100 * v}%` })));
    const row = make("div", { class: "kind", title: `${grouped(totals[k])} tokens, ${shares.map(percent).join(" and ")} kept` });
    row.append(make("span", { text: data.kinds[k] }), bars, make("span", { text: shares.map((v) => Math.round(100 * v)).join("·") + "%" }));
    return row;
  }));
}

function listSpans(counts) {
  $("spans").replaceChildren(...counts.flatMap((own, s) => {
    const found = [];
    for (let t = 0; t < N; t++) {
      if (own[t]) continue;
      const start = t;
      while (t < N && !own[t]) t++;
      found.push([start, t - start]);
    }
    found.sort((a, b) => b[1] - a[1]);
    const title = make("h3", { class: NAMES[s], text: sides[s].policy });
    const items = found.slice(0, 12).map(([start, length]) => {
      const text = quoted(pieces.slice(start, start + Math.min(length, 60)).join(""));
      return make("button", { type: "button", class: "span", "data-side": s, "data-start": start, "data-length": length }, make("b", { text: grouped(length) }), ` tokens from ${grouped(start)} on`, make("q", { text }));
    });
    return [title, ...(items.length ? items : [make("p", { class: "hint", text: "nothing is forgotten" })])];
  }));
}

// -- hover: one handler for all tokens ----------------------------------------------------------------------------------------------------

function tell(cell) {
  const t = cell.token, tip = $("tip");
  const text = pieces[t] === "" ? "part of the character before it" : quoted(pieces[t]);
  tip.replaceChildren(make("code", { text }), make("div", { text: `token ${grouped(t)} · ${grouped(N - 1 - t)} before the end · ${data.kinds[kindOf[t]] || "of no kind"}` }));
  sides.forEach((side, s) => {
    let n = 0;
    for (let p = 0; p < L * heads; p++) n += holds(s, p, t);
    const wide = sides.length > 1 ? `${side.policy}: ` : "";
    tip.append(make("div", { text: `${wide}kept by ${n} of ${L * heads} heads in ${layers.filter((_, l) => headsOf({ layer: l, head: null }).some((p) => holds(s, p, t))).length} of ${L} layers` }));
  });
  sides.forEach((_, s) => {
    const table = make("table", { class: NAMES[s] });
    for (let l = 0; l < L; l++) {
      const row = make("tr", {}, make("th", { text: `L${layers[l]}` }));
      for (let h = 0; h < heads; h++) row.append(make("td", holds(s, l * heads + h, t) ? { class: "on" } : {}));
      table.append(row);
    }
    tip.append(table);
  });
  tip.hidden = false;
  const at = cell.getClientRects()[0] || cell.getBoundingClientRect();
  const below = at.bottom + 8 + tip.offsetHeight < innerHeight;
  tip.style.left = `${Math.max(8, Math.min(at.left, innerWidth - tip.offsetWidth - 8))}px`;
  tip.style.top = `${below ? at.bottom + 8 : Math.max(8, at.top - tip.offsetHeight - 8)}px`;
}

buildTitle();
buildDocument();
buildSwitch();
show(null, null);
drawMap();
$("document").addEventListener("pointerover", (event) => (event.target.token === undefined ? ($("tip").hidden = true) : tell(event.target)));
$("document").addEventListener("pointerleave", () => ($("tip").hidden = true));
$("document").addEventListener("scroll", () => ($("tip").hidden = true), { passive: true });
$("spans").addEventListener("click", (event) => {
  const { start, side, length } = event.target.closest(".span")?.dataset || {};
  if (start !== undefined) go(+start, +side, +length);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawMap);
// milliseconds since the page was asked for; two frames later, what was built has been laid out and drawn
requestAnimationFrame(() => requestAnimationFrame(() => (document.documentElement.dataset.ready = Math.round(performance.now()))));
