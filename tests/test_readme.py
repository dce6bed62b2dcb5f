"""The first example of the README runs as it stands."""

import re

import numpy as np
import pandas as pd

from tests import ROOT


def test_the_first_example(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    example = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    frame = pd.DataFrame({"age": [31, 57], "name": ["Ada", "Grace"]})
    names = {"model": {"weights": np.arange(5.0)}, "df": frame}
    exec(example, names)
    assert names["model"]["weights"].tolist() == [0, 1, 2, 3, 4]
    assert names["score"] == 0.93
    assert names["ages"].tolist() == [31, 57]
    assert names["best"]["ref"].tolist() == ["models/churn"]
    assert not names["changes"]
    assert [names["features"](frame)["old"].tolist() for _ in range(2)] == [[False, True]] * 2
    names["store"].close()
