"""The public names: sorted, complete, and there."""

import inspect

import hftrace


def test_names_are_sorted_and_unique():
    assert sorted(set(hftrace.__all__)) == hftrace.__all__


def test_every_name_is_there():
    # `trace` comes in when it is asked for.
    missing = [name for name in hftrace.__all__ if not hasattr(hftrace, name)]
    assert missing == []


def test_nothing_public_is_left_out():
    public = {
        name
        for name, value in vars(hftrace).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    # The last one is for IPython alone, which asks for it by this name.
    others = {"annotations", "TYPE_CHECKING", "Any", "load_ipython_extension"}
    assert public - set(hftrace.__all__) - others == set()


def test_dir_lists_the_public_names():
    assert dir(hftrace) == hftrace.__all__


def test_unknown_name_is_an_attribute_error():
    assert not hasattr(hftrace, "no_such_name")


def test_version_is_that_of_the_package():
    from importlib.metadata import version

    assert hftrace.__version__ == version("hftrace")


def test_public_objects_have_docstrings():
    for name in hftrace.__all__:
        value = getattr(hftrace, name)
        if callable(value):
            assert inspect.getdoc(value), name
