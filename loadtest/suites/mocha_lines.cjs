// A reporter for mocha of any version: each test's title and outcome, a line of JSON each, as they come.
'use strict';
const fs = require('fs');

module.exports = function Lines(runner) {
  const file = fs.openSync(process.env.SUITE_OUTCOMES, 'w');
  const says = (state) => (test) => fs.writeSync(file, `${JSON.stringify([test.fullTitle(), state])}\n`);
  runner.on('pass', says('passed'));
  runner.on('pending', says('skipped'));
  runner.on('fail', (test, error) => {
    says('failed')(test);
    process.stdout.write(`${test.fullTitle()}\n${error && (error.stack || error.message)}\n\n`);
  });
};
