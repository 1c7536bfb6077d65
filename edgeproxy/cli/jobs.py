"""Commands about the jobs of a collector: `jobs ls`."""

from edgeproxy.cli.api import Api, Authorities, Json, Url, table

COLUMNS = ("name", "result", "ended_at", "took_s", "succeeded_at", "period_s", "lock")


def jobs_ls(as_json: Json = False, collector: Url = None, ca: Authorities = None) -> None:
    """List the jobs of a collector, with the last run of each."""
    table(Api(collector, ca).fetch_list("/v1/jobs", "jobs"), COLUMNS, as_json)
