// What Express serves: it reads the body, and says how long it was.
'use strict';
const express = require('express');

const app = express();
app.use(express.raw({ type: () => true, limit: '10mb' }));
app.all(/.*/, (request, response) => {
  response.type('text').send(`${Buffer.isBuffer(request.body) ? request.body.length : 0}\n`);
});
app.listen(Number(process.argv[2]), '127.0.0.1');
