"""``@card(type="mfstore")`` of real flows, in both profiles."""

import json
import re

import pytest

from tests.rigs.flows import MFSTORE, PACKED, FlowRig


def held(html):
    return json.loads(re.search('id="data">(.*?)</script>', html, re.DOTALL)[1])


@pytest.mark.flow
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_card_of_a_task(tmp_path):
    rig = FlowRig(tmp_path)
    first = rig.run("carded.py", side=MFSTORE).run_id
    second = rig.run("carded.py", side=PACKED).run_id
    cards = {path.split("/")[3]: path for path in rig.files("mf.cards/**/*.html")}
    assert {*cards} == {first, second}
    stock = held(rig.files()[cards[first]].read_text())
    packed = held(rig.files()[cards[second]].read_text())
    for found, run in ((stock, first), (packed, second)):
        assert (found["kind"], found["title"]) == ("task", f"Carded/{run}/end/2")
        assert found["entries"]["name"] == ["Carded/end", "Carded/start"] and not found["troubles"]
        names = [found["text"][number] for number in found["parts"]["name"]]
        assert names[:4] == ["evil", "mine", "name", "rows"]
        kinds = [found["text"][number] for number in found["parts"]["type"]]
        assert kinds[:4] == ["str", "str", "str", "list"]
        (space,) = found["spaces"]
        assert space["name"][0] == "rows" and space["owns"][0] > 10_000
        assert str(tmp_path) not in json.dumps(found)
    # The second one stands beside the first.
    assert stock["entries"]["n"] == [1, 1] and packed["entries"]["n"] == [2, 1]
    assert packed["contents"]["key"][:2] == [f"Carded/{second}/end/2", f"Carded/{first}/end/2"]
