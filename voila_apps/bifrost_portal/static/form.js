// The form of a workflow: one accessible form made of the fields that GET /api/forms/{name} serves.
//
// The portal's page mounts it before any kernel is there, with HTTP behind it; in a notebook it is the front of the
// BifrostForm widget (anywidget calls `render`), with the kernel behind it. It decides nothing: the server checks all
// that it sends again. Text of others (labels, options, errors) only ever becomes text nodes.

const SEARCH_FROM = 12; // more options than this are searched rather than scrolled through
const DRAFT_DELAY = 700; // milliseconds without a change after which a draft is kept
const REFETCH_DELAY = 250;

let counter = 0;

export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "text") node.textContent = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

export function ago(instant, now = Date.now()) {
  const seconds = Math.max(0, Math.round((now - new Date(instant).getTime()) / 1000));
  if (seconds < 60) return "just now";
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86400)} d ago`;
}

/** Metadata of an option as one line: "available 20 · total 50". */
function describe(metadata) {
  if (!metadata || typeof metadata !== "object") return "";
  return Object.entries(metadata)
    .filter(([, value]) => value !== null && typeof value !== "object")
    .map(([name, value]) => `${name.replaceAll("_", " ")} ${value}`)
    .join(" · ");
}

class Refusal extends Error {
  /** What a transport throws: `fields` as the API gives them, `message` for people. */
  constructor(message, fields = []) {
    super(message);
    this.fields = fields;
  }
}

// fields -------------------------------------------------------------------------------------------------------------

class Field {
  constructor(spec, form) {
    this.spec = spec;
    this.form = form;
    this.id = `${form.id}-${spec.name}`;
    this.touched = false;
    this.error = element("p", { id: `${this.id}-error`, class: "bf-error" });
    this.help = spec.help_text ? element("p", { id: `${this.id}-help`, class: "bf-help", text: spec.help_text }) : null;
    this.box = element("div", { class: `bf-field bf-${spec.widget}`, "data-field": spec.name });
    this.build();
    this.box.addEventListener("focusout", (event) => {
      // Not on the way to the button: a message that appears would move it away from under the pointer.
      if (this.box.contains(event.relatedTarget) || !this.touched || event.relatedTarget === form.button) return;
      this.show(this.problem());
    });
  }

  // what every control says of itself
  get described() {
    const optional = this.spec.required || this.spec.type === "bool" ? null : `${this.id}-optional`;
    return [optional, this.help && this.help.id, this.error.id].filter(Boolean).join(" ");
  }

  attributes(more = {}) {
    return {
      id: this.id,
      name: this.spec.name,
      "aria-describedby": this.described,
      "aria-required": this.spec.required ? "true" : null,
      placeholder: this.spec.placeholder,
      ...more,
    };
  }

  label() {
    // The mark stands beside the label, not in it: the field's name is the label alone, its state comes with the field.
    const mark = this.spec.required
      ? element("span", { class: "bf-required", "aria-hidden": "true", text: "*" })
      : element("span", { class: "bf-optional", id: `${this.id}-optional`, text: "Optional" });
    const label = element("label", { for: this.id, id: `${this.id}-label`, text: this.spec.label });
    return element("div", { class: "bf-label" }, label, mark);
  }

  build() {
    this.control = this.makeControl();
    this.control.addEventListener("input", () => this.changed());
    this.box.append(this.label(), this.control, ...[this.help, this.error].filter(Boolean));
  }

  makeControl() {
    const { type } = this.spec;
    if (this.spec.widget === "textarea") return element("textarea", this.attributes({ rows: 4 }));
    if (type === "int") return element("input", this.attributes({ type: "text", inputmode: "numeric", autocomplete: "off" }));
    if (type === "float") return element("input", this.attributes({ type: "text", inputmode: "decimal", autocomplete: "off" }));
    if (type === "email")
      return element("input", this.attributes({ type: "email", autocomplete: "off", spellcheck: "false", autocapitalize: "none" }));
    return element("input", this.attributes({ type: "text", autocomplete: "off" }));
  }

  changed() {
    this.touched = true;
    if (this.box.dataset.invalid !== undefined) this.show(this.problem());
    this.form.changed(this);
  }

  get text() {
    return this.control.value.trim();
  }

  get empty() {
    return this.text === "";
  }

  /** The value as JSON has it; undefined when nothing is given. Throws Refusal when it is none of its type. */
  get value() {
    if (this.empty) return undefined;
    if (this.spec.type === "int") return number(this.text, /^[+-]?\d+$/, `${this.spec.label} must be a whole number.`);
    if (this.spec.type === "float")
      return number(this.text.replace(",", "."), /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i, `${this.spec.label} must be a number.`);
    return this.spec.type === "string" ? this.control.value : this.text;
  }

  set value(value) {
    this.control.value = value === undefined || value === null ? "" : String(value);
  }

  /** What is wrong with it, or null. The server says the last word. */
  problem() {
    if (!this.visible) return null;
    const { label, required, type } = this.spec;
    let value;
    try {
      value = this.value;
    } catch (refusal) {
      return refusal.message;
    }
    if (value === undefined) return required ? `${label} is required.` : null;
    if (type === "email" && !/^[^@\s]+@[^@\s]+\.[^@\s.]{2,}$/.test(value)) return `${label} must be an e-mail address like name@company.com.`;
    return broken_rule(label, this.spec.validation || {}, value);
  }

  show(message) {
    this.error.textContent = message || "";
    const target = this.focusable;
    if (message) {
      target.setAttribute("aria-invalid", "true");
      this.box.dataset.invalid = "";
    } else {
      target.removeAttribute("aria-invalid");
      delete this.box.dataset.invalid;
    }
  }

  get focusable() {
    return this.control;
  }

  get visible() {
    return !this.box.hidden;
  }
}

function number(text, pattern, message) {
  if (!pattern.test(text) || !Number.isFinite(Number(text))) throw new Refusal(message);
  if (/^[+-]?\d+$/.test(text) && !Number.isSafeInteger(Number(text))) throw new Refusal(`${message.replace(/\.$/, "")} of at most 15 digits.`);
  return Number(text);
}

function broken_rule(label, rules, value) {
  const size = typeof value === "string" ? [...value].length : Array.isArray(value) ? value.length : null;
  const unit = Array.isArray(value) ? "values" : "characters";
  if (typeof value === "number" && rules.min !== undefined && value < rules.min) return `${label} must be at least ${rules.min}.`;
  if (typeof value === "number" && rules.max !== undefined && value > rules.max) return `${label} must be at most ${rules.max}.`;
  if (size !== null && rules.min_length !== undefined && size < rules.min_length) return `${label} must have at least ${rules.min_length} ${unit}.`;
  if (size !== null && rules.max_length !== undefined && size > rules.max_length) return `${label} must have at most ${rules.max_length} ${unit}.`;
  if (typeof value === "string" && rules.pattern && value.length < 500 && !matches(rules.pattern, value)) return `${label} does not have the right form.`;
  return null;
}

function matches(pattern, value) {
  try {
    return new RegExp(`^(?:${pattern})$`, "u").test(value);
  } catch {
    return true; // Python's dialect; the server decides.
  }
}

class Switch extends Field {
  build() {
    this.control = element("input", this.attributes({ type: "checkbox", role: "switch", "aria-required": null, placeholder: null }));
    this.control.addEventListener("input", () => this.changed());
    const label = element("label", { for: this.id, text: this.spec.label });
    this.box.append(element("div", { class: "bf-row" }, this.control, label), ...[this.help, this.error].filter(Boolean));
  }

  get empty() {
    return false;
  }

  get value() {
    return this.control.checked;
  }

  set value(value) {
    this.control.checked = value === true;
  }
}

class Json extends Field {
  makeControl() {
    return element("textarea", this.attributes({ rows: 4, spellcheck: "false", class: "bf-code", placeholder: this.spec.placeholder || '{"key": "value"}' }));
  }

  get value() {
    if (this.empty) return undefined;
    try {
      return JSON.parse(this.control.value);
    } catch (error) {
      throw new Refusal(`${this.spec.label} is not valid JSON: ${error.message}.`);
    }
  }

  set value(value) {
    this.control.value = value === undefined || value === null ? "" : JSON.stringify(value, null, 2);
  }
}

class Lines extends Field {
  makeControl() {
    return element("textarea", this.attributes({ rows: 3, placeholder: this.spec.placeholder || "One value per line" }));
  }

  get value() {
    if (this.empty) return undefined;
    if (this.text.startsWith("[")) {
      try {
        return JSON.parse(this.text);
      } catch {
        /* plain lines, then */
      }
    }
    return this.control.value.split("\n").map((line) => line.trim()).filter(Boolean);
  }

  set value(value) {
    if (!Array.isArray(value)) this.control.value = "";
    else if (value.every((item) => typeof item === "string" && !item.includes("\n"))) this.control.value = value.join("\n");
    else this.control.value = JSON.stringify(value);
  }
}

class Fixed extends Field {
  build() {
    this.control = element("output", { id: this.id, class: "bf-fixed" });
    this.box.append(element("span", { class: "bf-label", text: this.spec.label }), this.control, ...[this.help, this.error].filter(Boolean));
    const value = this.spec.default;
    this.control.textContent = typeof value === "string" ? value : JSON.stringify(value ?? "");
  }

  get empty() {
    return true; // The server binds it; sending it would be refused.
  }

  get value() {
    return undefined;
  }

  set value(_) {
    /* bound on the server */
  }

  problem() {
    return null;
  }
}

// fields with options ------------------------------------------------------------------------------------------------

/** A field whose options a data provider gives: what is common to select, combobox and check boxes. */
class Choice extends Field {
  build() {
    this.items = [];
    this.state = element("p", { class: "bf-options", role: "status" });
    this.detail = element("p", { class: "bf-detail" });
    super.build();
    this.box.insertBefore(this.detail, this.error);
    this.box.insertBefore(this.state, this.error);
    const { items, cached_at } = this.spec.options;
    if (items) this.take(items, cached_at);
    else this.fetch();
  }

  get waitsFor() {
    const names = this.spec.options.depends_on || [];
    return names.map((name) => this.form.fields.get(name)).find((field) => field && field.spec.required && field.empty);
  }

  async fetch(refresh = false) {
    const missing = this.waitsFor;
    if (missing) {
      this.take([], null);
      this.state.textContent = `Choose ${missing.spec.label} first.`;
      return;
    }
    const asked = (this.asked = (this.asked || 0) + 1);
    this.state.textContent = "Loading options…";
    this.box.setAttribute("aria-busy", "true");
    try {
      const { items, cached_at } = await this.form.transport.options(this.spec.name, this.form.given(), refresh);
      if (asked === this.asked) this.take(items, cached_at);
    } catch (error) {
      if (asked === this.asked) this.failed(error);
    } finally {
      if (asked === this.asked) this.box.removeAttribute("aria-busy");
    }
  }

  failed(error) {
    const again = element("button", { type: "button", class: "bf-link", text: "Try again" });
    again.addEventListener("click", () => this.fetch());
    this.state.replaceChildren(`The options could not be loaded: ${error.message} `, again);
  }

  take(items, cachedAt) {
    const kept = this.wanted ?? this.key;
    this.items = items.map((item, index) => ({ ...item, key: String(index), detail: describe(item.metadata) }));
    this.render();
    this.choose(this.items.some((item) => this.same(item, kept)) ? kept : undefined);
    if (this.items.length) this.wanted = undefined;
    this.tell(cachedAt);
  }

  same(item, key) {
    return key !== undefined && JSON.stringify(item.value) === JSON.stringify(key);
  }

  tell(cachedAt) {
    if (!cachedAt) return;
    const again = element("button", { type: "button", class: "bf-link", text: "refresh", "aria-describedby": `${this.id}-label` });
    again.addEventListener("click", () => this.fetch(true));
    const said = this.items.length ? `cached ${ago(cachedAt)}` : "There is nothing to choose from";
    this.state.replaceChildren(`${said} · `, again);
  }

  get empty() {
    return this.key === undefined;
  }

  get value() {
    return this.key;
  }

  set value(value) {
    const known = this.items.some((item) => this.same(item, value));
    this.wanted = known ? undefined : (value ?? undefined);
    this.choose(known ? value : undefined);
  }

  choose(value) {
    this.key = value ?? undefined;
    const item = this.items.find((one) => this.same(one, this.key));
    this.detail.textContent = item ? item.detail : "";
    this.reflect(item);
  }
}

class Select extends Choice {
  makeControl() {
    const select = element("select", this.attributes({ placeholder: null }));
    select.addEventListener("change", () => {
      const item = this.items.find((one) => one.key === select.value);
      this.choose(item && item.value);
    });
    return select;
  }

  render() {
    this.control.replaceChildren(
      element("option", { value: "", text: "Select…" }),
      ...this.items.map((item) => element("option", { value: item.key, text: item.label, title: item.detail || null })),
    );
  }

  reflect(item) {
    this.control.value = item ? item.key : "";
  }
}

/** Many options: an editable combobox with a list box (WAI-ARIA Authoring Practices 1.2). */
class Combobox extends Choice {
  makeControl() {
    this.list = element("ul", { id: `${this.id}-list`, role: "listbox", "aria-labelledby": `${this.id}-label`, hidden: true });
    this.input = element(
      "input",
      this.attributes({
        type: "text", role: "combobox", autocomplete: "off", spellcheck: "false", "aria-autocomplete": "list",
        "aria-expanded": "false", "aria-controls": this.list.id, placeholder: this.spec.placeholder || "Type to search…",
      }),
    );
    this.input.addEventListener("input", (event) => {
      event.stopPropagation();
      this.choose_nothing();
      this.open();
    });
    this.input.addEventListener("keydown", (event) => this.key_pressed(event));
    this.input.addEventListener("click", () => this.open());
    this.input.addEventListener("blur", () => this.close());
    this.list.addEventListener("mousedown", (event) => event.preventDefault());
    this.list.addEventListener("click", (event) => {
      const option = event.target.closest("[role=option]");
      if (option) this.pick(this.items[Number(option.dataset.index)]);
    });
    return element("div", { class: "bf-combo" }, this.input, this.list);
  }

  get focusable() {
    return this.input;
  }

  choose_nothing() {
    this.key = undefined;
    this.detail.textContent = "";
    this.changed();
  }

  found() {
    const wanted = this.empty ? this.input.value.trim().toLocaleLowerCase() : "";
    return this.items.filter((item) => `${item.label} ${item.detail}`.toLocaleLowerCase().includes(wanted)).slice(0, 200);
  }

  open() {
    const found = this.found();
    this.active = -1;
    this.list.replaceChildren(
      ...found.map((item) =>
        element(
          "li",
          { id: `${this.id}-o${item.key}`, role: "option", "data-index": item.key, "aria-selected": String(this.same(item, this.key)), title: item.detail || null },
          element("span", { text: item.label }),
          item.detail ? element("small", { text: item.detail }) : null,
        ),
      ),
    );
    if (!found.length) this.list.replaceChildren(element("li", { class: "bf-none", role: "option", "aria-disabled": "true", "aria-selected": "false", text: "Nothing fits." }));
    this.list.hidden = false;
    this.input.setAttribute("aria-expanded", "true");
  }

  close() {
    this.list.hidden = true;
    this.input.setAttribute("aria-expanded", "false");
    this.input.removeAttribute("aria-activedescendant");
  }

  key_pressed(event) {
    const options = [...this.list.querySelectorAll("[data-index]")];
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (this.list.hidden) this.open();
      this.move(event.key === "ArrowDown" ? 1 : -1);
    } else if (event.key === "Enter" && !this.list.hidden && options[this.active]) {
      event.preventDefault();
      this.pick(this.items[Number(options[this.active].dataset.index)]);
    } else if (event.key === "Escape" && !this.list.hidden) {
      event.preventDefault();
      this.close();
    }
  }

  move(step) {
    const options = [...this.list.querySelectorAll("[data-index]")];
    if (!options.length) return;
    options.forEach((option) => option.classList.remove("bf-active"));
    this.active = (this.active + step + options.length) % options.length;
    const option = options[this.active];
    option.classList.add("bf-active");
    option.scrollIntoView({ block: "nearest" });
    this.input.setAttribute("aria-activedescendant", option.id);
  }

  pick(item) {
    this.choose(item.value);
    this.close();
    this.changed();
  }

  render() {
    if (!this.list.hidden) this.open();
  }

  reflect(item) {
    if (item) this.input.value = item.label;
    else if (document.activeElement !== this.input) this.input.value = "";
  }

  problem() {
    if (this.visible && this.empty && this.input.value.trim() && this.items.length) return `${this.spec.label}: choose one of the options.`;
    return super.problem();
  }
}

/** A list with options: check boxes. */
class Checkboxes extends Choice {
  build() {
    this.key = undefined;
    super.build();
    const head = this.box.querySelector(".bf-label");
    head.querySelector("label").replaceWith(element("span", { text: this.spec.label }));
    this.control.prepend(element("legend", {}, head));
  }

  makeControl() {
    this.boxes = element("div", { class: "bf-boxes" });
    const group = element("fieldset", { id: this.id, "aria-describedby": this.described, tabindex: "-1" }, this.boxes);
    this.boxes.addEventListener("change", () => {
      const chosen = [...this.boxes.querySelectorAll(":checked")].map((box) => this.items[Number(box.value)].value);
      this.key = chosen.length ? chosen : undefined;
    });
    return group;
  }

  take(items, cachedAt) {
    const kept = this.wanted ?? this.key;
    this.items = items.map((item, index) => ({ ...item, key: String(index), detail: describe(item.metadata) }));
    this.render();
    if (this.items.length) this.wanted = undefined;
    this.choose(kept);
    this.tell(cachedAt);
  }

  render() {
    this.boxes.replaceChildren(
      ...this.items.map((item) =>
        element(
          "label",
          { title: item.detail || null },
          element("input", { type: "checkbox", value: item.key }),
          element("span", {}, item.label, item.detail ? element("small", { text: item.detail }) : null),
        ),
      ),
    );
  }

  set value(value) {
    this.wanted = this.items.length ? undefined : (value ?? undefined);
    this.choose(value);
  }

  get value() {
    return this.key;
  }

  choose(value) {
    const wanted = (Array.isArray(value) ? value : []).map((one) => JSON.stringify(one));
    const kept = this.items.filter((item) => wanted.includes(JSON.stringify(item.value)));
    for (const box of this.boxes.querySelectorAll("input")) box.checked = kept.includes(this.items[Number(box.value)]);
    this.key = kept.length ? kept.map((item) => item.value) : undefined;
  }

  reflect() {
    /* `choose` ticks the boxes itself */
  }
}

const KINDS = { switch: Switch, json: Json, list: Lines, fixed: Fixed };

function make_field(spec, form) {
  if (spec.widget === "fixed") return new Fixed(spec, form);
  if (!spec.options) return new (KINDS[spec.widget] || Field)(spec, form);
  if (spec.type === "list") return new Checkboxes(spec, form);
  const many = spec.widget === "combobox" || (spec.options.items || []).length > SEARCH_FROM;
  return many ? new Combobox(spec, form) : new Select(spec, form);
}

// the form -----------------------------------------------------------------------------------------------------------

export class Form {
  /**
   * `transport`: submit(values, key), options(field, values, refresh), and if drafts are kept, draft() and keep(values);
   * each answers a promise and throws an Error with `fields` when the input is refused. `submitted(answer)` is called
   * when an execution was made; `prefill` are values from the address.
   */
  constructor(spec, transport, { submitted, prefill = {}, heading = "h1" } = {}) {
    this.spec = spec;
    this.transport = transport;
    this.submitted = submitted || (() => {});
    this.id = `bf${(counter += 1)}`;
    this.fields = new Map();
    this.key = crypto.randomUUID();
    this.summary = element("div", { class: "bf-summary", role: "alert", tabindex: "-1" });
    this.notice = element("div", { class: "bf-notice", role: "status" });
    this.button = element("button", { type: "submit", class: "bf-primary", text: spec.submit_label || "Run Workflow" });
    this.status = element("span", { class: "bf-hint", role: "status", text: this.hint });
    this.root = element("form", { class: "bf-form", novalidate: true, method: "post" });
    this.root.append(
      element(heading, { text: spec.title }),
      element("div", { class: "bf-intro" }),
      this.notice,
      this.summary,
      this.grid(),
      element("div", { class: "bf-actions" }, this.button, this.status),
    );
    this.say(spec);
    this.root.addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit();
    });
    this.defaults();
    this.fill(prefill);
    this.reveal();
    if (transport.draft) this.restore();
  }

  get hint() {
    const forWhom = this.spec.organization ? `Runs for ${this.spec.organization.name}` : "";
    return this.spec.requires_approval ? `${forWhom} after somebody has approved it` : forWhom;
  }

  say({ text, text_html: html }) {
    const intro = this.root.querySelector(".bf-intro");
    if (html) intro.innerHTML = html; // sanitised where it was made of Markdown, and no script runs under the page's policy
    else intro.textContent = text || "";
  }

  grid() {
    const grid = element("div", { class: "bf-grid" });
    const groups = new Map();
    for (const spec of this.spec.fields) {
      const field = make_field(spec, this);
      this.fields.set(spec.name, field);
      if (!spec.group) grid.append(field.box);
      else {
        if (!groups.has(spec.group)) {
          groups.set(spec.group, element("fieldset", { class: "bf-group" }, element("legend", { text: spec.group })));
          grid.append(groups.get(spec.group));
        }
        groups.get(spec.group).append(field.box);
      }
    }
    if (!this.spec.fields.length) grid.append(element("p", { class: "bf-help", text: "There is nothing to fill in." }));
    return grid;
  }

  defaults() {
    for (const field of this.fields.values()) if (field.spec.default !== undefined && field.spec.default !== null) field.value = field.spec.default;
  }

  fill(values) {
    for (const [name, value] of Object.entries(values)) if (this.fields.has(name)) this.fields.get(name).value = value;
  }

  /** Values of what is visible and filled in so far; what is no value of its type is left out. */
  given() {
    const values = {};
    for (const [name, field] of this.fields) {
      if (!field.visible || field.empty) continue;
      try {
        if (field.value !== undefined) values[name] = field.value;
      } catch {
        /* half typed */
      }
    }
    return values;
  }

  changed(field) {
    this.reveal();
    for (const other of this.fields.values()) {
      const depends = other.spec.options && (other.spec.options.depends_on || []);
      if (depends && depends.includes(field.spec.name)) this.later(`options-${other.spec.name}`, REFETCH_DELAY, () => other.fetch());
    }
    if (this.transport.keep) this.later("draft", DRAFT_DELAY, () => this.keep());
  }

  later(what, delay, action) {
    this.timers ??= {};
    clearTimeout(this.timers[what]);
    this.timers[what] = setTimeout(action, delay);
  }

  reveal() {
    const values = this.given();
    for (const field of this.fields.values()) {
      const rule = field.spec.visible_when;
      if (rule) field.box.hidden = !holds(rule, values);
    }
  }

  async keep() {
    try {
      await this.transport.keep(this.given());
      this.kept = true;
    } catch {
      /* a draft is a comfort; the form goes on without */
    }
  }

  async restore() {
    try {
      const draft = await this.transport.draft();
      if (!draft || !draft.values || !Object.keys(draft.values).length || [...this.fields.values()].some((field) => field.touched)) return;
      this.fill(draft.values);
      this.reveal();
      this.refetch(draft.values);
      const over = element("button", { type: "button", class: "bf-link", text: "Start over" });
      over.addEventListener("click", () => this.restart());
      this.notice.replaceChildren(`This is what you had filled in ${ago(draft.updated_at)}. `, over);
    } catch {
      /* as above */
    }
  }

  refetch(values) {
    for (const field of this.fields.values()) {
      const depends = (field.spec.options && field.spec.options.depends_on) || [];
      if (depends.some((name) => name in values)) field.fetch();
    }
  }

  async restart() {
    clearTimeout(this.timers?.draft);
    for (const field of this.fields.values()) {
      field.value = undefined;
      field.touched = false;
      field.show(null);
    }
    this.defaults();
    this.reveal();
    this.refetch(Object.fromEntries([...this.fields.keys()].map((name) => [name, true])));
    this.summary.replaceChildren();
    this.notice.replaceChildren("The form is as new.");
    await this.transport.discard?.();
  }

  async submit() {
    if (this.busy) return;
    const problems = new Map();
    for (const [name, field] of this.fields) {
      field.touched = true;
      const message = field.problem();
      field.show(message);
      if (message) problems.set(name, message);
    }
    this.sum(problems);
    if (problems.size) return;
    this.wait(true);
    try {
      const answer = await this.transport.submit(this.given(), this.key);
      clearTimeout(this.timers?.draft);
      this.status.textContent = "Started.";
      this.submitted(answer, this);
    } catch (refusal) {
      this.refused(refusal);
    }
  }

  refused(refusal) {
    this.wait(false);
    if (!refusal.unsure) this.key = crypto.randomUUID(); // The same key again only when nobody knows whether it arrived.
    const problems = new Map();
    const others = [];
    for (const { field, message } of refusal.fields || []) {
      const target = this.fields.get(field);
      if (target && target.visible) {
        target.show(message);
        problems.set(field, message);
      } else others.push(message);
    }
    if (!problems.size && !others.length) others.push(refusal.message);
    this.sum(problems, others);
  }

  wait(busy) {
    this.busy = busy;
    this.button.setAttribute("aria-disabled", String(busy));
    this.root.toggleAttribute("aria-busy", busy);
    this.status.textContent = busy ? "Starting…" : this.hint;
  }

  /** The summary above the form, and the focus on the first field that needs attention. */
  sum(problems, others = []) {
    const count = problems.size + others.length;
    if (!count) {
      this.summary.replaceChildren();
      return;
    }
    const items = [...problems].map(([name, message]) => {
      const link = element("a", { href: `#${this.fields.get(name).focusable.id}`, text: message });
      link.addEventListener("click", (event) => {
        event.preventDefault();
        this.fields.get(name).focusable.focus();
      });
      return element("li", {}, link);
    });
    items.push(...others.map((message) => element("li", { text: message })));
    const title = problems.size ? `${problems.size === 1 ? "One field needs" : `${problems.size} fields need`} attention` : "That did not work";
    this.summary.replaceChildren(element("strong", { text: title }), element("ul", {}, ...items));
    const first = [...problems.keys()][0];
    (first ? this.fields.get(first).focusable : this.summary).focus();
  }
}

function holds(rule, values) {
  const value = values[rule.field];
  if ("equals" in rule && rule.equals !== null && rule.equals !== undefined) return JSON.stringify(value) === JSON.stringify(rule.equals);
  if (Array.isArray(rule.one_of)) return rule.one_of.some((one) => JSON.stringify(one) === JSON.stringify(value));
  return (value !== undefined && value !== "") === (rule.filled ?? true);
}

// in a notebook ------------------------------------------------------------------------------------------------------

/** Asks the kernel and waits for its answer, over the widget's own messages. */
export class KernelTransport {
  constructor(model) {
    this.model = model;
    this.waiting = new Map();
    model.on("msg:custom", (message) => {
      const waiting = this.waiting.get(message.id);
      if (!waiting) return;
      this.waiting.delete(message.id);
      if (message.error) waiting.reject(Object.assign(new Refusal(message.error.message, message.error.fields), { unsure: message.error.unsure }));
      else waiting.resolve(message.answer);
    });
  }

  ask(ask, more, seconds = 60) {
    const id = crypto.randomUUID();
    return new Promise((resolve, reject) => {
      const give_up = () => {
        if (this.waiting.delete(id)) reject(Object.assign(new Refusal("The notebook's kernel does not answer."), { unsure: true }));
      };
      this.waiting.set(id, { resolve, reject });
      setTimeout(give_up, seconds * 1000);
      try {
        this.model.send({ id, ask, ...more });
      } catch {
        give_up(); // The kernel ended, or was started again: the way to this widget is closed.
      }
    });
  }

  submit(values, key) {
    return this.ask("submit", { values, key });
  }

  options(field, values, refresh) {
    return this.ask("options", { field, values, refresh });
  }
}

function render({ model, el }) {
  const page = window.bifrostPage;
  if (page && page.form) {
    // The portal's page has the form already, and people may be typing: the kernel only becomes what stands behind it.
    page.attach(new KernelTransport(model));
    el.hidden = true;
    return;
  }
  const form = new Form(model.get("spec"), new KernelTransport(model), {
    heading: "h2",
    submitted: (answer) => follow(model, el, answer, form),
  });
  el.classList.add("bf-widget");
  el.append(form.root);
}

/** Beneath the form in a notebook: the execution's status, its lines, its result, as the kernel tells them. */
function follow(model, el, answer, form) {
  const lines = element("ol", { class: "bf-lines", "aria-label": "Execution log" });
  const state = element("p", { class: "bf-state", role: "status", text: "Running…" });
  const result = element("pre", { class: "bf-result", hidden: true, tabindex: "0", "aria-label": "Result" });
  el.querySelector(".bf-run")?.remove();
  el.append(element("section", { class: "bf-run", "aria-label": "Execution" }, state, lines, result));
  const listen = (message) => {
    if (message.follow !== answer.execution_id) return;
    if (message.line) lines.append(element("li", { class: `bf-${message.line.level}`, text: message.line.text }));
    if (!message.over) return;
    model.off("msg:custom", listen);
    state.textContent = `${message.over.status} · execution ${answer.execution_id}`;
    result.textContent = message.over.error || JSON.stringify(message.over.result, null, 2);
    result.hidden = false;
    form.wait(false);
    form.key = crypto.randomUUID();
  };
  model.on("msg:custom", listen);
  model.send({ follow: answer.execution_id });
}

export default { render };
