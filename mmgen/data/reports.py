"""What is said of a data set's bad and cropped pictures, and when it is refused."""

from __future__ import annotations

from mmgen.errors import DataError


def report_bad(bad: dict[str, str], total: int, name: str, seen: int | None = None) -> str:
    """One line that counts and names the bad samples of a data set.

    Args:
        bad: reason of each, by key.
        total: samples in all, the bad ones included.
        name: of the data set.
        seen: how many were looked at; None: all.
    """
    if not bad:
        among = "" if seen in (None, total) else f" among {_seen(seen, total)}"
        return f"No bad samples{among} in {name}."
    named = [f"{key!r} ({reason})" for key, reason in sorted(bad.items())]
    more = f" and {len(named) - 20} more" if len(named) > 20 else ""
    few = ", ".join(named[:20])
    return f"Skipped {len(named)} bad of {_seen(seen, total)} samples in {name}: {few}{more}."


def refuse_many_bad(
    bad: dict[str, str], total: int, name: str, limit: float, seen: int | None = None
) -> None:
    """Refuse a data set of which more than the share `limit` is bad; see `report_bad`.

    Raises:
        DataError: one sentence that names them.
    """
    if len(bad) > limit * total:
        more = f"more than {100 * limit:.3g}%"
        if seen not in (None, total):
            more = f"already {more}; `mmgen data check` names the rest"
        raise DataError(
            f"{report_bad(bad, total, name, seen)} That is {more}; mend the data, or allow more "
            "with --allow-bad (data.limit_bad in a recipe)."
        )


def report_cropped(cropped: int, total: int, name: str, seen: int | None = None) -> str | None:
    """One line that counts the pictures of a data set that are no squares; None if all are.

    Args:
        cropped: how many.
        total: pictures in all.
        name: of the data set.
        seen: how many were looked at; None: all.
    """
    if not cropped:
        return None
    counted = f"{cropped} of {_seen(seen, total)} in {name}"
    return f"{counted} are not square: only the middle square was kept."


def _seen(seen: int | None, total: int) -> str:
    return str(total) if seen in (None, total) else f"the {seen} seen of {total}"
