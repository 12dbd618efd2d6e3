"use strict";
// The page of an audit report: it reads the events' own bytes, proves what can be proved, and shows just those.
// Nothing here reaches outside the page, and all that was recorded goes in as text, never as markup.

const SIGNED_PREFIX = "refold seal 1\n";
const FIRST_ROWS = 2000; // more are shown on request: a browser is slow with a long table
const FIRST_BARS = 50; // so that the events are not far below
const SCHEDULE = "refold.schedule"; // log/schedules.py
const utf8 = new TextDecoder("utf-8", { fatal: true });
const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
const unhex = (text) => Uint8Array.from(text.match(/../g) || [], (pair) => parseInt(pair, 16));
const unbase64 = (text) => Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
const same = (one, other) => one.length === other.length && one.every((byte, at) => byte === other[at]);

function joined(...parts) {
  const whole = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

// --- BLAKE2b, RFC 7693. A 64-bit word is two of 32 bits, the lower one first ---------------------------------------

const IV = Uint32Array.of(
  0xf3bcc908, 0x6a09e667, 0x84caa73b, 0xbb67ae85, 0xfe94f82b, 0x3c6ef372, 0x5f1d36f1, 0xa54ff53a,
  0xade682d1, 0x510e527f, 0x2b3e6c1f, 0x9b05688c, 0xfb41bd6b, 0x1f83d9ab, 0x137e2179, 0x5be0cd19);
const ORDER = ["0123456789abcdef", "ea489fd61c02b753", "b8c052fdae367194", "7931dcbe265a40f8", "905724afe1bc683d",
  "2c6a0b834d75fe19", "c51fed4a0763928b", "db7ec13950f4862a", "6fe9b308c2d714a5", "a2847615fb9e3cd0"]
  .map((row) => Array.from(row, (digit) => 2 * parseInt(digit, 16)));
const MIXES = [[0, 8, 16, 24], [2, 10, 18, 26], [4, 12, 20, 28], [6, 14, 22, 30],
  [0, 10, 20, 30], [2, 12, 22, 24], [4, 14, 16, 26], [6, 8, 18, 28]];

function add(v, at, low, high) {
  const sum = v[at] + low;
  v[at] = sum;
  v[at + 1] += high + (sum > 0xffffffff ? 1 : 0);
}

function turn(v, to, from, right) { // v[to] = (v[to] xor v[from]) rotated to the right
  let low = v[to] ^ v[from], high = v[to + 1] ^ v[from + 1];
  if (right >= 32) [low, high, right] = [high, low, right - 32];
  v[to] = right ? (low >>> right) | (high << (32 - right)) : low;
  v[to + 1] = right ? (high >>> right) | (low << (32 - right)) : high;
}

function compress(h, block, count, last) {
  const v = new Uint32Array(32), m = new Uint32Array(32), view = new DataView(block.buffer, block.byteOffset);
  v.set(h);
  v.set(IV, 16);
  v[24] ^= count;
  v[25] ^= Math.floor(count / 2 ** 32);
  if (last) [v[28], v[29]] = [~v[28], ~v[29]];
  for (let at = 0; at < 32; at++) m[at] = view.getUint32(4 * at, true);
  for (let round = 0; round < 12; round++) {
    const order = ORDER[round % 10];
    MIXES.forEach(([a, b, c, d], mix) => {
      const x = order[2 * mix], y = order[2 * mix + 1];
      add(v, a, v[b], v[b + 1]);
      add(v, a, m[x], m[x + 1]);
      turn(v, d, a, 32);
      add(v, c, v[d], v[d + 1]);
      turn(v, b, c, 24);
      add(v, a, v[b], v[b + 1]);
      add(v, a, m[y], m[y + 1]);
      turn(v, d, a, 16);
      add(v, c, v[d], v[d + 1]);
      turn(v, b, c, 63);
    });
  }
  for (let at = 0; at < 16; at++) h[at] ^= v[at] ^ v[at + 16];
}

function blake2b(data, size = 32) {
  const h = IV.slice();
  h[0] ^= 0x01010000 ^ size;
  let at = 0;
  for (; at + 128 < data.length; at += 128) compress(h, data.subarray(at, at + 128), at + 128, false);
  const block = new Uint8Array(128);
  block.set(data.subarray(at));
  compress(h, block, data.length, true);
  return new Uint8Array(h.buffer).slice(0, size); // every browser's machine is little-endian
}

// --- Avro: one flat record -----------------------------------------------------------------------------------------

function decode(value) {
  const view = new DataView(value.buffer, value.byteOffset);
  const columns = schemas[view.getInt32(1)] || schemas.current;
  let at = 5;
  const long = () => {
    let whole = 0n, shift = 0n, byte;
    do {
      if (at >= value.length || shift > 63n) throw new Error("it ends too early");
      byte = value[at++];
      whole |= BigInt(byte & 127) << shift;
      shift += 7n;
    } while (byte & 128);
    const number = (whole >> 1n) ^ -(whole & 1n);
    return Number.isSafeInteger(Number(number)) ? Number(number) : String(number);
  };
  const text = () => {
    const size = long();
    if (!(size >= 0 && at + size <= value.length)) throw new Error("it ends too early");
    at += size;
    return utf8.decode(value.subarray(at - size, at));
  };
  const map = () => {
    const found = Object.create(null);
    for (let count = long(); count !== 0; count = long()) {
      for (; count > 0; count--) {
        const key = text();
        found[key] = text();
      }
    }
    return found;
  };
  const event = Object.create(null);
  for (const [name, type, nullable, size] of columns) {
    if (nullable && long() === 0) continue;
    if (type === "fixed") {
      event[name] = hex(value.subarray(at, at + size));
      at += size;
    } else event[name] = type === "long" ? long() : type === "map" ? map() : text();
  }
  if (at !== value.length) throw new Error("bytes follow it");
  return event;
}

// --- The tree of hashes that a seal signs --------------------------------------------------------------------------

function leaf(one) {
  const place = new DataView(new ArrayBuffer(17));
  place.setBigInt64(1, BigInt(one.offset));
  place.setBigInt64(9, BigInt(one.timestamp));
  return blake2b(joined(new Uint8Array(place.buffer), one.bytes.subarray(5)));
}

function proven(count, peaks, leaves, proof) {
  const indices = [...leaves.keys()].sort((one, other) => one - other);
  if (indices.length && (indices[0] < 0 || indices.at(-1) >= count)) return false;
  const anyIn = (first, size) => {
    let low = 0, high = indices.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (indices[middle] < first) low = middle + 1; else high = middle;
    }
    return low < indices.length && indices[low] < first + size;
  };
  let used = 0;
  const root = (first, size) => {
    if (!anyIn(first, size)) {
      if (used === proof.length) throw new Error("the proof is too short");
      return unhex(proof[used++]);
    }
    if (size === 1) return leaves.get(first);
    return blake2b(joined(Uint8Array.of(1), root(first, size / 2), root(first + size / 2, size / 2)));
  };
  let first = 0, number = 0;
  for (let size = 2 ** 52; size >= 1; size /= 2) {
    if (Math.floor(count / size) % 2 === 0) continue;
    if (number === peaks.length) return false;
    if (anyIn(first, size) && hex(root(first, size)) !== peaks[number]) return false;
    first += size;
    number++;
  }
  return number === peaks.length && used === proof.length;
}

// --- What is checked -----------------------------------------------------------------------------------------------

function checkEvents(found) {
  let last = null, next = null;
  for (const one of report.events) {
    one.bytes = unbase64(one.value);
    try {
      one.event = decode(one.bytes);
    } catch (error) {
      found.bad.push([one, `can't be read: ${error.message}`]);
      one.event = { kind: "?" };
      continue;
    }
    const { workflow_id, position, chain } = one.event;
    const before = unhex(one.before);
    if (hex(blake2b(joined(before, one.bytes.subarray(37)))) !== chain) {
      found.bad.push([one, "is not what its chain was made over: it, or the chain, was changed"]);
    } else if (workflow_id !== report.workflow_id) {
      found.bad.push([one, `is of another run, ${workflow_id}`]);
    } else if (next !== null && position !== undefined && position !== next) {
      found.bad.push([one, `has position ${position}, and ${next} comes next`]);
    } else if (last && one.offset <= last.offset) {
      found.bad.push([one, "stands at an offset that is not after the one before it"]);
    } else if (last && one.offset === last.offset + 1 && one.before !== last.event.chain) {
      found.bad.push([one, "does not follow from the event just before it"]);
    }
    last = one;
    if (position !== undefined) next = position + 1; // a refused order has none
  }
}

async function checkSeal(found) {
  const outer = JSON.parse(report.seal);
  const told = JSON.parse(outer.seal);
  const stands = told.partitions[report.partition];
  found.seal = told;
  const sealed = report.events.filter((one) => one.offset < stands.end);
  found.sealed = sealed.length;
  for (const one of sealed) one.sealed = true;
  const leaves = new Map(sealed.map((one) => [one.number, leaf(one)]));
  if (told.identity !== report.identity) found.wrong.push("The seal is of another namespace.");
  if (leaves.size !== sealed.length || !proven(stands.events, stands.peaks, leaves, report.proof)) {
    found.wrong.push("The seal does not have these events at these places: at least one was changed, moved or made up.");
  }
  const key = unhex(report.public_key);
  found.key = hex(blake2b(key, 16));
  if (found.key !== told.key) found.wrong.push("The seal names another key than this page has.");
  try {
    const imported = await crypto.subtle.importKey("raw", key, "Ed25519", false, ["verify"]);
    const signed = new TextEncoder().encode(SIGNED_PREFIX + outer.seal);
    found.signed = await crypto.subtle.verify("Ed25519", imported, unhex(outer.signature), signed);
    if (!found.signed) found.wrong.push("The seal's signature is not one of its key.");
  } catch (error) {
    found.signed = null; // a browser without Ed25519
  }
}

async function check() {
  const found = { bad: [], wrong: [], sealed: 0, seal: null, key: null, signed: null };
  try {
    if (!report.events.length) found.wrong.push("The report has no events.");
    checkEvents(found);
    if (report.seal !== null) await checkSeal(found);
  } catch (error) {
    found.wrong.push(`The report can't be read: ${error.message}.`);
  }
  return found;
}

// --- What is shown -------------------------------------------------------------------------------------------------

function make(name, text, ...kinds) {
  const element = document.createElement(name);
  if (text !== undefined && text !== null) element.textContent = String(text);
  if (kinds.length) element.className = kinds.join(" ");
  return element;
}

const here = (id) => document.getElementById(id);
const time = (us) => (typeof us === "number" ? new Date(us / 1000).toISOString().replace("T", " ").replace("Z", "") : String(us));
const length = (us) => (us < 1000 ? `${us} µs` : us < 1e6 ? `${(us / 1e3).toFixed(1)} ms` : us < 6e7 ? `${(us / 1e6).toFixed(2)} s`
  : us < 36e8 ? `${(us / 6e7).toFixed(1)} min` : us < 864e8 ? `${(us / 36e8).toFixed(1)} h` : `${(us / 864e8).toFixed(1)} d`);

function line(kind, text) {
  const item = make("li", text, kind);
  here("checks").append(item);
  return item;
}

function showProof(found) {
  const events = report.events.length, rest = events - found.sealed;
  const altered = found.bad.length + found.wrong.length > 0;
  const whole = !altered && report.seal !== null && found.signed && rest === 0;
  const [mark, word] = altered ? ["bad", "Altered"] : whole ? ["good", "Verified"] : ["so-so", "Consistent"];
  here("verdict").className = `verdict ${mark}`;
  here("verdict").textContent = word;
  document.title = `${report.workflow_id}: ${word.toLowerCase()}`;
  for (const [one, told] of found.bad) {
    one.bad = true;
    line("bad", `The event at offset ${one.offset}${one.event.event_id ? ` (${one.event.event_id})` : ""} ${told}.`);
  }
  for (const told of found.wrong) line("bad", told);
  for (const one of report.events) {
    // A proof that fails proves nothing of any of them.
    one.state = one.bad ? ["altered", "bad"] : altered ? ["not proved", "so-so"] : one.sealed ? ["sealed", "good"] : ["not sealed", "so-so"];
  }
  if (!found.bad.length) {
    line("good", `${events} events, in order, with no gap between their positions; each is what its chain was made over.`);
  }
  if (report.seal === null) {
    line("so-so", "No seal: the events fit together, and nothing shows that they are what stood in the log. "
      + "Whoever made this file could have made them up.");
  } else if (!altered) {
    const when = time(found.seal.sealed_at);
    if (found.sealed) line("good", `${found.sealed} of ${events} events stood at these places in the log when it was sealed, at ${when} UTC.`);
    if (rest) line("so-so", `${rest} ${rest === 1 ? "event was" : "events were"} written after that seal: not sealed.`);
    if (found.signed) line("so-so", `The seal is signed by the key ${found.key}: whether that is the key you know, say below.`).id = "signer";
    else line("so-so", "This browser can't verify the signature (Ed25519): use refold audit check.");
  }
  here("own-key").hidden = report.seal === null;
  here("key").addEventListener("input", () => {
    const typed = here("key").value.trim(), answer = here("key-answer");
    let id = typed.toLowerCase();
    const pem = typed.match(/-----BEGIN PUBLIC KEY-----([\s\S]*)-----END PUBLIC KEY-----/);
    try {
      if (pem) id = hex(blake2b(unbase64(pem[1].replace(/\s/g, "")).slice(-32), 16));
    } catch (error) {
      id = "";
    }
    const known = id === found.key;
    answer.className = !typed ? "" : known ? "good" : "bad";
    answer.textContent = !typed ? "" : known ? "It is the key of this seal." : "It is NOT the key of this seal.";
    if (here("signer")) here("signer").className = !typed ? "so-so" : known ? "good" : "bad";
    if (whole) {
      here("verdict").className = `verdict ${typed && !known ? "bad" : "good"}`;
      here("verdict").textContent = typed && !known ? "Sealed by somebody else" : "Verified";
    }
  });
}

function showFacts() {
  const first = report.events[0], last = report.events.at(-1);
  const started = report.events.find((one) => /^workflow\.(started|reopened)$/.test(one.event.kind));
  const facts = [
    ["Run", report.workflow_id],
    ["Workflow", started ? `${started.event.workflow}, version ${started.event.version ?? 1}` : "not known"],
    ["Namespace", `${report.namespace} (${report.identity || "no id"}), partition ${report.partition}`],
    ["First event", first ? `${time(first.event.recorded_at)} UTC` : "none"],
    ["Last event", last ? `${last.event.kind}, ${time(last.event.recorded_at)} UTC` : "none"],
    ["Report made", `${time(report.made_at)} UTC`],
  ];
  for (const [name, value] of facts) here("facts").append(make("dt", name), make("dd", value));
}

function whoAndWhy(event) {
  const fork = event.kind === "workflow.started" && event.source_id;
  const orders = { "workflow.paused": "pause", "workflow.resumed": "resume", "workflow.terminated": "terminate",
    "workflow.rewound": "rewind", "workflow.reopened": "reopen", "workflow.cancel_requested": "cancel",
    "queue.set": `queue: ${event.count} at once` };
  const schedule = event.kind === "ask.received" ? event.name === SCHEDULE : event.workflow === SCHEDULE && event.kind === "workflow.started";
  const order = fork ? "fork" : schedule ? "schedule" : orders[event.kind];
  if (!order || (order === "cancel" && event.name !== "request")) return null;
  let who = {};
  try {
    who = JSON.parse((order === "reopen" || fork ? event.detail : event.payload) || "{}") || {};
  } catch (error) {
    // what can't be read says nothing
  }
  return { order: schedule && who.order ? `schedule: ${who.order}` : order, by: who.requested_by || event.parent_id || "not said", why: who.reason || "not said" };
}

function showOrders() {
  const rows = report.events.map((one) => [one, whoAndWhy(one.event)]).filter(([, told]) => told);
  here("orders").hidden = !rows.length;
  for (const [one, told] of rows) {
    const row = make("tr");
    row.append(make("td", time(one.event.recorded_at)), make("td", told.order, "order"), make("td", told.by), make("td", told.why));
    here("order-rows").append(row);
  }
}

function showTimeline() {
  const times = report.events.map((one) => one.event.recorded_at).filter(Number.isFinite);
  const began = times.reduce((least, at) => Math.min(least, at), Infinity);
  const whole = Math.max(1, times.reduce((most, at) => Math.max(most, at), 0) - began);
  const tried = report.events.filter(({ event }) => event.kind.startsWith("step.") && Number.isFinite(event.started_at));
  here("timeline").hidden = !tried.length;
  const show = (from, to) => tried.slice(from, to).forEach(({ event }) => {
    const row = make("div", null, "bar-row"), track = make("div", null, "track");
    const bar = make("div", null, "bar", event.kind === "step.completed" ? "good" : "bad");
    const from = Math.min(1, Math.max(0, (event.started_at - began) / whole));
    const to = Math.min(1, Math.max(from, (event.recorded_at - began) / whole));
    bar.style.left = `${100 * from}%`;
    bar.style.width = `${100 * (to - from)}%`;
    track.append(bar);
    const tries = event.attempt > 1 ? `, attempt ${event.attempt}` : "";
    row.append(make("span", `${event.name} #${event.step}${tries}`, "bar-name"), track,
      make("span", length(event.recorded_at - event.started_at), "dim"));
    here("bars").append(row);
  });
  show(0, FIRST_BARS);
  offer(here("bars"), tried.length - FIRST_BARS, "steps", () => show(FIRST_BARS));
}

const SHOWN_APART = new Set(["chain", "kind", "event_id", "workflow_id", "position", "recorded_at", "payload"]);

function pretty(text, encoding) {
  if (encoding !== "json") return text;
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch (error) {
    return text;
  }
}

function rowOf(one) {
  const { event } = one, row = make("tr");
  if (one.bad) row.className = "bad";
  const what = make("td"), payload = event.payload ?? event.error_message ?? "";
  what.append(make("span", `${event.name ?? event.workflow ?? ""}${event.step === undefined ? "" : ` #${event.step}`}`));
  const details = make("details"), short = payload.length > 80 ? `${payload.slice(0, 79)}…` : payload;
  details.append(make("summary", short || "fields", "mono"));
  if (event.payload !== undefined) details.append(make("pre", pretty(event.payload, event.encoding)));
  const fields = Object.entries(event).filter(([name]) => !SHOWN_APART.has(name));
  const told = fields.map(([name, value]) => `${name}: ${typeof value === "object" ? JSON.stringify(value) : value}`);
  details.append(make("pre", [...told, `offset: ${one.offset}`, `the log's time: ${time(one.timestamp)} UTC`, `chain: ${event.chain}`].join("\n"), "dim"));
  const data = make("td");
  data.append(details);
  row.append(make("td", event.position, "number"), make("td", time(event.recorded_at), "time"), make("td", event.kind, "kind"),
    what, data, make("td", ...one.state, "state"));
  return row;
}

function showEvents() {
  const rows = here("rows");
  const show = (from, to) => report.events.slice(from, to).forEach((one) => rows.append(rowOf(one)));
  show(0, FIRST_ROWS);
  offer(rows.parentElement, report.events.length - FIRST_ROWS, "events", () => show(FIRST_ROWS));
}

function offer(before, rest, what, show) {
  if (rest <= 0) return;
  const more = make("button", `Show the other ${rest} ${what}`, what);
  more.addEventListener("click", () => {
    show();
    more.remove();
  });
  before.after(more);
}

addEventListener("beforeprint", () => {
  document.querySelector("button.events")?.click();
  document.querySelectorAll("#rows details").forEach((one) => { one.open = true; });
});

// Both are read last, so that what is wrong with them shows as such.
let report, schemas;
try {
  report = JSON.parse(here("report").textContent);
  schemas = JSON.parse(here("schemas").textContent);
  check().then((found) => {
    showProof(found);
    showFacts();
    showOrders();
    showTimeline();
    showEvents();
    document.body.dataset.done = "yes";
  });
} catch (error) {
  here("verdict").textContent = `The report can't be read: ${error.message}`;
}
