// Asks Perfetto's own trace processor: node trace_processor.mjs DIST TRACE < queries.json > answers.json
//
// DIST holds Perfetto's web UI, with engine_bundle.js and trace_processor.wasm. The queries are a list of SQL
// texts; the answers a list of tables, each a list of objects. What is spoken is TraceProcessorRpc of
// protos/perfetto/trace_processor/trace_processor.proto, by hand: a few fields of a few messages.
import fs from "node:fs";
import path from "node:path";

const [dist, trace] = process.argv.slice(2);
const queries = JSON.parse(fs.readFileSync(0, "utf8"));

// The bundle is written for a web worker; of one it uses these.
class FileRequest {
  open(_method, url) {
    this.file = path.join(dist, path.basename(url));
  }
  send() {
    this.response = new Uint8Array(fs.readFileSync(this.file)).buffer;
  }
}
const worker = { location: { href: "worker" } };
const quiet = { log() {}, warn() {}, error() {} };
const names = { self: worker, XMLHttpRequest: FileRequest, WorkerGlobalScope: Object, process: undefined, console: quiet };
const bundle = fs.readFileSync(path.join(dist, "engine_bundle.js"), "utf8");
new Function(...Object.keys(names), bundle)(...Object.values(names));

function varint(value) {
  const bytes = [];
  for (; value > 127; value = Math.floor(value / 128)) bytes.push((value % 128) | 128);
  return [...bytes, value];
}
const number = (field, value) => Buffer.from([...varint(field * 8), ...varint(value)]);
const bytes = (field, value) => Buffer.concat([Buffer.from([...varint(field * 8 + 2), ...varint(value.length)]), value]);

function* fields(buffer) {
  for (let at = 0; at < buffer.length; ) {
    const next = () => {
      let value = 0n;
      for (let shift = 0n; ; shift += 7n) {
        const byte = buffer[at++];
        value |= BigInt(byte & 127) << shift;
        if (byte < 128) return value;
      }
    };
    const key = Number(next());
    if (key % 8 === 0) yield [key >> 3, next()];
    else if (key % 8 === 1) at += 8;
    else if (key % 8 === 5) at += 4;
    else {
      const length = Number(next());
      yield [key >> 3, buffer.subarray(at, at + length)];
      at += length;
    }
  }
}
function* packed(buffer) {
  let value = 0n, shift = 0n;
  for (const byte of buffer) {
    value |= BigInt(byte & 127) << shift;
    shift += 7n;
    if (byte < 128) {
      yield Number(BigInt.asIntN(64, value));
      value = shift = 0n;
    }
  }
}

let rows, columns, failure;
const cells = [];
function queryResult(buffer) {
  for (const [field, value] of fields(buffer)) {
    if (field === 1) columns.push(value.toString());
    else if (field === 2) failure = value.toString() || failure;
    else if (field === 3) batch(value);
  }
}
function batch(buffer) {
  let kinds = [], integers = [][Symbol.iterator](), floats = Buffer.alloc(0), texts = [], at = 0;
  for (const [field, value] of fields(buffer)) {
    if (field === 1) kinds = [...packed(value)];
    else if (field === 2) integers = packed(value);
    else if (field === 3) floats = value;
    else if (field === 5) texts = value.toString().split("\0");
  }
  const read = [, () => null, () => integers.next().value, () => floats.readDoubleLE((at += 8) - 8), () => texts.shift()];
  for (const kind of kinds) {
    if (!columns.length || cells.push(read[kind]()) < columns.length) continue;
    rows.push(Object.fromEntries(columns.map((name, place) => [name, cells[place]])));
    cells.length = 0;
  }
}
const port = {
  postMessage(message) {
    for (const [, rpc] of fields(Buffer.from(message)))
      for (const [field, value] of fields(rpc)) {
        if (field === 5) failure = value.toString();
        if (field === 201) for (const [inner, text] of fields(value)) if (inner === 2) failure = text.toString();
        if (field === 203) queryResult(value);
      }
  },
};
let sequence = 0;
function ask(method, ...parts) {
  const rpc = Buffer.concat([number(1, sequence++), number(2, method), ...parts]);
  port.onmessage({ data: new Uint8Array(bytes(1, rpc)) });
  if (failure) throw new Error(failure);
}

setTimeout(() => {
  worker.onmessage({ data: port });
  ask(1, bytes(101, fs.readFileSync(trace)));
  ask(2);
  const answers = queries.map((sql) => {
    [rows, columns] = [[], []];
    ask(3, bytes(103, bytes(1, Buffer.from(sql))));
    return rows;
  });
  fs.writeFileSync(1, JSON.stringify(answers));
}, 0);
