// Shows what openapi.json describes, and sends requests of it.
"use strict";

const make = (name, text, parent) => {
  const element = document.createElement(name);
  if (text) element.textContent = text;
  if (parent) parent.append(element);
  return element;
};

// A UUIDv7 of now: the key of a request.
const newKey = () => {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  let now = Date.now();
  for (let at = 5; at >= 0; at--) { bytes[at] = now % 256; now = Math.floor(now / 256); }
  bytes[6] = bytes[6] & 15 | 112;
  bytes[8] = bytes[8] & 63 | 128;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
};

const resolve = (all, schema) =>
  schema && schema.$ref ? all.components.schemas[schema.$ref.split("/").pop()] : schema || {};

const example = (all, schema) => {
  const body = {};
  for (const [name, field] of Object.entries(resolve(all, schema).properties || {})) {
    if (field.example !== undefined && (resolve(all, schema).required || []).includes(name)) body[name] = field.example;
  }
  return JSON.stringify(body, null, 2);
};

const fields = (all, schema, parent) => {
  const { properties = {}, required = [] } = resolve(all, schema);
  const table = make("table", "", parent);
  for (const [name, field] of Object.entries(properties)) {
    const row = make("tr", "", table);
    make("code", name + (required.includes(name) ? "" : "?"), make("td", "", row));
    make("td", [].concat(field.type || "object").join(" or "), row);
    make("td", field.description || "", row);
  }
};

const send = async (method, path, inputs, body, out) => {
  const headers = {}, query = new URLSearchParams();
  let url = path;
  for (const [place, name, input] of inputs) {
    const value = input.value.trim();
    if (place === "path") url = url.replace(`{${name}}`, encodeURIComponent(value));
    else if (value && place === "query") query.set(name, value);
    else if (value && place === "header") headers[name] = value;
  }
  const token = document.getElementById("token").value.trim();
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body) headers["Content-Type"] = "application/json";
  const question = query.toString();
  if (question) url += "?" + question;
  try {
    const reply = await fetch(url, { method, headers, body: body ? body.value : undefined });
    const text = await reply.text();
    let shown = text;
    try { shown = JSON.stringify(JSON.parse(text), null, 2); } catch { /* no JSON: as it is */ }
    const told = ["idempotent-replayed", "ratelimit-remaining", "retry-after"]
      .filter((name) => reply.headers.get(name)).map((name) => `${name}: ${reply.headers.get(name)}\n`).join("");
    out.textContent = `${reply.status} ${reply.statusText}\n${told}\n${shown}`;
  } catch (error) {
    out.textContent = `No answer: ${error}. What was sent may have been executed: send it again with the same key.`;
  }
};

const show = (all, path, method, operation, parent) => {
  const block = make("details", "", parent), head = make("summary", "", block);
  make("b", method, head);
  make("code", path, head);
  head.append(" " + (operation.summary || ""));
  if (operation.description) make("p", operation.description, block);
  const inputs = (operation.parameters || []).map((parameter) => {
    const label = make("label", "", block), input = document.createElement("input");
    make("code", parameter.name, label);
    label.append(parameter.required ? " " : "? ", input, " " + (parameter.description || ""));
    input.size = 40;
    if (parameter.name === "Idempotency-Key") {
      input.value = newKey();
      const renew = make("button", "new key", label);
      renew.onclick = () => { input.value = newKey(); };
    }
    return [parameter.in, parameter.name, input];
  });
  const schema = operation.requestBody && operation.requestBody.content["application/json"].schema;
  let body = null;
  if (schema) {
    fields(all, schema, block);
    body = make("textarea", "", block);
    body.rows = 7;
    body.value = example(all, schema);
  }
  const button = make("button", "send", block), out = make("pre", "", block);
  button.onclick = () => send(method.toUpperCase(), path, inputs, body, out);
  const answer = operation.responses["200"];
  const told = answer && answer.content && Object.values(answer.content)[0].schema;
  if (told) { make("p", "The answer:", block); fields(all, told, block); }
};

fetch("openapi.json").then((reply) => reply.json()).then((all) => {
  document.getElementById("about").textContent = all.info.description;
  const main = document.getElementById("operations"), sections = {};
  for (const [path, methods] of Object.entries(all.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const tag = (operation.tags || ["other"])[0];
      if (!sections[tag]) { sections[tag] = make("section", "", main); make("h2", tag, sections[tag]); }
      show(all, path, method, operation, sections[tag]);
    }
  }
}).catch((error) => { document.getElementById("about").textContent = `openapi.json does not read: ${error}`; });
