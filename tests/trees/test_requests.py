"""In S3 a tree costs requests by its bytes, not by its files."""

import random

import mfstore


def test_a_tree_of_many_small_files_takes_few_requests(radosgw, s3_env, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", radosgw.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", radosgw.secret_key)
    monkeypatch.setenv("AWS_REGION", radosgw.region)
    url = f"s3://{radosgw.create_bucket('test-trees')}/store"
    source, noise = tmp_path / "source", random.Random(3).randbytes
    for directory in range(10):
        (source / str(directory)).mkdir(parents=True)
        for number in range(60):
            (source / str(directory) / f"{number}.bin").write_bytes(noise(4096))
    with mfstore.open(url, endpoint_url=radosgw.url) as store:

        def counted(work):
            before = sum(store.metrics().s3.requests.values())
            return work(), sum(store.metrics().s3.requests.values()) - before

        key, requests = counted(lambda: store.put_tree(source, "tree"))
        assert requests <= 16
        _, requests = counted(lambda: store.get_tree("tree", tmp_path / "to"))
        assert requests <= 6
        data, requests = counted(lambda: store.tree(key).read("3/7.bin"))
        assert requests <= 4
        (source / "3" / "7.bin").write_bytes(noise(4096))
        _, requests = counted(lambda: store.put_tree(source, "tree", base="tree"))
        assert requests <= 20
    assert data == (tmp_path / "to" / "3" / "7.bin").read_bytes()
    assert sum(path.is_file() for path in (tmp_path / "to").rglob("*")) == 600
