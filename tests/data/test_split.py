"""Splits follow from content and seed, keep duplicates on one side and labels in proportion."""

from collections.abc import Callable

import pytest
import torch

from trainformer.core.errors import UserError
from trainformer.data.split import split
from trainformer.data.survey import Survey

Look = Callable[..., Survey]


def text(i: int) -> str:
    return f"{i * 0x9E3779B97F4A7C15 % 2**64:x} {(i + 7) * 0xC2B2AE3D27D4EB4F % 2**64:x}".translate(
        str.maketrans("0123456789", "ghijklmnop")
    )


def rows(count: int, labels: str = "aab") -> list[tuple[str, str]]:
    return [(text(i), labels[i % len(labels)]) for i in range(count)]


def test_shares_are_kept_for_each_label_and_rows_are_used_once(look: Look) -> None:
    seen = look(rows(3000))
    found = split(seen, 0.1, 0.2, 0)
    assert torch.cat(list(found.values())).sort().values.tolist() == list(range(3000))
    assert all(torch.equal(part, part.sort().values) for part in found.values())
    assert [len(found[name]) for name in ("train", "validation", "test")] == pytest.approx([2100, 300, 600], abs=3)
    for name, share in (("validation", 0.1), ("test", 0.2)):
        counts = seen.label_counts(found[name])
        assert counts["a"] == pytest.approx(2000 * share, abs=5) and counts["b"] == pytest.approx(1000 * share, abs=5)


def test_content_and_seed_decide_and_not_the_order(look: Look) -> None:
    def texts(given: list[tuple[str, str]], seed: int) -> dict[str, set[str]]:
        return {name: {given[i][0] for i in part.tolist()} for name, part in split(look(given), 0.1, 0.1, seed).items()}

    given = rows(500)
    assert texts(given, 3) == texts(given, 3) == texts(given[::-1], 3)
    assert texts(given, 3) != texts(given, 4)


def test_duplicates_stay_on_one_side(look: Look) -> None:
    base = "".join(text(i) for i in range(4))
    copies = [(f"{base} {text(i)[:6]}", "a") for i in range(20)]
    given = rows(300) + rows(300) + [(t.upper() + "!", label) for t, label in rows(100)] + copies
    seen = look(given)
    assert len(torch.unique(seen.near_group)) == 301
    for seed in range(5):
        sides = [set(seen.near_group[part].tolist()) for part in split(seen, 0.2, 0.2, seed).values()]
        assert sum(len(side) for side in sides) == 301 and all(sides)


def test_every_label_is_learnt(look: Look) -> None:
    given = rows(200, "a") + [(text(1000 + i), f"rare {i // 2}") for i in range(40)]
    seen = look(given)
    for seed in range(5):
        counts = seen.label_counts(split(seen, 0.3, 0.3, seed)["train"])
        assert all(counts[f"rare {i}"] == 2 for i in range(20))


def test_a_large_group_stays_in_training(look: Look) -> None:
    given = [("always the same", "ab"[i % 2]) for i in range(400)] + rows(600)
    for seed in range(5):
        found = split(look(given), 0.1, 0.1, seed)
        assert set(range(400)) <= set(found["train"].tolist()) and len(found["test"]) == pytest.approx(100, abs=3)


def test_without_strata_and_without_a_part(look: Look) -> None:
    found = split(look(rows(100)), 0.0, 0.1, 0, stratify=False)
    assert [len(part) for part in found.values()] == [90, 0, 10]
    assert len(split(look(rows(100)), 0.0, 0.0, 0)["train"]) == 100


def test_small_files_give_every_part_a_row(look: Look) -> None:
    for seed in range(10):
        assert all(len(part) for part in split(look(rows(8, "ab")), 0.1, 0.1, seed).values())


def test_empty_parts_are_refused(look: Look) -> None:
    with pytest.raises(UserError, match=r"rows\.jsonl: no rows for validation: a share of 0\.1 of 4 rows \(4 different texts\)"):
        split(look(rows(4, "ab")), 0.1, 0.1, 0)
    with pytest.raises(UserError, match="no rows for validation"):
        split(look([("the same", "a")] * 50), 0.1, 0.1, 0)
    with pytest.raises(UserError, match="leave no rows to train on"):
        split(look(rows(10)), 0.5, 0.5, 0)
