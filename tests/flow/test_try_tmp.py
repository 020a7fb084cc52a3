import builtins

F = open("/tmp/out.txt", "w")


def print(*a):
    builtins.print(*a, file=F, flush=True)


import time


def test_x(cli, write, rows, tiny_model, tmp_path):
    data = write("r.jsonl", rows(80))
    t = time.time()
    o = cli("train", "--data", data, "--model", tiny_model, "--set", "train.epochs=2", "--out", tmp_path / "run")
    print(o.code, o.out, o.err, time.time() - t)
    import subprocess

    print(subprocess.run(["find", str(tmp_path / "run")], capture_output=True, text=True).stdout)
    print((tmp_path / "run/log.jsonl").read_text())
    print((tmp_path / "run/config.yaml").read_text())
    print((tmp_path / "run/scores.json").read_text())
    t = time.time()
    o = cli("predict", tmp_path / "run/bundle", "good film", "--logits")
    print(o)
    o = cli("evaluate", tmp_path / "run/bundle", "--data", data, "--json")
    print(o)
    o = cli("train", "--dta", data)
    print(o)
    o = cli("trian", "--data", data)
    print(o)
    o = cli("train", "--data", data)
    print(o)
    o = cli()
    print(o)
    o = cli("list", "method")
    print(o)
