"""Where the log is cut, and what each protocol keeps."""

import numpy as np

from tests.corpora import DAY_S, START_S, items_of, log_of


def test_sessions_are_cut_by_the_time_of_their_first_click(run, write_log, shop_log):
    summary, corpus = run(write_log(reversed(shop_log)), settings=["data.test_share=0.1", "data.validation_share=0.2"])
    starts = [split.times[split.offsets[:-1]] for split in (corpus.train, corpus.validation, corpus.test)]
    expected = (START_S + np.arange(20) * DAY_S) * 1000
    np.testing.assert_array_equal(np.concatenate(starts), expected)
    assert [len(one) for one in starts] == [14, 4, 2]
    assert (summary["train_examples"], summary["validation_examples"], summary["test_examples"]) == (36, 8, 4)


def test_days_take_the_place_of_shares(run, write_log, shop_log):
    _, corpus = run(write_log(shop_log), settings=["data.test_days=2.5", "data.validation_days=1.5"])
    assert [split.num_sessions for split in (corpus.train, corpus.validation, corpus.test)] == [15, 2, 3]


def test_nothing_is_held_out_when_nothing_is_asked(run, write_log, shop_log):
    summary, _ = run(write_log(shop_log), settings=["data.test_share=0", "data.validation_share=0"])
    assert (summary["train_examples"], summary["validation_examples"], summary["test_examples"]) == (40, 0, 0)


def test_three_files_are_train_validation_and_test(run, write_log):
    """Whatever their times, and though their session ids are the same."""
    files = [write_log(log_of(*["abc"] * count), f"{count}.csv") for count in (5, 3, 4)]
    _, corpus = run(*files, settings=["data.split=files"])
    assert [len(split) for split in items_of(corpus)] == [5, 3, 4]


def test_strict_learns_items_and_support_from_train_alone(run, write_log):
    sessions = [*["ab"] * 8, "abr", "abr", "abr", "axbrn"]  # r: 1 click in train, 3 later; n, x: test only
    settings = ["data.minimum_item_support=2", "data.test_share=0.16", "data.validation_share=0.1"]
    summary, corpus = run(write_log(log_of(*sessions)), settings=settings)
    train, validation, test = ([("".join(one)) for one in split] for split in items_of(corpus))
    assert (train, validation, test) == (["ab"] * 9, ["ab"], ["ab", "ab"])
    assert corpus.vocabulary.ids == ["a", "b"]
    assert summary["dropped"] == {"low_support_item": 1, "unknown_item": 5}


def test_srgnn_counts_support_over_everything(run, write_log):
    sessions = [*["ab"] * 8, "abr", "abr", "abr", "axbrn"]
    settings = [
        "data.protocol=srgnn",
        "data.minimum_item_support=2",
        "data.test_share=0.16",
        "data.validation_share=0.1",
    ]
    summary, corpus = run(write_log(log_of(*sessions)), settings=settings)
    train, validation, test = ([("".join(one)) for one in split] for split in items_of(corpus))
    assert (train, validation, test) == (["ab"] * 8 + ["abr"], ["abr"], ["abr", "abr"])
    assert summary["dropped"] == {"low_support_item": 2}


def test_srgnn_drops_test_items_that_were_never_seen_before(run, write_log):
    sessions = [*["ab"] * 8, "abv", "abnv"]
    settings = ["data.protocol=srgnn", "data.test_share=0.1", "data.validation_share=0.1"]
    summary, corpus = run(write_log(log_of(*sessions)), settings=settings)
    assert ["".join(one) for one in items_of(corpus)[2]] == ["abv"]
    assert (corpus.vocabulary.ids, summary["dropped"]) == (["a", "b", "v"], {"unknown_item": 1})


def test_srgnn_keeps_every_item_of_files_that_come_cut(run, write_log):
    train, test = write_log(log_of(*["ab"] * 9), "train.csv"), write_log(log_of("anb"), "test.csv")
    summary, corpus = run(train, test, settings=["data.protocol=srgnn", "data.split=files"])
    assert items_of(corpus)[2] == [["a", "n", "b"]]
    assert (corpus.vocabulary.ids, summary["dropped"]) == (["a", "b", "n"], {})


def test_sessions_that_become_too_short_are_dropped_and_counted(run, write_log):
    sessions = ["a", *["ab"] * 9, "an", "nbn", "ab"]
    settings = ["data.test_share=0.25", "data.validation_share=0.1"]
    summary, corpus = run(write_log(log_of(*sessions)), settings=settings)
    assert items_of(corpus)[2] == [["a", "b"]]
    assert summary["dropped"] == {"short_session": 3, "unknown_item": 3}
