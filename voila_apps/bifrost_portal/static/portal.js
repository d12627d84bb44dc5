// What the portal's pages do in the browser; each part works on what it finds on the page, and does nothing elsewhere.

import { Form } from "./form.js";
import { RunView } from "./run.js";
import { ask } from "./http.js";

const KERNEL_SECONDS = 4; // then plain HTTP, with the same key: a kernel that died does not say so

const $ = (selector) => document.querySelector(selector);

function data(id) {
  const node = document.getElementById(id);
  return node && JSON.parse(node.textContent);
}

/** A form's way to the server without a kernel. */
class HttpTransport {
  constructor(name, organization) {
    this.base = `/workflows/${name}`;
    this.query = `?org=${encodeURIComponent(organization)}`;
  }

  submit(values, key) {
    return ask("POST", this.base + this.query, values, { "Idempotency-Key": key });
  }

  options(field, values, refresh) {
    return ask("POST", `${this.base}/options/${field}${this.query}`, { values, refresh });
  }

  draft() {
    return ask("GET", `${this.base}/draft${this.query}`);
  }

  keep(values) {
    return ask("PUT", `${this.base}/draft${this.query}`, values);
  }

  discard() {
    return ask("DELETE", `${this.base}/draft${this.query}`);
  }
}

/**
 * The kernel's way in as soon as there is a kernel; until then, and when it does not answer, plain HTTP. Both end in the
 * same request to the control plane, with the same key, so that one press is one execution whichever way it took.
 */
class PageTransport extends HttpTransport {
  attach(kernel) {
    this.kernel = kernel;
    document.documentElement.dataset.kernel = "connected";
  }

  async submit(values, key) {
    if (!this.kernel) return super.submit(values, key);
    try {
      return await this.kernel.ask("submit", { values, key }, KERNEL_SECONDS);
    } catch (refusal) {
      if (!refusal.unsure) throw refusal;
      this.kernel = undefined;
      return super.submit(values, key);
    }
  }
}

function mount_form() {
  const place = $("#form");
  const given = data("bifrost-form");
  if (!place || !given) return;
  const transport = new PageTransport(given.form.name, given.organization);
  const form = new Form(given.form, transport, {
    prefill: typed(given.form, given.prefill),
    submitted: (answer) => location.assign(`/runs/${answer.execution_id}`),
  });
  place.append(form.root);
  place.removeAttribute("aria-busy");
  window.bifrostPage = { form, attach: (kernel) => transport.attach(kernel) };
  document.documentElement.dataset.form = "ready";
  // Back from the execution by the browser's own button: the page may come from its memory, still waiting.
  window.addEventListener("pageshow", (event) => event.persisted && location.reload());
}

/** Values of the address are text; the fields' types say what they mean. */
function typed(form, prefill) {
  const values = {};
  for (const { name, type } of form.fields) {
    const given = prefill[name];
    if (given === undefined) continue;
    if (typeof given !== "string" || type === "string" || type === "email") values[name] = given;
    else if (type === "bool") values[name] = ["true", "1", "yes", "on"].includes(given.toLowerCase());
    else if (type === "int" || type === "float") values[name] = given;
    else {
      try {
        values[name] = JSON.parse(given);
      } catch {
        values[name] = type === "list" ? given.split(",") : undefined;
      }
    }
  }
  return values;
}

function mount_run() {
  const given = data("bifrost-run");
  if (given) new RunView($("#run"), given).start();
}

function local_times() {
  const format = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
  for (const node of document.querySelectorAll("time[data-when]")) {
    node.title = node.dateTime;
    node.textContent = format.format(new Date(node.dateTime));
  }
}

function filter_tiles() {
  const input = $("[data-filter]");
  if (!input) return;
  input.addEventListener("input", () => {
    const wanted = input.value.trim().toLocaleLowerCase();
    let found = 0;
    for (const tile of document.querySelectorAll(input.dataset.filter)) {
      const fits = tile.textContent.toLocaleLowerCase().includes(wanted);
      tile.closest("li").hidden = !fits;
      found += fits;
    }
    for (const group of document.querySelectorAll("[data-group]")) group.hidden = !group.querySelector("li:not([hidden])");
    $("#found").textContent = wanted ? `${found} found` : "";
  });
}

function one_time_link() {
  const form = $("form[data-link]");
  if (!form || !location.hash) return;
  form.elements.token.value = location.hash.slice(1);
  history.replaceState(null, "", location.pathname);
}

function small_comforts() {
  document.cookie = `bifrost-zone=${Intl.DateTimeFormat().resolvedOptions().timeZone};path=/;max-age=31536000;samesite=lax`;
  for (const form of document.querySelectorAll("form[data-autosubmit]")) form.addEventListener("change", () => form.submit());
  $("[data-theme-toggle]")?.addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    document.cookie = `bifrost-theme=${root.dataset.theme};path=/;max-age=31536000;samesite=lax`;
  });
  document.addEventListener("click", (event) => {
    for (const open of document.querySelectorAll("details.who[open]")) if (!open.contains(event.target)) open.open = false;
  });
  document.addEventListener("keydown", (event) => {
    const open = $("details.who[open]");
    if (event.key !== "Escape" || !open) return;
    open.open = false;
    open.querySelector("summary").focus();
  });
}

function once_parsed(action) {
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", action, { once: true });
  else action();
}

// The form's page goes on loading while its kernel starts: what the form needs is there when this script runs.
if (data("bifrost-form")) {
  mount_form();
  local_times();
  small_comforts();
} else
  once_parsed(() => {
    mount_form();
    mount_run();
    local_times();
    filter_tiles();
    one_time_link();
    small_comforts();
  });
