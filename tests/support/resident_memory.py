"""Memory of files that this process has mapped."""

from pathlib import Path


def measure_resident_bytes(path: Path) -> int:
    """Return the bytes of a file that are in this process's memory (proc_pid_smaps(5))."""
    mappings = Path("/proc/self/smaps").read_text().split("VmFlags:")
    return sum(int(each.partition("Rss:")[2].split()[0]) << 10 for each in mappings if f"{path}\n" in each)
