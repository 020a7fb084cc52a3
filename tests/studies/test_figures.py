"""The figures of a search: where a value lies, and that names from outside cannot break the drawing."""

from xml.etree import ElementTree

import pytest

from trainformer.studies.figures import Axis, cost, importance, parallel

EVIL = "a<b>&\"'</svg><script>"


def texts(drawing: str) -> list[str]:
    return ["".join(e.itertext()) for e in ElementTree.fromstring(drawing).iter() if e.tag.endswith(("text", "title"))]


def test_a_value_lies_by_its_order_of_magnitude() -> None:
    axis = Axis("lr", [1e-5, 1e-3, 1e-4], log=True)
    assert [axis.place(v) for v in axis.values] == pytest.approx([0.0, 1.0, 0.5])
    assert Axis("x", [1.0, 3.0, 2.0]).place(1.5) == 0.25
    assert Axis("x", [2.0, 2.0]).place(2.0) == 0.5
    words = Axis("m", ["lora", None, "ema"])
    assert (words.place("ema"), words.place("lora"), words.place(None)) == (0.25, 0.75, None)


def test_each_trial_is_a_line_and_the_best_stands_out() -> None:
    axes = [Axis("lr", [1e-5, 1e-3, 1e-4], log=True), Axis("rank", [None, 4, None]), Axis("accuracy", [0.5, 0.9, 0.7])]
    drawing = parallel(axes, best=1)
    lines = [e for e in ElementTree.fromstring(drawing).iter() if e.tag.endswith("polyline")]
    assert [e.get("class") for e in lines] == ["raw", "raw", "line two"], "the best is drawn last, over the others"
    assert lines[-1].get("points") == "75,46.0 207,171.0 339,46.0", "the top of an axis is at 46, its middle at 171"
    assert "lr: 0.0001; rank: –; accuracy: 0.7" in texts(drawing)


def test_bars_and_dots() -> None:
    drawing = importance({"train.lr": 0.75, "train.epochs": 0.25})
    bars = [float(e.get("width") or 0) for e in ElementTree.fromstring(drawing).iter() if e.tag.endswith("rect")]
    assert bars == [220.0, 73.3]
    assert "75%" in texts(drawing) and "25%" in texts(drawing)
    dots = cost([(0, 10.0, 0.5), (1, 30.0, 0.9)], best=1, score="accuracy")
    marked = [e for e in ElementTree.fromstring(dots).iter() if e.get("class") == "best"]
    assert len(marked) == 1 and "trial 1: 0.9000 in 30 s" in texts(dots)


def test_words_from_outside_are_escaped() -> None:
    drawings = [
        importance({EVIL: 1.0}),
        parallel([Axis(EVIL, [EVIL, "b"]), Axis("accuracy", [0.1, 0.2])], best=0),
        cost([(0, 1.0, 0.5)], 0, EVIL),
    ]
    for drawing in drawings:
        assert "<script" not in drawing
        assert any('a<b>&"' in words for words in texts(drawing)), "and are still there to read"
