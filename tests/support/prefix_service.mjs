// The same as prefix_service.py, on Express. Arguments: the folder of its modules, and a port.

import { createRequire } from 'node:module';
import { join } from 'node:path';

const [modules, port] = process.argv.slice(2);
const express = createRequire(join(modules, 'package.json'))('express');
const app = express();
app.use(express.raw({ type: () => true, limit: '10mb' }));

for (const prefix of ['v1', 'open', 'maybe', 'put', 'get', 'paid']) {
  app.use(`/${prefix}`, (request, response) => {
    response.json({
      served: prefix,
      fields: request.headers,
      length: Buffer.isBuffer(request.body) ? request.body.length : 0,
      method: request.method,
      target: request.originalUrl,
    });
  });
}
app.listen(Number(port), '127.0.0.1');
