// Sends all requests of the standard input over one HTTP/2 connection at once; prints what each is answered.
//
// Arguments: the origin, the file of its authority, the key.
'use strict';
const http2 = require('node:http2');
const fs = require('node:fs');

const [origin, ca, key] = process.argv.slice(2);
const requests = JSON.parse(fs.readFileSync(0, 'utf8'));
const session = http2.connect(origin, { ca: fs.readFileSync(ca) });

const ask = ({ method, target, size }) => new Promise((resolve, reject) => {
  const stream = session.request({ ':method': method, ':path': target, 'x-api-key': key }, { endStream: !size });
  const parts = [];
  let status = 0;
  stream.on('response', (headers) => { status = headers[':status']; });
  stream.on('data', (part) => parts.push(part));
  stream.on('error', reject);
  stream.on('end', () => resolve({ status, body: Buffer.concat(parts).toString('base64') }));
  if (size) stream.end(Buffer.alloc(size, 'u'));
});

Promise.all(requests.map(ask)).then((answers) => {
  console.log(JSON.stringify(answers));
  session.close();
}, (error) => {
  console.error(error);
  process.exit(1);
});
