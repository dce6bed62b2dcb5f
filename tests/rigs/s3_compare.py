"""Make the same calls with metaflow.S3 or mfstore.S3, and print what came of them, for tests/s3/datatools/test_s3.py.

``python -m tests.rigs.s3_compare stock|ours BUCKET`` prints {case: result} as JSON. Fresh processes, because Metaflow
reads its configuration when it is imported. Results are made comparable: bucket and temporary names, times and texts of
errors go.
"""

import json
import shutil
import sys

import tests.rigs.s3_put_cases  # noqa: F401
from tests.rigs.s3_cases import CASES, World, describe


def main(which, bucket):
    if which == "stock":
        import metaflow.plugins.datatools.s3 as module
    else:
        import metaflow  # noqa: F401

        import mfstore.s3.datatools.s3 as module
    world, results = World(module, bucket), {}
    for name, function in CASES.items():
        try:
            result = function(world)
        except Exception as error:
            result = error
        results[name] = describe(result)
        world.opened.close()
    shutil.rmtree(world.tmp)
    print(json.dumps(results).replace(bucket, "BUCKET"))


if __name__ == "__main__":
    main(*sys.argv[1:])
