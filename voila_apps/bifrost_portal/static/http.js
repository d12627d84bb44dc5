// One way to ask the portal: JSON, with the page's token against forged requests, and errors that people can read.

export async function ask(method, address, body, headers = {}) {
  let answer;
  try {
    answer = await fetch(address, {
      method,
      headers: {
        Accept: "application/json",
        "X-XSRFToken": document.querySelector("meta[name=xsrf]").content,
        ...(body === undefined ? {} : { "Content-Type": "application/json" }),
        ...headers,
      },
      body: body === undefined ? undefined : JSON.stringify(body),
      credentials: "same-origin",
    });
  } catch {
    throw Object.assign(new Error("There is no connection just now. Please try again."), { unsure: true, fields: [] });
  }
  const content = await answer.json().catch(() => ({}));
  if (answer.ok) return content;
  if (answer.status === 401) location.assign(`/signin?next=${encodeURIComponent(location.pathname + location.search)}`);
  throw Object.assign(new Error(content.message || "That did not work."), {
    status: answer.status,
    fields: content.fields || [],
    unsure: answer.status >= 500,
  });
}
