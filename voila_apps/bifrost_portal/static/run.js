// One execution: what happens while it happens, and what came of it. Text of workflows only ever becomes text nodes.

import { element } from "./form.js";
import { ask } from "./http.js";

const WORDS = {
  pending: "Waiting to start", awaiting_approval: "Waiting for approval", running: "Running", success: "Completed",
  completed_with_errors: "Completed with errors", failed: "Failed", timeout: "Took too long", cancelled: "Cancelled",
  crashed: "Interrupted",
};
const HINTS = {
  failed: "The workflow stopped with an error.",
  timeout: "The workflow did not finish within its time.",
  crashed: "The workflow was interrupted. It was not started again, so that nothing is done twice.",
  cancelled: "Nobody needs to do anything.",
  completed_with_errors: "The workflow reported that not all of it went well.",
};
const RETRY = [500, 1000, 2000, 5000]; // milliseconds
const MAX_LINES = 2000;
const TIME = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const WHEN = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

export function duration(milliseconds) {
  if (milliseconds < 1000) return `${Math.max(0, Math.round(milliseconds))} ms`;
  if (milliseconds < 60000) return `${(milliseconds / 1000).toFixed(1)} s`;
  return `${Math.floor(milliseconds / 60000)} min ${Math.round((milliseconds % 60000) / 1000)} s`;
}

export class RunView {
  constructor(root, { execution, events, inputs }) {
    this.root = root;
    this.execution = execution;
    this.inputs = inputs;
    this.seen = 0;
    this.build();
    for (const event of events) this.take(event);
    this.refresh();
  }

  start() {
    if (!this.execution.over) this.listen();
  }

  get address() {
    return `/runs/${this.execution.execution_id}`;
  }

  // the page ---------------------------------------------------------------------------------------------------------

  build() {
    const { execution } = this;
    this.badge = element("span", { class: "badge", role: "status" });
    this.took = element("dd", { text: "–" });
    this.buttons = element("div", { class: "buttons" });
    this.outcome = element("div");
    this.meter = element("progress", { max: 1, "aria-labelledby": "progress-text" });
    this.progressText = element("p", { class: "small mute", id: "progress-text" });
    this.progress = element("div", { class: "progress", hidden: true }, this.progressText, this.meter);
    this.lines = element("ol", {});
    this.log = element("div", { class: "lines", tabindex: "0", role: "log", "aria-label": "Execution log", hidden: true }, this.lines);
    this.quiet = element("p", { class: "mute", text: "Nothing has been logged yet." });
    this.lost = element("div", { class: "lost", role: "status" });
    const facts = element(
      "dl", { class: "facts" },
      fact("Run by", execution.caller.name || execution.caller.email || execution.caller.subject),
      fact("When", WHEN.format(new Date(execution.created_at))),
      element("div", {}, element("dt", { text: "Duration" }), this.took),
      fact("Organization", this.root.querySelector(".facts div:last-child dd")?.textContent || execution.organization),
    );
    const head = element("div", { class: "head" }, element("h1", { text: execution.title }), this.badge);
    this.result = element("section", { class: "card result", "aria-labelledby": "result-title", hidden: true });
    const log = element("section", { class: "card", "aria-labelledby": "log-title" }, element("h2", { id: "log-title", text: "What happened" }), this.quiet, this.log);
    this.root.replaceChildren(element("section", { class: "card" }, head, facts, this.progress, this.outcome, this.buttons), this.result, log, this.given(), this.lost);
  }

  given() {
    if (!this.inputs.length) return "";
    const list = element("dl", {});
    for (const { name, label, value } of this.inputs) list.append(element("dt", { text: label || name }), element("dd", {}, shown(value)));
    return element("section", { class: "card result" }, element("h2", { text: "What was asked for" }), list);
  }

  refresh() {
    const { execution } = this;
    this.badge.className = `badge ${execution.status}`;
    this.badge.textContent = WORDS[execution.status] || execution.status;
    document.title = `${WORDS[execution.status]}: ${execution.title} · Bifrost`;
    if (execution.duration_ms !== null && execution.duration_ms !== undefined) this.took.textContent = duration(execution.duration_ms);
    this.offer();
    this.tell();
    if (!execution.over) return;
    this.progress.hidden = true;
    this.lost.replaceChildren();
    if (!this.seen) this.quiet.textContent = "The workflow logged nothing.";
    this.show();
  }

  tell() {
    const { execution } = this;
    const note = (kind, ...lines) => this.outcome.replaceChildren(element("div", { class: `note ${kind}`, role: "status" }, ...lines));
    if (execution.status === "awaiting_approval") note("warn", element("p", { text: execution.mine ? "Somebody else has to approve this before it runs." : "This waits for a decision." }));
    else if (execution.status in HINTS) {
      const quote = element("p", { class: "small" }, "If you ask for help, quote the execution ", element("code", { text: execution.execution_id }), ".");
      note(execution.status === "cancelled" ? "warn" : "bad", element("p", { text: execution.error || HINTS[execution.status] }), quote);
    } else if (execution.status === "success" && execution.success_text) note("good", element("p", { text: execution.success_text }));
    else this.outcome.replaceChildren();
  }

  offer() {
    const { may, workflow_name: workflow, execution_id: id, organization } = this.execution;
    const offers = [];
    if (may.decide) offers.push(this.button("Approve", "approve", "primary"), this.button("Reject", "reject", "danger"));
    if (may.cancel && !may.decide) offers.push(this.button("Cancel", "cancel", ""));
    if (may.rerun) offers.push(link("Run again", `/workflows/${this.execution.form || workflow}?org=${encodeURIComponent(organization)}&again=${id}`));
    if (may.record) offers.push(link("Record", `${this.address}/record`), link("Notebook file", `${this.address}/record.ipynb`, true));
    this.buttons.replaceChildren(...offers);
  }

  button(label, act, kind) {
    const button = element("button", { type: "button", class: `button ${kind}`, text: label });
    button.addEventListener("click", () => this.act(act, button));
    return button;
  }

  async act(act, button) {
    if (button.getAttribute("aria-disabled") === "true") return;
    button.setAttribute("aria-disabled", "true");
    try {
      await ask("POST", `${this.address}/${act}`);
      await this.reload();
      if (!this.execution.over) this.listen();
    } catch (error) {
      this.outcome.replaceChildren(element("div", { class: "note bad", role: "alert" }, element("p", { text: error.message })));
      button.removeAttribute("aria-disabled");
    }
  }

  // its events -------------------------------------------------------------------------------------------------------

  take(event) {
    if (event.seq <= this.seen) return false;
    this.seen = event.seq;
    if (event.type === "status") return true;
    if (event.type === "progress") this.advance(event);
    const line = describe(event);
    if (line) this.add(event, line);
    return false;
  }

  add(event, { kind, label, text, data }) {
    this.quiet.hidden = true;
    this.log.hidden = false;
    const row = element("li", { class: kind });
    row.append(
      element("time", { datetime: event.at, text: TIME.format(new Date(event.at)) }),
      element("span", { class: "text" }, label ? element("span", { class: "level", text: label }) : null, label ? ` ${text}` : text),
    );
    if (data !== undefined && data !== null) row.append(details(data));
    const follow = this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < 40;
    this.lines.append(row);
    if (this.lines.childElementCount > MAX_LINES) this.lines.firstElementChild.remove();
    if (follow) this.log.scrollTop = this.log.scrollHeight;
  }

  advance({ done, total, text }) {
    this.progress.hidden = false;
    if (total) {
      this.meter.max = total;
      this.meter.value = done;
    }
    this.progressText.textContent = [text, total ? `${done} of ${total}` : done].filter(Boolean).join(" · ");
  }

  listen() {
    this.source?.close();
    const source = (this.source = new EventSource(`${this.address}/events?after=${this.seen}`));
    const taken = (message) => {
      this.tries = 0;
      this.lost.replaceChildren();
      const changed = this.take(JSON.parse(message.data));
      if (changed) this.reload();
    };
    source.onmessage = taken;
    for (const type of ["log", "checkpoint", "variable", "config_read", "secret_read", "connection_read", "status", "progress", "step"]) source.addEventListener(type, taken);
    source.onerror = () => {
      source.close();
      if (this.execution.over || source !== this.source) return;
      this.again();
    };
    clearInterval(this.clock);
    this.clock = setInterval(() => this.tick(), 250);
  }

  /** The stream ended, or the line is gone: ask how things stand, and go on from where we were. */
  again() {
    const delay = RETRY[Math.min(this.tries || 0, RETRY.length - 1)];
    this.tries = (this.tries || 0) + 1;
    if (this.tries > 2) this.lost.replaceChildren(element("div", { class: "note warn" }, element("p", { text: "The connection is lost. Your workflow goes on; this page tries to find it again." })));
    setTimeout(async () => {
      try {
        await this.reload();
      } catch (error) {
        if (error.status === 404) return;
        this.again();
        return;
      }
      if (!this.execution.over) this.listen();
    }, delay);
  }

  async reload() {
    const { execution, events } = await ask("GET", this.address);
    this.execution = execution;
    for (const event of events) this.take(event);
    this.refresh();
    if (execution.over) this.end();
  }

  end() {
    this.source?.close();
    clearInterval(this.clock);
  }

  tick() {
    const { started_at: started, over } = this.execution;
    if (started && !over) this.took.textContent = duration(Date.now() - new Date(started).getTime());
  }

  // its result -------------------------------------------------------------------------------------------------------

  show() {
    const { view } = this.execution;
    if (!view || view.kind === "nothing") {
      this.result.hidden = true;
      return;
    }
    const title = element("div", { class: "head" }, element("h2", { id: "result-title", text: "Result" }), this.downloads(view));
    this.result.replaceChildren(title, this.body(view));
    this.result.hidden = false;
  }

  downloads(view) {
    const buttons = element("div", { class: "buttons" });
    if (view.kind === "table") buttons.append(link("CSV", `${this.address}/result.csv`, true));
    if (["table", "fields", "json"].includes(view.kind)) buttons.append(link("JSON", `${this.address}/result.json`, true));
    return buttons;
  }

  body(view) {
    switch (view.kind) {
      case "fields": {
        const list = element("dl", {});
        for (const item of view.items) list.append(element("dt", { text: item.name }), element("dd", {}, item.table ? table(item.table) : item.code ? element("pre", { text: item.value }) : item.value));
        return list;
      }
      case "table":
        return table(view);
      case "markdown": {
        const prose = element("div", { class: "prose" });
        prose.innerHTML = view.html; // sanitised on the server, under a policy that runs no script
        return prose;
      }
      case "html":
        return element("iframe", { src: `${this.address}/result.html`, sandbox: "", title: "Result", referrerpolicy: "no-referrer" });
      case "file":
        return element("p", {}, link(`Download ${view.name}`, `${this.address}/result.file`, true), ` ${view.bytes.toLocaleString()} bytes`);
      default:
        return element("pre", { text: view.text });
    }
  }
}

/** Data that is written out when somebody wants to see it. */
function details(data) {
  const node = element("details", {}, element("summary", { text: "Details" }));
  node.addEventListener("toggle", () => node.open && node.append(element("pre", { text: JSON.stringify(data, null, 2) })), { once: true });
  return node;
}

function fact(name, value) {
  return element("div", {}, element("dt", { text: name }), element("dd", { text: value }));
}

function link(label, address, download = false) {
  return element("a", { class: "button", href: address, download, text: label });
}

function shown(value) {
  if (value === null || value === undefined) return element("span", { class: "mute", text: "–" });
  if (typeof value === "boolean") return value ? "Yes" : "No";
  return typeof value === "object" ? element("pre", { text: JSON.stringify(value, null, 2) }) : String(value);
}

function describe(event) {
  switch (event.type) {
    case "log":
      return { kind: event.level, label: ["info", "debug"].includes(event.level) ? "" : event.level, text: event.message, data: event.data };
    case "checkpoint":
      return { kind: "checkpoint", label: "Checkpoint", text: event.name, data: event.data };
    case "variable":
      return { kind: "variable", label: "Variable", text: event.name, data: event.value };
    default:
      return null;
  }
}

/** A table that sorts by the columns' heads. */
function table({ columns, rows, count }) {
  const body = element("tbody", {});
  const fill = (sorted) => body.replaceChildren(...sorted.map((row) => element("tr", {}, ...row.map((cell) => element("td", { text: cell })))));
  const heads = columns.map((column, index) => {
    const button = element("button", { type: "button", text: column });
    const head = element("th", { scope: "col" }, button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const order = new Intl.Collator(undefined, { numeric: true });
      fill([...rows].sort((a, b) => order.compare(a[index], b[index]) * (down ? -1 : 1)));
    });
    return head;
  });
  fill(rows);
  const caption = element("caption", { class: "visually-hidden", text: count > rows.length ? `${rows.length} of ${count} rows` : `${count} rows` });
  return element("div", { class: "table", tabindex: "0", role: "region", "aria-label": "Table" }, element("table", {}, caption, element("thead", {}, element("tr", {}, ...heads)), body));
}
