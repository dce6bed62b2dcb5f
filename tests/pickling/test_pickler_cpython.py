"""CPython's own pickle test suite, run on what our pickler writes.

Skipped where the interpreter ships without its test package (some distributions).
"""

import pickle
import unittest

import pytest

from mfstore._core.pickler import Joined, Pickler

pickletester = pytest.importorskip("test.pickletester")


def dumps(obj):
    sink = Joined()
    Pickler(sink).dump(obj)
    return sink.all()


class OurPickleTests(pickletester.AbstractPickleTests, unittest.TestCase):
    """Protocol 5 only; tests of protocol choice, framing and opcode statistics do not apply."""

    def dumps(self, obj, proto=None, **kwargs):
        return dumps(obj)

    def loads(self, buf, **kwds):
        return pickle.loads(buf, **kwds)

    __test__ = False


# What these check is not a promise of ours: which opcodes older protocols use, framing, optimised
# output, buffer_callback, or the C pickler's exact sharing of equal strings and tuples.
NOT_OURS = {
    "test_proto": "protocol 0-5 headers",
    "test_framing_large_objects": "we write no frames",
    "test_framing_many_objects": "we write no frames",
    "test_framed_write_sizes_with_delayed_writer": "we write no frames",
    "test_optional_frames": "we write no frames",
    "test_short_tuples": "opcodes of protocols 0-1",
    "test_singletons": "opcodes of protocols 0-1",
    "test_long1": "opcodes of protocols 0-1",
    "test_long4": "opcodes of protocols 0-1",
    "test_list_chunking": "batches are 65 536, not 1000",
    "test_dict_chunking": "batches are 65 536, not 1000",
    "test_set_chunking": "batches are 65 536, not 1000",
    "test_simple_newobj": "opcodes of protocols 0-1",
    "test_complex_newobj": "opcodes of protocols 0-1",
    "test_complex_newobj_ex": "opcodes of protocols 0-1",
    "test_newobj_not_class": "raises TypeError, not PicklingError",
    "test_compat_pickle": "fix_imports is for protocol < 3",
    "test_oob_buffers": "buffer_callback",
    "test_oob_buffers_writable_to_readonly": "buffer_callback",
    "test_buffers_error": "protocol 4",
    "test_bytes": "opcodes of protocols 0-2",
    "test_bytearray": "opcodes of protocols 0-4",
    "test_bytearray_memoization_bug": "opcodes of protocols 0-4",
    "test_bytes_memoization": "memoises bytes by value",
    "test_in_band_buffers": "buffers are always BYTEARRAY8, so a read-only one comes back as a bytearray",
    "test_appends_on_non_lists": "opcodes of protocol 0",
    "test_setitems_on_non_dicts": "opcodes of protocol 0",
    "test_bad_getattr": "protocols 0 and 1",
    "test_buffer_callback_error": "buffer_callback",
    "test_buffers_numpy": "buffer_callback; arrays are tested in test_serialize.py",
    "test_builtin_exceptions": "renames of protocol 2",
    "test_float_format": "protocol 0",
    "test_global_ext1": "we write no extension codes: they need a registry the reader may not have",
    "test_global_ext2": "as test_global_ext1",
    "test_global_ext4": "as test_global_ext1",
    "test_pickle_to_2x": "protocol 2",
    "test_picklebuffer_error": "protocol 4",
    "test_reduce_ex_called": "expects the protocol it asked for; we write 5",
    "test_reduce_ex_calls_base": "expects the protocol it asked for; we write 5",
    "test_reduce_ex_overrides_reduce": "expects the protocol it asked for; we write 5",
}
NAMES = [name for name in dir(OurPickleTests) if name.startswith("test_") and name not in NOT_OURS]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore")
def test_cpython_suite(name):
    outcome = unittest.TestResult()
    OurPickleTests(name).run(outcome)
    for _, text in outcome.errors + outcome.failures:
        raise AssertionError(text)
