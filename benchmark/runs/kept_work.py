"""By what code the work was done that transfers find in a workspace, and go on from."""

from __future__ import annotations

import json
from pathlib import Path

from benchmark.core.errors import UserError
from benchmark.core.files import write_whole
from benchmark.engine.stretches import UNKNOWN, Maker, change_told, continued


def kept_by(workspace: Path, now: Maker) -> list[Maker]:
    """What made the features and states that lie in a workspace, in order, and `now` at the end, as
    workspace/made_by.json keeps it. They are used after a change too, which is told."""
    path = workspace / "made_by.json"
    try:
        before = json.loads(path.read_bytes())["made_by"] if path.is_file() else []
        makers = continued(before or ([UNKNOWN] if any(workspace.glob("*")) else []), now)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: damaged; delete {workspace}, and what it keeps is made anew") from error
    if len(makers) > max(len(before), 1):
        told = change_told(makers)
        print(f"{workspace}: holds work from before a change, which is used and the record will say: {told}")
    if makers != before:
        write_whole(path, (json.dumps({"made_by": makers}, indent=1) + "\n").encode())
    return makers
