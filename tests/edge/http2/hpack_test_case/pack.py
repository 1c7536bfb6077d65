"""Packs the stories of http2jp/hpack-test-case: `python -m tests.edge.http2.hpack_test_case.pack CHECKOUT`.

`cases.xz` is text: the number of field lists, each of these as JSON, and then the stories. A story is a line with its
encoder and name, and the number of its blocks; a block is the number of its field list, and its bytes in hexadecimal.
"""

import json
import lzma
import sys
from pathlib import Path

CASES = Path(__file__).parent / "cases.xz"


def pack(checkout: Path) -> str:
    field_lists: dict[str, int] = {}
    stories: list[str] = []
    for file in sorted(checkout.glob("*/story_*.json")):
        if file.parent.name == "raw-data":
            continue
        cases = json.loads(file.read_text())["cases"]
        stories.append(f"{file.parent.name}/{file.stem} {len(cases)}")
        for case in cases:
            fields = [field for header in case["headers"] for field in header.items()]
            number = field_lists.setdefault(json.dumps(fields), len(field_lists))
            stories.append(f"{number} {case['wire']}")
    return "\n".join([str(len(field_lists)), *field_lists, *stories])


if __name__ == "__main__":
    CASES.write_bytes(lzma.compress(pack(Path(sys.argv[1])).encode(), preset=9 | lzma.PRESET_EXTREME))
