// Loaded into a suite by `node --require`: puts the stand's proxy before each HTTP server that a test starts.
//
// A server that asks for any port, or for one that the stand has in front, listens on the hidden port of a slot; its
// `address()` tells the public one, where the proxy listens. Servers with TLS, and those on pipes, stay as they are.
'use strict';
const http = require('http');
const net = require('net');

const pairs = (text) => (text || '').split(',').filter(Boolean).map((pair) => pair.split(':').map(Number));
const slots = pairs(process.env.SUITE_SLOTS);
const fixed = new Map(pairs(process.env.SUITE_FIXED));
const taken = new Set();
let next = 0;

function take() {
  for (let tries = 0; tries < slots.length; tries += 1) {
    const slot = slots[next++ % slots.length];
    if (!taken.has(slot)) {
      taken.add(slot);
      return slot;
    }
  }
  return undefined;
}

const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function interposed(...args) {
  const options = args[0] !== null && typeof args[0] === 'object' ? args[0] : undefined;
  const asked = options ? options.port : args[0];
  const bare = asked === undefined || asked === null || typeof asked === 'function';
  const elsewhere = options && (options.path !== undefined || options.fd !== undefined || options._handle);
  if (!(this instanceof http.Server) || elsewhere || (!bare && Number.isNaN(Number(asked)))) {
    return listen.apply(this, args);
  }
  const port = bare ? 0 : Number(asked);
  const slot = port === 0 ? take() : fixed.has(port) ? [port, fixed.get(port)] : undefined;
  if (slot === undefined) return listen.apply(this, args);
  const [open, hidden] = slot;
  const address = this.address;
  this.address = function told() {
    const found = address.call(this);
    return found !== null && typeof found === 'object' ? { ...found, port: open } : found;
  };
  const release = () => {
    taken.delete(slot);
    delete this.address;
  };
  this.once('close', release);
  this.once('error', release);
  if (options) return listen.call(this, { ...options, port: hidden }, ...args.slice(1));
  return listen.call(this, hidden, ...(typeof asked === 'function' ? args : args.slice(1)));
};
