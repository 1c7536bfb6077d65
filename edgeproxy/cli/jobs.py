"""Commands about the jobs of a collector: `jobs ls`."""

from edgeproxy.cli.endpoint_commands import Rows, build_command

jobs_ls = build_command(
    "List the jobs of a collector, with the last run of each.",
    "GET",
    "/v1/jobs",
    output=Rows("jobs", ("name", "result", "ended_at", "took_s", "succeeded_at", "period_s", "lock")),
)
