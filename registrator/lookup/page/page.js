// The page: a picture of the whole catalog, kept true by /events.
//
// State is one map of services to their instances, as /v1/health/service/<name>
// tells them. An event names the services that changed; those are fetched again
// and only their tiles are touched. Whatever comes from the catalog becomes text
// (textContent, append of strings), never markup.

const AGAIN = 30_000;        // ms between complete comparisons: events cover what the agent watches
const AT_ONCE = 6;           // requests at a time, which is what browsers grant a host
const MOST_EVENTS = 300;
const ORDER = { passing: 0, warning: 1, critical: 2 };

const $ = (id) => document.getElementById(id);
const services = new Map();  // lower-cased name -> { name, instances }
const nodes = new Map();     // name -> { info, column, tiles, count }
const tiles = new Map();     // instance key -> its tile
const since = new Map();     // instance id -> the latest change of it that is known
const heard = new Map();     // instance id -> when /events last told of its health

// Small tools ---------------------------------------------------------------

function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

async function ask(path) {
  const response = await fetch(path, { cache: "no-store" });
  if (!response.ok) throw new Error((await response.text()).trim() || `status ${response.status}`);
  return response.json();
}

// An id as the agent makes it is node:container:port; under the node's name the first part says nothing.
function shortId(entry) {
  const parts = entry.Service.ID.split(":");
  return parts[0] === entry.Node.Node && parts.length > 2 ? parts.slice(1, -1).join(":") : entry.Service.ID;
}

function hue(name) {
  let sum = 7;
  for (const letter of name) sum = (sum * 31 + letter.codePointAt(0)) % 9973;
  return Math.round(sum * 137.508) % 360;  // by the golden angle, neighbours are far apart
}

function worst(checks) {
  return checks.reduce((status, check) => (ORDER[check.Status] ?? 2) > ORDER[status] ? (check.Status in ORDER ? check.Status : "critical") : status, "passing");
}

function place(ip, port) {
  return `${ip.includes(":") ? `[${ip}]` : ip}${port ? `:${port}` : ""}`;
}

const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString([], { hour12: false });
const badge = (status) => make("span", { className: `status ${status}` }, status);
const keyOf = (entry) => JSON.stringify([entry.Node.Node, entry.Service.ID]);
const addressOf = (entry) => place(entry.Service.Address || entry.Node.Address, entry.Service.Port);
const link = (service) => `#/services/${encodeURIComponent(service)}`;

// Keeping the picture true ---------------------------------------------------

const due = new Set();
let fetching = 0;

function refresh(names) {
  for (const name of names) due.add(name);
  while (fetching < AT_ONCE && due.size) fetchNext();
}

async function fetchNext() {
  const [name] = due;
  due.delete(name);
  fetching += 1;
  try {
    put(name, await ask(`/v1/health/service/${encodeURIComponent(name)}`));
  } catch (error) {
    console.warn(`service ${name} could not be read: ${error.message}`);
  } finally {
    fetching -= 1;
    if (due.size) fetchNext();
    else paintSoon();
  }
}

async function compareAll() {
  try {
    const [names, known] = await Promise.all([ask("/v1/catalog/services"), ask("/v1/catalog/nodes")]);
    const present = new Set(known.map((node) => node.Node));
    for (const node of known) placeNode(node);
    for (const [name, node] of nodes) if (!present.has(name) && !node.tiles.childElementCount) dropNode(name);
    const lower = new Set(Object.keys(names).map((name) => name.toLowerCase()));
    refresh([...services.keys()].filter((name) => !lower.has(name)));
    refresh(lower);
    paintSoon();
  } catch (error) {
    setLink("lost", `the catalog cannot be read: ${error.message}`);
  }
}

function put(name, instances) {
  const before = services.get(name)?.instances ?? [];
  const keys = new Set(instances.map(keyOf));
  for (const entry of before) if (!keys.has(keyOf(entry))) dropTile(entry);
  if (instances.length) services.set(name, { name: instances[0].Service.Service, instances });
  else services.delete(name);
  const old = new Map(before.map((entry) => [keyOf(entry), entry]));
  for (const entry of instances) {
    noteStatus(old.get(keyOf(entry)), entry);
    putTile(entry);
  }
  paintSoon();
}

function noteStatus(before, now) {
  const is = worst(now.Checks);
  if (!before || worst(before.Checks) === is) return;
  $("news").textContent = `${now.Service.ID} is ${is}`;
  if (performance.now() - (heard.get(now.Service.ID) ?? -1e9) < 3000) return;  // the agent has told it in words
  const check = now.Checks.find((one) => one.Status === is);
  const because = check && check.Output ? `: ${check.Output}` : "";
  addEvent({ kind: "health", time: Date.now() / 1000, instance: now.Service.ID, service: now.Service.Service, text: `${now.Service.ID} is ${is}${because}` });
}

// Nodes and tiles --------------------------------------------------------------

function placeNode(info) {
  const known = nodes.get(info.Node);
  if (known) {
    setText(known.address, info.Address);
    return known;
  }
  const [address, count, list] = [make("span", { className: "quiet mono" }, info.Address), make("span", { className: "quiet count" }), make("div", { className: "tiles" })];
  const column = make("section", { className: "node", "aria-label": `Node ${info.Node}` }, make("header", {}, make("h2", {}, info.Node), address, count), list);
  const next = [...nodes.keys()].filter((name) => name > info.Node).sort()[0];
  $("columns").insertBefore(column, next === undefined ? null : nodes.get(next).column);
  const node = { info, column, tiles: list, count, address };
  nodes.set(info.Node, node);
  return node;
}

function dropNode(name) {
  nodes.get(name).column.remove();
  nodes.delete(name);
}

function putTile(entry) {
  const key = keyOf(entry);
  const { Service: service, Node: node } = entry;
  let tile = tiles.get(key);
  if (!tile) {
    tile = make("a", { className: "tile", href: link(service.Service) }, make("b"), make("span"), make("small", {}, ""));
    tile.style.setProperty("--hue", hue(service.Service.toLowerCase()));
    tile.order = `${service.Service.toLowerCase()} ${service.ID}`;
    tiles.set(key, tile);
    const list = placeNode(node).tiles;
    list.insertBefore(tile, [...list.children].find((other) => other.order > tile.order) ?? null);
  }
  const [name, status, where] = tile.children;
  const is = worst(entry.Checks);
  setText(name, service.Service);
  setText(status, is);
  status.className = `status ${is}`;
  tile.dataset.status = is;
  setText(where, `${shortId(entry)}  ${addressOf(entry)}`);
  tile.title = `${service.ID}\n${addressOf(entry)}`;
  tile.words = [service.Service, service.ID, node.Node, ...service.Tags].join("\n").toLowerCase();
}

function dropTile(entry) {
  tiles.get(keyOf(entry))?.remove();
  tiles.delete(keyOf(entry));
  since.delete(entry.Service.ID);
  heard.delete(entry.Service.ID);
}

function paintNodes() {
  const wanted = $("wanted").value.trim().toLowerCase();
  const troubled = $("troubled").checked;
  let shown = 0;
  for (const tile of tiles.values()) {
    const hidden = !tile.words.includes(wanted) || (troubled && tile.dataset.status === "passing");
    if (tile.hidden !== hidden) tile.hidden = hidden;
    shown += !hidden;
  }
  for (const node of nodes.values()) {
    const visible = [...node.tiles.children].filter((tile) => !tile.hidden).length;
    setText(node.count, `${node.tiles.childElementCount} ${node.tiles.childElementCount === 1 ? "instance" : "instances"}`);
    const hidden = (wanted !== "" || troubled) && !visible;
    if (node.column.hidden !== hidden) node.column.hidden = hidden;
  }
  setText($("shown"), wanted || troubled ? `${shown} of ${tiles.size} shown` : "");
}

function paintTotals() {
  const count = { passing: 0, warning: 0, critical: 0 };
  for (const tile of tiles.values()) count[tile.dataset.status] += 1;
  const words = [`${nodes.size} ${nodes.size === 1 ? "node" : "nodes"}`, `${services.size} services`];
  const parts = [words.join(", "), ...Object.entries(count).filter(([, n]) => n).map(([status, n]) => `${n} ${status}`)];
  const totals = $("totals");
  if (totals.dataset.now === parts.join("|")) return;
  totals.dataset.now = parts.join("|");
  const [first, ...rest] = parts;
  totals.replaceChildren(first, ...rest.map((text) => make("span", { className: `status ${text.split(" ")[1]}` }, text)));
  document.title = count.critical ? `(${count.critical}) registrator` : "registrator";
}

// Services -----------------------------------------------------------------------

function paintIndex(current) {
  const sorted = [...services.entries()].sort(([a], [b]) => (a < b ? -1 : 1));
  $("index").replaceChildren(...sorted.map(([key, service]) => {
    const well = service.instances.filter((entry) => worst(entry.Checks) !== "critical").length;
    const item = make("a", { href: link(service.name) }, make("span", {}, service.name), make("span", { className: "quiet" }, `${well}/${service.instances.length}`));
    item.title = `${service.name}: ${well} of ${service.instances.length} can be used`;
    item.style.setProperty("--hue", hue(key));
    if (key === current) item.setAttribute("aria-current", "true");
    return make("li", {}, item);
  }));
}

function paintService(name) {
  const focused = document.activeElement?.closest?.("#index a")?.getAttribute("href");
  paintIndex(name);
  if (focused) [...document.querySelectorAll("#index a")].find((a) => a.getAttribute("href") === focused)?.focus();
  const service = services.get(name);
  const now = JSON.stringify([name, service, service?.instances.map((entry) => since.get(entry.Service.ID)?.time)]);
  if ($("service").dataset.now === now && $("service").childElementCount) return;  // what one reads stays where it is
  $("service").dataset.now = now;
  if (!service) {
    const text = name ? `No service is called ${name}.` : "Choose a service.";
    $("service").replaceChildren(make("p", { className: "quiet" }, services.size ? text : "No service is registered."));
    return;
  }
  const why = make("a", { href: `#/names/${encodeURIComponent(service.name)}` }, "What would I get for this name?");
  const ordered = [...service.instances].sort((a, b) => ORDER[worst(b.Checks)] - ORDER[worst(a.Checks)]);
  $("service").replaceChildren(make("h2", {}, service.name), why, ...ordered.map(card));
}

function card(entry) {
  const { Service: service, Node: node } = entry;
  const facts = make("dl", { className: "facts" });
  const fact = (term, ...values) => facts.append(make("dt", {}, term), make("dd", {}, ...values));
  fact("node", `${node.Node} (${node.Address})`);
  fact("addresses", addresses(entry));
  fact("up since", startOf(service));
  const change = since.get(service.ID);
  if (change) fact("last change", make("time", { dateTime: new Date(change.time * 1000).toISOString() }, clock(change.time)), ` ${change.text}`);
  if (service.Tags.length) fact("tags", ...service.Tags.map((tag) => make("span", { className: "tag" }, tag)));
  const meta = Object.entries(service.Meta ?? {});
  if (meta.length) fact("meta", ...meta.map(([key, value]) => make("div", { className: "mono" }, `${key}=${value}`)));
  fact("checks", ...(entry.Checks.length ? entry.Checks.map(checkOf) : ["none: it always counts as passing"]));
  return make("section", { className: "instance", "aria-label": service.ID }, make("header", {}, make("h3", {}, service.ID), badge(worst(entry.Checks))), facts);
}

// When its container was started, as the agent of its node has it in Meta.
function startOf(service) {
  const started = service.Meta?.["registrator-started"] ?? "";
  const time = new Date(started);
  if (!started || isNaN(time)) return make("span", { className: "quiet" }, "not known: no agent registered it");
  return make("time", { dateTime: time.toISOString() }, time.toLocaleString([], { dateStyle: "medium", timeStyle: "medium", hour12: false }));
}

function addresses(entry) {
  const rows = [["registered", addressOf(entry)]];
  for (const [key, address] of Object.entries(entry.Service.TaggedAddresses ?? {})) {
    if (!/^(lan|wan)_ipv[46]$/.test(key)) rows.push([key.split("/")[0], place(address.Address, address.Port)]);
  }
  return make("table", {}, make("tbody", {}, ...rows.map(([network, where]) => make("tr", {}, make("th", { scope: "row" }, network), make("td", { className: "mono" }, where)))));
}

function checkOf(check) {
  const of = check.ServiceID ? check.Type : "of the node";
  const parts = [badge(check.Status), ` ${check.Name || check.CheckID} `, make("span", { className: "quiet" }, of)];
  if (check.Output || check.Notes) parts.push(make("pre", { tabIndex: 0 }, check.Output || check.Notes));
  return make("div", { className: "check" }, ...parts);
}

// Names ----------------------------------------------------------------------------

async function paintAskers() {
  const { containers } = await ask("/askers");
  const chosen = $("asker").value;
  const options = containers.map((name) => make("option", { value: name }, name));
  $("asker").replaceChildren(make("option", { value: "" }, "this browser"), ...options);
  if (containers.includes(chosen)) $("asker").value = chosen;
  const names = [...services.values()].map((service) => make("option", { value: service.name }));
  $("known").replaceChildren(...names);
}

async function explain() {
  const name = $("name").value.trim();
  if (!name) return;
  const from = $("from").value.trim() || $("asker").value;
  const response = await fetch(`/explain/${encodeURIComponent(name)}?${new URLSearchParams(from ? { from } : {})}`);
  const found = await response.json();
  if (response.ok) $("answer").replaceChildren(...explanation(found));
  else $("answer").replaceChildren(make("p", {}, found.error), ...(found.nearest ?? []).map((near) => make("p", {}, make("a", { href: `#/names/${encodeURIComponent(near)}` }, near))));
}

function explanation(found) {
  const summary = make("p", {}, make("strong", {}, `${found.service}${found.tag ? ` with the tag ${found.tag}` : ""}, asked by ${found.asker.what}: `), `${found.answered} answered, ${found.left_out} left out`);
  const head = make("tr", {}, ...["instance", "node", "answer", "why"].map((text) => make("th", { scope: "col" }, text)));
  const rows = found.instances.map((one) => make("tr", {},
    make("th", { scope: "row", className: "mono" }, one.id),
    make("td", {}, one.node),
    make("td", {}, ...(one.answered ? [make("span", { className: "status passing" }, one.addresses.map((a) => place(a.address, a.port)).join(", "))] : [make("span", { className: "status critical" }, "left out")])),
    make("td", {}, one.why)));
  return [summary, make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows))];
}

// Events ------------------------------------------------------------------------------

function addEvent(change) {
  if (change.kind === "deregistered") since.delete(change.instance);
  else if (change.instance) since.set(change.instance, change);
  const kind = make("span", { className: "kind", "data-kind": change.kind }, change.kind);
  const when = make("time", { dateTime: new Date(change.time * 1000).toISOString() }, clock(change.time));
  $("log").prepend(make("li", {}, when, kind, make("span", {}, change.text)));
  while ($("log").childElementCount > MOST_EVENTS) $("log").lastElementChild.remove();
  $("silence").hidden = true;
}

function setLink(state, text) {
  $("link").dataset.state = state;
  setText($("link"), text);
}

function listen() {
  const stream = new EventSource("/events");
  stream.addEventListener("open", () => { setLink("live", "live"); compareAll(); });
  stream.addEventListener("error", () => {
    setLink("lost", "the agent does not answer; trying again");
    if (stream.readyState === EventSource.CLOSED) setTimeout(listen, 2000);
  });
  stream.addEventListener("change", (event) => {
    const change = JSON.parse(event.data);
    if (change.kind === "health") heard.set(change.instance, performance.now());
    addEvent(change);
    if (change.service) refresh([change.service.toLowerCase()]);
  });
  stream.addEventListener("services", (event) => refresh(JSON.parse(event.data)));
}

// Which view is shown -------------------------------------------------------------------

function route() {
  const [view, subject = ""] = location.hash.replace(/^#\//, "").split("/");
  return { view: $(view)?.matches("main > section") ? view : "nodes", subject: decode(subject) };
}

function decode(text) {
  try { return decodeURIComponent(text); } catch { return text; }
}

function turn() {
  if (location.hash === "#main") return;
  const { view, subject } = route();
  for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== view;
  for (const a of document.querySelectorAll("nav a")) {
    if (a.getAttribute("href") === `#/${view}`) a.setAttribute("aria-current", "page");
    else a.removeAttribute("aria-current");
  }
  if (view === "names") {
    paintAskers().catch((error) => console.warn(error.message));
    if (subject) { $("name").value = subject; explain(); }
  }
  paint();
}

let painting = 0;

function paintSoon() {
  painting ||= requestAnimationFrame(() => { painting = 0; paint(); });
}

function paint() {
  const { view, subject } = route();
  paintTotals();
  if (view === "nodes") paintNodes();
  if (view === "services") paintService(subject.toLowerCase());
}

addEventListener("hashchange", turn);
for (const id of ["wanted", "troubled"]) $(id).addEventListener("input", paintNodes);
for (const form of document.querySelectorAll("form")) form.addEventListener("submit", (event) => event.preventDefault());
$("ask").addEventListener("submit", explain);
$("asker").addEventListener("change", () => { $("from").value = ""; explain(); });
setInterval(() => { if (!document.hidden) compareAll(); }, AGAIN);
turn();
listen();
