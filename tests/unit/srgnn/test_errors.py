import re

from srgnn import errors


def test_the_tree_in_the_docstring_is_the_tree_in_the_code():
    drawn = re.findall(r"^ *[├└]── (\w+)", errors.__doc__ or "", re.MULTILINE)
    defined = [name for name, value in vars(errors).items() if isinstance(value, type)]
    assert defined == ["SRGNNError", *drawn]
    assert all(issubclass(getattr(errors, name), errors.SRGNNError) for name in drawn)
