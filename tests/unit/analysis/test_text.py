"""Messages of others, cut."""

from hftrace.analysis.text import first_sentences


def test_sentences():
    assert first_sentences("One. Two.\nThree.") == "One. Two"
    assert first_sentences(" \n  One!") == "One!"
    assert first_sentences("") == "no message"
    assert first_sentences("One. " + "x" * 400) == "One"
    assert first_sentences("x" * 400) == "x" * 300
