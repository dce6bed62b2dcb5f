"use strict";
/* Shows what the page holds. Texts come from whoever may write to the store: they become text nodes and properties,
   never markup, and letters that steer a terminal or turn the direction of reading are shown by their numbers. */
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const ROW = 32; // pixels of a row in a list, as in page.css
  const SHOWN = 200; // rows of a table in a detail, before one asks for more
  const CELLS = 300; // cells of a treemap at a time
  const STEERS = /[\p{C}\u2028\u2029]/gu;
  const WORDS = {
    store: { entry: "ref", entries: "Refs", value: "version", set: "set" },
    root: { entry: "step", entries: "Steps", value: "task", set: "stored" },
    task: { entry: "step", entries: "Steps", value: "task", set: "stored" },
  }[data.kind];

  // ---- texts and elements

  const shown = (text) =>
    text.replace(STEERS, (letter) => {
      if (letter === "\n") return "\n";
      const code = letter.codePointAt(0);
      return code > 0xffff ? `\\U${code.toString(16).padStart(8, "0")}`
        : code > 0xff ? `\\u${code.toString(16).padStart(4, "0")}` : `\\x${code.toString(16).padStart(2, "0")}`;
    });
  const line = (text) => shown(text.replace(/\n/g, "\u21b5"));

  function h(tag, given, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(given || {})) {
      if (value === undefined || value === null || (value === false && !name.startsWith("aria-"))) continue;
      if (name === "on") for (const [event, run] of Object.entries(value)) element.addEventListener(event, run);
      else if (name === "class") element.className = value;
      else if (name === "title") element.title = shown(value);
      else element.setAttribute(name, value === true && !name.startsWith("aria-") ? "" : String(value));
    }
    for (const child of children.flat()) {
      if (child === null || child === undefined) continue;
      element.append(child instanceof Node ? child : document.createTextNode(shown(String(child))));
    }
    return element;
  }

  function bytes(number) {
    if (number < 0) return "";
    const units = ["B", "kB", "MB", "GB", "TB"];
    let unit = 0;
    while (unit < 4 && number >= (unit ? 999.95 : 999.5)) { number /= 1000; unit += 1; }
    return `${unit ? number.toFixed(1) : number.toFixed(0)} ${units[unit]}`;
  }
  const count = (number) => number.toLocaleString("en");
  const many = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
  const two = (number) => String(number).padStart(2, "0");
  function moment(seconds) {
    if (seconds < 0) return "";
    const at = new Date(seconds * 1000);
    if (Number.isNaN(at.getTime())) return `${seconds} s`;
    return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${two(at.getHours())}:${two(at.getMinutes())}`;
  }
  const text = (number) => data.text[number];

  // ---- what the columns say

  const { entries, values, contents, parts } = data;
  const starts = (lengths) => {
    const at = new Array(lengths.length + 1);
    at[0] = 0;
    lengths.forEach((length, number) => { at[number + 1] = at[number] + length; });
    return at;
  };
  const valuesFrom = starts(entries.n);
  const partsFrom = starts(contents.n);
  const newest = (entry) => (entries.n[entry] ? valuesFrom[entry] : -1);
  const contentOf = (value) => (value < 0 ? -1 : values.content[value]);
  const label = (entry, value) => (values.label ? text(values.label[value]) : `@${value - valuesFrom[entry]}`);
  const runOf = (value) => text(values.label[value]).split("/")[0];
  const numberOf = new Map(entries.name.map((name, number) => [name, number]));
  const comparedOf = new Map(data.compared.map((found) => [found.entry, found]));

  function noteOf(value) {
    if (value < 0) return "";
    return text(values.note[value]) || text(contents.note[contentOf(value)]);
  }
  function kindOf(content) {
    if (content < 0) return "";
    if (text(contents.trouble[content])) return "cannot be read";
    const kind = text(contents.kind[content]);
    if (kind === "artifact") return contents.n[content] ? text(parts.type[partsFrom[content]]) : kind;
    return kind === "bundle" ? `bundle of ${count(contents.total[content])}` : many(contents.total[content], "artifact");
  }
  const troubleOf = (entry) =>
    text(entries.trouble[entry]) || (entries.n[entry] ? text(contents.trouble[contentOf(newest(entry))]) : "");

  /* The value that another is compared with: the one before it. Of tasks, that of the run before which is the same one
     in the order of their numbers: so those of a foreach meet, as far as there are as many. */
  function before(entry, value) {
    const end = valuesFrom[entry + 1];
    if (!values.label) return value + 1 < end ? value + 1 : -1;
    const ofRun = (first) => {
      let last = first;
      while (last < end && runOf(last) === runOf(first)) last += 1;
      return Array.from({ length: last - first }, (_, number) => first + number);
    };
    const counted = (tasks) => [...tasks].sort((a, b) => compare(text(values.label[a]), text(values.label[b])));
    let first = value;
    while (first > valuesFrom[entry] && runOf(first - 1) === runOf(value)) first -= 1;
    const mine = ofRun(first);
    if (first + mine.length >= end) return -1;
    const others = counted(ofRun(first + mine.length));
    return others[Math.min(counted(mine).indexOf(value), others.length - 1)];
  }

  /* Artifacts of a value, each with whether it was added, changed or is the same; then those that are gone. */
  function differences(content, older) {
    const was = new Map();
    if (older >= 0) for (let part = partsFrom[older]; part < partsFrom[older + 1]; part += 1) was.set(parts.name[part], part);
    const rows = [];
    for (let part = partsFrom[content]; part < partsFrom[content + 1]; part += 1) {
      const old = was.get(parts.name[part]);
      was.delete(parts.name[part]);
      const mark = older < 0 ? "" : old === undefined ? "+" : parts.mark[old] === parts.mark[part] ? "=" : "~";
      rows.push([mark, part]);
    }
    const whole = older >= 0 && contents.n[content] === contents.total[content] && contents.n[older] === contents.total[older];
    if (whole) for (const part of was.values()) rows.push(["-", part]);
    return rows;
  }

  // ---- where one is: in the address, so that it can be sent to others

  const place = () => new URLSearchParams(location.hash.slice(1));
  /* Back leads to where one was before. Whoever goes through a list by keys makes one step of it, ``instead`` of each. */
  function go(changes, instead) {
    const now = place();
    for (const [name, value] of Object.entries(changes)) {
      if (value === null) now.delete(name); else now.set(name, value);
    }
    const hash = [...now].length ? `#${now}` : "";
    if (location.hash === hash) return;
    if (instead) location.replace(`${location.href.split("#")[0]}#${now}`); else location.hash = hash;
  }

  // ---- order: run-9 comes before run-10, and a note that says 0.10 before one that says 0.9

  const { compare } = new Intl.Collator("en", { numeric: true });
  const NUMBER = /((?<![\w.-])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)/i;
  const inNumbers = (told) => told.split(NUMBER).map((word, at) => (at % 2 ? Number(word) : word));
  function inOrder(a, b) {
    if (typeof a === "number") return a - b;
    if (typeof a === "string") return compare(a, b);
    for (let at = 0; at < Math.min(a.length, b.length); at += 1) {
      const found = inOrder(a[at], b[at]);
      if (found) return found;
    }
    return a.length - b.length;
  }

  // ---- a list of any length: only rows that are seen are elements

  function list(columns, rows, { open, pick, clicked, chosen, name }) {
    let order = rows;
    let sorted = columns.findIndex((column) => column.first);
    let down = sorted >= 0 && columns[sorted].first === "down";
    let at = -1;
    const body = h("div", { class: "rows", tabindex: 0, role: "rowgroup" });
    const space = h("div", {});
    body.append(space);
    const heads = columns.map((column, number) =>
      h("div", { role: "columnheader", class: column.number ? "number" : null },
        h("button", { type: "button", on: { click: () => sort(number) } }, column.name)));
    const head = h("div", { class: "head", role: "row" }, heads);
    const whole = h("div", { class: "list", role: "grid", "aria-label": name }, head, body);
    /* Columns that can be missed give way, the last first, where there is no room for all. */
    const seen = () => {
      const least = (column) => 16 * Number(column.width.match(/[\d.]+/)[0]);
      const left = [...columns];
      const room = whole.clientWidth || innerWidth;
      for (const column of [...columns].reverse()) {
        if (left.reduce((sum, one) => sum + least(one), 0) <= room) break;
        if (column.wide) left.splice(left.indexOf(column), 1);
      }
      return left;
    };
    const layout = () => {
      whole.style.setProperty("--columns", seen().map((column) => column.width).join(" "));
      heads.forEach((cell, number) => { cell.hidden = !seen().includes(columns[number]); });
    };

    function sort(number) {
      if (sorted === number) down = !down; else { sorted = number; down = Boolean(columns[number].number); }
      arrange();
    }
    function arrange() {
      heads.forEach((cell, number) =>
        cell.setAttribute("aria-sort", number === sorted ? (down ? "descending" : "ascending") : "none"));
      if (sorted >= 0) {
        const by = columns[sorted].by;
        const keyed = rows.map((row) => [by(row), row]);
        const sign = down ? -1 : 1;
        keyed.sort(([a, x], [b, y]) => sign * inOrder(a, b) || x - y);
        order = keyed.map(([, row]) => row);
      } else order = rows;
      at = order.indexOf(chosen());
      draw(true);
    }
    function draw(anew) {
      layout();
      space.style.height = `${order.length * ROW}px`;
      whole.setAttribute("aria-rowcount", order.length + 1);
      const first = Math.max(0, Math.floor(body.scrollTop / ROW) - 8);
      const last = Math.min(order.length, Math.ceil((body.scrollTop + (body.clientHeight || 600)) / ROW) + 8);
      if (!anew && draw.first === first && draw.last === last) return;
      draw.first = first;
      draw.last = last;
      const now = chosen();
      space.replaceChildren(...order.slice(first, last).map((row, offset) => {
        const cells = seen().map((column) => {
          const told = column.text(row);
          return h("div", { role: "gridcell", class: [column.number && "number", column.look && column.look(row)].filter(Boolean).join(" ") || null,
            title: told.length > 16 ? told.slice(0, 1200) : null, dir: column.number ? null : "auto" }, line(told.slice(0, 300)));
        });
        const element = h("div", { class: "row", role: "row", id: `${name}-${row}`, "aria-rowindex": first + offset + 2,
          "aria-selected": row === now, on: { click: () => { open(row); if (clicked) clicked(); } } }, cells);
        element.style.top = `${(first + offset) * ROW}px`;
        return element;
      }));
      body.classList.toggle("short", order.length * ROW < 500);
      if (at >= 0) body.setAttribute("aria-activedescendant", `${name}-${order[at]}`);
    }
    function move(to) {
      if (!order.length) return;
      at = Math.max(0, Math.min(order.length - 1, to));
      if (at * ROW < body.scrollTop) body.scrollTop = at * ROW;
      if ((at + 1) * ROW > body.scrollTop + body.clientHeight) body.scrollTop = (at + 1) * ROW - body.clientHeight;
      (pick || open)(order[at], true);
    }
    body.addEventListener("scroll", () => draw(false));
    body.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && at >= 0) open(order[at]);
      const page = Math.max(1, Math.floor(body.clientHeight / ROW) - 1);
      const steps = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: order.length - 1 };
      if (!(event.key in steps)) return;
      event.preventDefault();
      move(steps[event.key]);
    });
    new ResizeObserver(() => draw(true)).observe(whole);
    arrange();
    return {
      element: whole,
      set(given) { rows = given; body.scrollTop = 0; arrange(); },
      mark(reveal) {
        at = order.indexOf(chosen());
        if (reveal && at >= 0 && (at * ROW < body.scrollTop || (at + 1) * ROW > body.scrollTop + body.clientHeight)) {
          body.scrollTop = Math.max(0, at * ROW - body.clientHeight / 2);
        }
        draw(true);
      },
    };
  }

  /* A table in a detail, whose rows are made as far as one asks for them. */
  function table(heads, rows, make, numbers = []) {
    const body = h("tbody", {});
    const more = h("button", { type: "button", class: "choice", on: { click: () => grow(SHOWN * 10) } });
    let made = 0;
    function grow(by) {
      const next = rows.slice(made, made + by);
      body.append(...next.map(make));
      made += next.length;
      more.hidden = made >= rows.length;
      more.textContent = `${count(rows.length - made)} more`;
    }
    grow(SHOWN);
    return h("div", { class: "scroll" },
      h("table", {}, h("thead", {}, h("tr", {}, heads.map((name, number) =>
        h("th", { scope: "col", class: numbers.includes(number) ? "number" : null }, name)))), body), more);
  }

  /* Where there is no room beside the list, what was chosen is below it: who clicks is led there. */
  const reach = (detail) => { if (innerWidth <= 900) setTimeout(() => detail.scrollIntoView({ block: "start" })); };
  const closing = () => h("button", { type: "button", class: "choice close", on: { click: () => {
    go({ ref: null, v: null, run: null });
    main.scrollIntoView({ block: "start" });
  } } }, "Close");

  // ---- refs, or steps

  let words = [];
  const hay = [];
  function hayOf(entry) {
    if (hay[entry] === undefined) {
      const told = [entries.name[entry]];
      for (let value = valuesFrom[entry]; value < valuesFrom[entry + 1]; value += 1) {
        told.push(text(values.note[value]), values.label ? text(values.label[value]) : "");
        const content = contentOf(value);
        told.push(contents.key[content], text(contents.creator[content]), text(contents.note[content]));
        if (value !== valuesFrom[entry]) continue;
        for (let part = partsFrom[content]; part < partsFrom[content + 1]; part += 1) {
          told.push(text(parts.name[part]), text(parts.type[part]));
        }
      }
      hay[entry] = told.join("\n").toLowerCase();
    }
    return hay[entry];
  }
  const KINDS = {
    "all": () => true,
    "cannot be read": (entry) => troubleOf(entry) !== "",
    "with a note": (entry) => noteOf(newest(entry)) !== "",
    [`with several ${WORDS.value}s`]: (entry) => entries.total[entry] > 1,
    "changed last time": (entry) => entries.n[entry] > 0 && values.fresh[newest(entry)] > 0,
  };

  function entriesView() {
    const every = entries.name.map((_, number) => number);
    const asked = () => place().get("ref") ?? (data.kind === "task" && every.length ? entries.name[0] : null);
    const chosen = () => { const name = asked(); return name === null ? -1 : numberOf.get(name) ?? -1; };
    const size = (entry) => (newest(entry) < 0 ? -1 : contents.size[contentOf(newest(entry))]);
    const timed = (entry) => (newest(entry) < 0 ? -1 : values.time[newest(entry)]);
    const columns = [
      { name: WORDS.entry, width: "minmax(9rem, 3fr)", by: (entry) => entries.name[entry], text: (entry) => entries.name[entry],
        look: (entry) => (troubleOf(entry) ? "bad" : ""), first: data.kind === "task" ? null : "up" },
      { name: WORDS.set, width: "10.5rem", by: timed, text: (entry) => moment(timed(entry)), number: true, wide: true },
      { name: "bytes", width: "6rem", by: size, text: (entry) => bytes(size(entry)), number: true },
      { name: `${WORDS.value}s`, width: "5.5rem", by: (entry) => entries.total[entry], text: (entry) => count(entries.total[entry]), number: true },
      { name: "what", width: "minmax(7rem, 2fr)", by: (entry) => kindOf(contentOf(newest(entry))), wide: true,
        text: (entry) => (troubleOf(entry) ? "cannot be read" : kindOf(contentOf(newest(entry)))) },
      { name: "note", width: "minmax(6rem, 2fr)", by: (entry) => inNumbers(brief(noteOf(newest(entry)))), text: (entry) => brief(noteOf(newest(entry))), wide: true },
    ].filter((column) => column.name !== "note" || entries.name.some((_, entry) => noteOf(newest(entry))));
    const found = list(columns, every, { open: (entry, keyed) => go({ ref: entries.name[entry], v: null }, keyed && place().has("ref")), clicked: () => reach(detail), chosen, name: WORDS.entries });
    const told = h("span", { class: "soft", role: "status" });
    const search = h("input", { type: "search", placeholder: "Search names, notes, types, keys", "aria-label": "Search",
      on: { input: () => narrow() } });
    const kind = h("select", { "aria-label": "Show", on: { change: () => narrow() } },
      Object.keys(KINDS).map((name) => h("option", {}, name)));
    function narrow() {
      words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      const test = KINDS[kind.value];
      const rows = every.filter((entry) => test(entry) && words.every((word) => hayOf(entry).includes(word)));
      found.set(rows);
      told.textContent = `${count(rows.length)} of ${count(every.length)}`;
    }
    told.textContent = many(every.length, WORDS.entry);
    const detail = h("section", { class: "detail", "aria-live": "polite", "aria-label": `The ${WORDS.entry} that was chosen` });
    const split = h("div", { class: "split" }, found.element, detail);
    const empty = every.length ? null : h("p", {}, `There are no ${WORDS.entry}s.`);
    return {
      element: h("div", {}, h("div", { class: "bar" }, search, kind, told), empty, every.length ? split : null),
      update() {
        const entry = chosen();
        const name = asked();
        split.classList.toggle("alone", name === null);
        detail.replaceChildren(...(name === null ? [] : [
          place().has("ref") ? closing() : "",
          ...(entry < 0 ? [h("p", {}, `There is no ${WORDS.entry} ${name} here.`)] : entryDetail(entry)),
        ]));
        found.mark(true);
      },
      search,
    };
  }

  function entryDetail(entry) {
    const trouble = text(entries.trouble[entry]);
    const head = h("h2", { class: "code", dir: "auto" }, entries.name[entry]);
    if (trouble) return [head, h("p", { class: "bad" }, trouble)];
    const asked = Number(place().get("v") || 0);
    const value = valuesFrom[entry] + (Number.isInteger(asked) && asked >= 0 && asked < entries.n[entry] ? asked : 0);
    const rows = [];
    for (let one = valuesFrom[entry]; one < valuesFrom[entry + 1]; one += 1) rows.push(one);
    const left = entries.total[entry] - entries.n[entry];
    const fresh = rows.some((one) => values.fresh[one] >= 0);
    const noted = rows.some((one) => noteOf(one) !== "");
    const history = table(
      [WORDS.value, WORDS.set, "bytes", ...(fresh ? ["new"] : []), data.kind === "store" ? "key" : "artifacts", ...(noted ? ["note"] : [])], rows,
      (one) => {
        const content = contentOf(one);
        const number = one - valuesFrom[entry];
        return h("tr", { "aria-selected": one === value },
          h("td", {}, h("button", { type: "button", class: "link", on: { click: () => go({ v: number ? String(number) : null }) } }, label(entry, one))),
          h("td", {}, moment(values.time[one])),
          h("td", { class: "number" }, bytes(contents.size[content])),
          fresh ? h("td", { class: "number" }, bytes(values.fresh[one])) : null,
          h("td", { class: "code" }, data.kind === "store" ? contents.key[content].slice(0, 10) : count(contents.total[content])),
          noted ? h("td", { dir: "auto" }, brief(noteOf(one)).slice(0, 120)) : null);
      }, [2, ...(fresh ? [3] : [])]);
    return [head, h("h3", {}, `${many(entries.total[entry], WORDS.value)}`), history,
      left > 0 ? h("p", { class: "soft" }, data.kind === "store"
        ? `${count(left)} older not here: mfstore refs ${entries.name[entry]}` : `${count(left)} older not here`) : null,
      ...valueDetail(entry, value)].filter(Boolean);
  }

  const MARKS = { "+": ["added", "good"], "-": ["removed", "bad"], "~": ["changed", "changed"], "=": ["same", "soft"] };
  function valueDetail(entry, value) {
    const content = contentOf(value);
    const other = before(entry, value);
    const older = contentOf(other);
    const out = [h("h3", {}, `${label(entry, value)}${other < 0 ? "" : `, against ${label(entry, other)}`}`)];
    out.push(h("p", { class: "code" }, contents.key[content]));
    if (text(contents.trouble[content])) return [...out, h("p", { class: "bad" }, text(contents.trouble[content]))];
    const facts = [];
    if (contents.size[content] >= 0) facts.push(bytes(contents.size[content]));
    if (contents.stored[content] >= 0) facts.push(`${bytes(contents.stored[content])} stored`);
    if (text(contents.creator[content])) facts.push(`by ${text(contents.creator[content])}`);
    if (contents.created[content] >= 0) facts.push(`first on ${moment(contents.created[content])}`);
    out.push(h("p", { class: "soft" }, facts.join(", ")));
    const note = noteOf(value);
    if (note) out.push(h("h3", {}, "Note"), h("pre", { tabindex: 0 }, pretty(note)));
    const rows = differences(content, older >= 0 && !text(contents.trouble[older]) ? older : -1);
    const marked = rows.some(([mark]) => mark);
    if (marked) rows.sort(([a], [b]) => Number(a === "=") - Number(b === "="));
    const counts = Object.entries(MARKS).map(([mark, [word]]) => [rows.filter(([one]) => one === mark).length, word]);
    out.push(h("h3", {}, `${many(contents.total[content], "artifact")}${marked ? `: ${counts.filter(([n]) => n).map(([n, word]) => `${count(n)} ${word}`).join(", ")}` : ""}`));
    if (contents.total[content] > contents.n[content]) out.push(h("p", { class: "soft" }, `The first ${count(contents.n[content])} are here.`));
    out.push(table([...(marked ? [""] : []), "name", "type", "bytes"], rows, ([mark, part]) => h("tr", {},
      marked ? h("td", { class: MARKS[mark][1] }, MARKS[mark][0]) : null,
      h("td", { class: "code", dir: "auto" }, text(parts.name[part]) || "(the value)"),
      h("td", { class: "code" }, text(parts.type[part])),
      h("td", { class: "number" }, bytes(parts.size[part]))), [marked ? 3 : 2]));
    const compared = comparedOf.get(entry);
    if (compared && value === valuesFrom[entry]) {
      out.push(h("h3", {}, `Inside, ${compared.old} to ${compared.new}`), h("p", {}, compared.summary));
      if (compared.lines.length) {
        out.push(table(["", "part", "was", "is"], compared.lines, ([mark, ...cells]) => h("tr", {},
          h("td", { class: (MARKS[mark] || ["", ""])[1] }, mark), cells.map((cell) => h("td", { class: "code", dir: "auto" }, cell)))));
      }
      if (compared.more) out.push(h("p", { class: "soft" }, `and ${count(compared.more)} more`));
    }
    return out;
  }
  /* A note in a line: without the braces around it. */
  function brief(note) {
    try {
      const found = JSON.parse(note);
      return Object.entries(found).map(([name, value]) => `${name} ${typeof value === "string" ? value : JSON.stringify(value)}`).join(", ");
    } catch { return note; }
  }
  function pretty(note) {
    try { return JSON.stringify(JSON.parse(note), null, 1); } catch { return note; }
  }

  // ---- runs

  function runsView() {
    const byRun = new Map();
    entries.name.forEach((name, entry) => {
      const flow = name.split("/")[0];
      for (let value = valuesFrom[entry]; value < valuesFrom[entry + 1]; value += 1) {
        const run = `${flow}/${runOf(value)}`;
        if (!byRun.has(run)) byRun.set(run, []);
        byRun.get(run).push([entry, value]);
      }
    });
    const names = [...byRun.keys()];
    const space = data.spaces.find((one) => one.by === "run");
    const held = new Map(space ? space.name.map((name, number) => [name, [space.owns[number], space.shares[number]]]) : []);
    const tasks = (run) => byRun.get(names[run]);
    const last = names.map((_, run) => Math.max(...tasks(run).map(([, value]) => values.time[value])));
    const own = (run, number) => (held.get(names[run]) || [-1, -1])[number];
    const chosen = () => names.indexOf(place().get("run"));
    const columns = [
      { name: "run", width: "minmax(9rem, 3fr)", by: (run) => names[run], text: (run) => names[run] },
      { name: "stored", width: "10.5rem", by: (run) => last[run], text: (run) => moment(last[run]), number: true, first: "down", wide: true },
      { name: "tasks", width: "5rem", by: (run) => tasks(run).length, text: (run) => count(tasks(run).length), number: true, wide: true },
      { name: "own", width: "6rem", by: (run) => own(run, 0), text: (run) => bytes(own(run, 0)), number: true },
      { name: "shared", width: "6rem", by: (run) => own(run, 1), text: (run) => bytes(own(run, 1)), number: true, wide: true },
    ];
    const every = names.map((_, number) => number);
    const found = list(columns, every, { open: (run, keyed) => go({ run: names[run] }, keyed && place().has("run")), clicked: () => reach(detail), chosen, name: "Runs" });
    const search = h("input", { type: "search", placeholder: "Search flows and runs", "aria-label": "Search", on: { input: () => {
      const asked = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      found.set(every.filter((run) => asked.every((word) => names[run].toLowerCase().includes(word))));
    } } });
    const detail = h("section", { class: "detail", "aria-live": "polite", "aria-label": "The run that was chosen" });
    const split = h("div", { class: "split" }, found.element, detail);
    return {
      element: h("div", {}, h("div", { class: "bar" }, search), names.length ? split : h("p", {}, "There are no runs.")),
      update() {
        const run = chosen();
        const asked = place().get("run");
        split.classList.toggle("alone", asked === null);
        detail.replaceChildren(...(asked === null ? [] : run < 0 ? [closing(), h("p", {}, `The tasks of ${asked} are not here.`)] : [closing(), h("h2", { class: "code" }, names[run]),
          table(["step", "task", "stored", "bytes", "artifacts"], tasks(run), ([entry, value]) => h("tr", {},
            h("td", {}, h("button", { type: "button", class: "link",
              on: { click: () => go({ tab: "entries", ref: entries.name[entry], v: String(value - valuesFrom[entry]) }) } },
            entries.name[entry].split("/").slice(1).join("/"))),
            h("td", { class: "code" }, label(entry, value).split("/").slice(1).join("/")),
            h("td", {}, moment(values.time[value])),
            h("td", { class: "number" }, bytes(contents.size[contentOf(value)])),
            h("td", { class: text(contents.trouble[contentOf(value)]) ? "bad" : "number" },
              text(contents.trouble[contentOf(value)]) || count(contents.total[contentOf(value)]))), [3])]));
        found.mark(true);
      },
      search,
    };
  }

  // ---- where the bytes are

  /* Groups as a tree of the words between slashes, each with the bytes of all below it. */
  function treeOf(space) {
    const made = (name, path) => ({ name, path, own: 0, itself: 0, others: 0, othersOwn: 0, below: new Map() });
    const root = made("", "");
    const reach = (path, own) => {
      let node = root;
      node.own += own;
      path.forEach((word, depth) => {
        if (!node.below.has(word)) node.below.set(word, made(word, path.slice(0, depth + 1).join("/")));
        node = node.below.get(word);
        node.own += own;
      });
      return node;
    };
    space.name.forEach((name, number) => {
      reach(/^\(/.test(name) ? [name] : name.split("/"), space.owns[number]).itself += space.owns[number];
    });
    for (const [name, number, own] of space.rest) {
      const node = reach(name ? name.split("/") : [], own);
      node.others += number;
      node.othersOwn += own;
    }
    return root;
  }

  /* Rectangles for sizes, as square as may be: rows along the shorter side, each filled as long as that makes its
     worst rectangle better (Bruls, Huizing and van Wijk, 2000). */
  function squarify(sizes, width, height) {
    const total = sizes.reduce((sum, one) => sum + one, 0);
    const areas = sizes.map((one) => (one / total) * width * height);
    const out = [];
    let left = 0, top = 0, wide = width, high = height, first = 0;
    const worst = (sum, least, most, side) => Math.max((side * side * most) / (sum * sum), (sum * sum) / (side * side * least));
    while (first < areas.length) {
      const side = Math.min(wide, high);
      let sum = areas[first], end = first + 1;
      while (end < areas.length && worst(sum + areas[end], areas[end], areas[first], side) <= worst(sum, areas[end - 1], areas[first], side)) {
        sum += areas[end];
        end += 1;
      }
      const thick = side ? sum / side : 0;
      let along = 0;
      for (let one = first; one < end; one += 1) {
        const length = thick ? areas[one] / thick : 0;
        out.push(wide >= high ? [left, top + along, thick, length] : [left + along, top, length, thick]);
        along += length;
      }
      if (wide >= high) { left += thick; wide -= thick; } else { top += thick; high -= thick; }
      first = end;
    }
    return out;
  }
  const colour = (name) => {
    let sum = 7;
    for (const letter of name) sum = (sum * 31 + letter.codePointAt(0)) >>> 0;
    return `var(--cell-${sum % 8})`;
  };

  /* Where a group is shown by itself. */
  const leads = (space, name) => {
    if (["ref", "step"].includes(space.by) && numberOf.has(name)) return { tab: "entries", ref: name, v: null };
    return space.by === "run" && VIEWS.runs ? { tab: "runs", run: name } : null;
  };

  function bytesView() {
    const trees = new Map();
    const map = h("div", { class: "map" });
    const crumbs = h("nav", { class: "bar crumbs", "aria-label": "Where" });
    const choices = h("div", { class: "bar", role: "group", "aria-label": "By" });
    const sums = h("p", { class: "soft" });
    const below = h("div", {});
    const current = () => data.spaces.find((one) => one.by === place().get("by")) || data.spaces[0];
    function draw() {
      const space = current();
      if (!trees.has(space)) trees.set(space, treeOf(space));
      const tree = trees.get(space);
      let node = tree;
      const path = (place().get("at") || "").split("/").filter(Boolean);
      for (const word of path) node = node.below.get(word) || node;
      choices.replaceChildren("by", ...data.spaces.map((one) => h("button", { type: "button", class: "choice", "aria-pressed": one === space,
        on: { click: () => go({ by: one.by, at: null }) } }, one.by)));
      const whole = space.own + space.shared + space.unheld;
      sums.textContent = data.kind === "task" ? "Sizes of pickles, before they are compressed." : `${bytes(whole)} in all: ${bytes(space.own)} own, ${bytes(space.shared)} shared by several, ${bytes(space.unheld)} held by none. `
        + "Cells are own bytes: they would go if only that did.";
      crumbs.replaceChildren(h("button", { type: "button", class: "link", on: { click: () => go({ at: null }) } }, "all"),
        ...path.map((word, depth) => h("button", { type: "button", class: "link", on: { click: () => go({ at: path.slice(0, depth + 1).join("/") }) } }, `/ ${word}`)));
      const nodes = [...node.below.values()].filter((one) => one.own > 0).sort((a, b) => b.own - a.own);
      const cells = nodes.slice(0, CELLS).map((one) => ({ name: one.name, own: one.own, node: one }));
      const rest = nodes.slice(CELLS);
      const others = rest.reduce((sum, one) => sum + one.own, node.othersOwn);
      if (others > 0) cells.push({ name: many(rest.length + node.others, "other"), own: others });
      if (node !== tree && node.itself) cells.push({ name: `${node.name} itself`, own: node.itself, node: { ...node, below: new Map(), others: 0 } });
      if (node === tree && space.shared) cells.push({ name: "shared by several", own: space.shared });
      if (node === tree && space.unheld) cells.push({ name: "held by none", own: space.unheld });
      cells.sort((a, b) => b.own - a.own);
      const wide = map.clientWidth || 800, high = map.clientHeight || 400;
      const places = cells.length ? squarify(cells.map((cell) => cell.own), wide, high) : [];
      map.replaceChildren(...cells.map((cell, number) => {
        const [left, top, width, height] = places[number];
        const zooms = cell.node && (cell.node.below.size > 0 || cell.node.others > 0);
        const opens = cell.node && !zooms && leads(space, cell.node.path);
        const element = h("button", { type: "button", class: "cell", title: `${cell.name}: ${bytes(cell.own)}`,
          "aria-label": line(`${cell.name}, ${bytes(cell.own)}${zooms ? ", open" : ""}`), tabindex: width * height < 400 ? -1 : null,
          on: { click: () => { if (zooms) go({ at: cell.node.path }); else if (opens) go(opens); } } },
        width > 44 && height > 20 ? h("span", { dir: "auto" }, line(cell.name.slice(0, 200))) : null,
        width > 44 && height > 38 ? h("span", {}, bytes(cell.own)) : null);
        Object.assign(element.style, { left: `${left}px`, top: `${top}px`, width: `${width}px`, height: `${height}px`,
          background: cell.node ? colour(cell.name) : "var(--cell-rest)", cursor: zooms || opens ? "pointer" : "default" });
        if (width < 12 || height < 10) element.style.padding = 0;
        return element;
      }));
      if (!cells.length) map.replaceChildren(h("p", { class: "soft" }, "Nothing is held."));
      const prefix = path.length ? `${path.join("/")}/` : "";
      const rows = space.name.map((_, number) => number).filter((number) => !prefix || space.name[number].startsWith(prefix) || space.name[number] === prefix.slice(0, -1));
      let picked = -1; // opening one leads to another view: the keyboard picks first, and Enter opens
      const groups = list([
        { name: space.by, width: "minmax(9rem, 3fr)", by: (row) => space.name[row], text: (row) => space.name[row] },
        { name: "own", width: "6rem", by: (row) => space.owns[row], text: (row) => bytes(space.owns[row]), number: true, first: "down" },
        { name: "of all", width: "5rem", by: (row) => space.owns[row], text: (row) => (whole ? `${((100 * space.owns[row]) / whole).toFixed(1)}%` : ""), number: true },
        { name: "shared", width: "6rem", by: (row) => space.shares[row], text: (row) => bytes(space.shares[row]), number: true },
      ], rows, { open: (row) => { const to = leads(space, space.name[row]); if (to) go(to); },
        pick: (row) => { picked = row; groups.mark(false); }, chosen: () => picked, name: "Groups" });
      below.replaceChildren(groups.element);
      groups.mark(false);
    }
    if (!data.spaces.length) return { element: h("p", {}, "It is not known who holds how much: see what could not be read."), update() {} };
    addEventListener("resize", () => { if (map.isConnected) draw(); });
    return { element: h("div", {}, choices, sums, crumbs, map, h("h3", {}, "Groups"), below), update: draw };
  }

  // ---- growth

  function growthView() {
    const days = data.growth;
    const box = h("div", {});
    if (!days.length) return { element: h("p", {}, "Nothing is stored."), update() {} };
    const at = days.map(([day]) => Date.parse(day) / 86400000);
    let sum = 0;
    const until = days.map(([, stored]) => { sum += stored; return sum; });
    function draw() {
      const wide = Math.max(320, box.clientWidth || 800), high = 320, left = 70, right = 16, top = 16, bottom = 34;
      const first = at[0] - 1, last = Math.max(at[at.length - 1], first + 1);
      const x = (day) => left + ((day - first) / (last - first)) * (wide - left - right);
      const y = (stored) => top + (1 - stored / (sum || 1)) * (high - top - bottom);
      const svg = (tag, given, word) => {
        const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
        for (const [name, value] of Object.entries(given)) element.setAttribute(name, String(value));
        if (word !== undefined) element.textContent = word;
        return element;
      };
      const picture = svg("svg", { viewBox: `0 0 ${wide} ${high}`, width: wide, height: high, role: "img",
        "aria-label": `From ${bytes(until[0])} on ${days[0][0]} to ${bytes(sum)} on ${days[days.length - 1][0]}` });
      for (let part = 0; part <= 4; part += 1) {
        const level = (sum * part) / 4;
        picture.append(svg("line", { class: "axis", x1: left, x2: wide - right, y1: y(level), y2: y(level) }),
          svg("text", { x: left - 8, y: y(level) + 4, "text-anchor": "end" }, bytes(level)));
      }
      const marks = Math.min(wide < 600 ? 3 : 6, last - first + 1);
      for (let part = 0; part < marks; part += 1) {
        const day = Math.round(first + ((last - first) * part) / Math.max(1, marks - 1));
        picture.append(svg("text", { x: x(day), y: high - 10, "text-anchor": part === 0 ? "start" : part === marks - 1 ? "end" : "middle" },
          new Date(day * 86400000).toISOString().slice(0, 10)));
      }
      let path = `M${x(first)} ${y(0)}`, before_ = 0;
      at.forEach((day, number) => { path += `L${x(day - 1).toFixed(1)} ${y(before_).toFixed(1)}L${x(day).toFixed(1)} ${y(until[number]).toFixed(1)}`; before_ = until[number]; });
      picture.append(svg("path", { class: "area", d: `${path}L${x(at[at.length - 1])} ${y(0)}Z` }), svg("path", { class: "line", d: path }));
      box.replaceChildren(picture);
    }
    addEventListener("resize", () => { if (box.isConnected) draw(); });
    const rows = days.map((_, number) => number).reverse();
    return { element: h("div", {}, h("p", { class: "soft" }, "What was stored on each day (UTC) and is still there, and the sum up to it. What was copied or packed anew is of that day."),
      box, table(["day", "stored then", "objects", "until then"], rows, (row) => h("tr", {}, h("td", {}, days[row][0]),
        h("td", { class: "number" }, bytes(days[row][1])), h("td", { class: "number" }, count(days[row][2])), h("td", { class: "number" }, bytes(until[row]))), [1, 2, 3])), update: draw };
  }

  function aboutView() {
    return { element: h("div", {}, h("p", {}, `Read by mfstore ${data.version} on ${moment(data.made)}. The page holds all that it shows, and asks nobody for anything.`),
      h("h3", {}, "What is left out"), data.notes.length ? h("ul", {}, data.notes.map((note) => h("li", {}, note))) : h("p", {}, "Nothing."),
      h("h3", {}, "Keys"), h("p", {}, "In a list, arrows, Home, End and the page keys choose a row; / goes to the search, and Escape closes what is chosen.")), update() {} };
  }

  // ---- the whole

  const main = document.getElementById("page");
  const VIEWS = {
    ...(data.kind === "store" ? {} : { runs: ["Runs", runsView] }),
    entries: [WORDS.entries, entriesView],
    bytes: ["Bytes", bytesView],
    growth: ["Growth", growthView],
    about: ["About", aboutView],
  };
  if (data.kind === "task") for (const name of ["runs", "growth"]) delete VIEWS[name];
  if (data.kind === "task" && !data.spaces.length) delete VIEWS.bytes;
  const made = {};
  const tabs = {};
  const panel = h("div", { role: "tabpanel", id: "panel" });
  function show() {
    const asked = place();
    const first = Object.keys(VIEWS)[0];
    const name = Object.hasOwn(VIEWS, asked.get("tab")) ? asked.get("tab") : asked.has("ref") ? "entries" : asked.has("run") && VIEWS.runs ? "runs" : asked.has("by") && VIEWS.bytes ? "bytes" : first;
    for (const [one, tab] of Object.entries(tabs)) {
      tab.setAttribute("aria-selected", one === name);
      tab.tabIndex = one === name ? 0 : -1;
    }
    panel.setAttribute("aria-labelledby", `tab-${name}`);
    if (!made[name]) made[name] = VIEWS[name][1]();
    if (panel.firstChild !== made[name].element) panel.replaceChildren(made[name].element);
    made[name].update();
    show.view = made[name];
  }
  main.append(h("ul", { class: "tiles" }, data.amounts.map(([name, number, isBytes]) =>
    h("li", {}, h("b", {}, isBytes ? bytes(number) : count(number)), h("span", {}, name)))));
  if (data.troubles.length) {
    main.append(h("details", { class: "troubles", open: data.troubles.length < 6 },
      h("summary", {}, "Not all could be read"), h("ul", {}, data.troubles.map((told) => h("li", {}, told)))));
  }
  const bar = h("div", { role: "tablist", "aria-label": "Views", on: { keydown: (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const names = Object.keys(tabs);
    const next = names[(names.indexOf(document.activeElement.dataset.name) + step + names.length) % names.length];
    tabs[next].focus();
    go({ tab: next });
  } } });
  for (const [name, [title]] of Object.entries(VIEWS)) {
    tabs[name] = h("button", { type: "button", role: "tab", id: `tab-${name}`, "aria-controls": "panel", "data-name": name, on: { click: () => go({ tab: name }) } },
      title === WORDS.entries ? `${title} (${count(entries.name.length)})` : title);
    bar.append(tabs[name]);
  }
  main.append(bar, panel);
  addEventListener("hashchange", show);
  addEventListener("keydown", (event) => {
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    if (event.key === "/" && !typing && show.view.search) { event.preventDefault(); show.view.search.focus(); }
    if (event.key === "Escape" && !typing) go({ ref: null, v: null, run: null });
  });
  show();
  document.body.dataset.shown = String(entries.name.length);
  document.body.dataset.ms = String(Math.round(performance.now()));
})();
