"""Streaming by the `datasets` library, from local folders laid out like datasets of the hub."""

import gzip
import json

import datasets
import huggingface_hub.constants
import pyarrow
import pyarrow.parquet
import pytest

from gcattn.data import prepare_shards, read_documents
from gcattn.data.hub_documents import read_hub_documents

CARD = """---
configs:
- config_name: 1.0.0
  data_files: [{split: train, path: 1.0.0/train-*}]
- config_name: 3.0.0
  data_files: [{split: train, path: 3.0.0/train-*}]
---
"""


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)


def write_parquet(file, **columns):
    file.parent.mkdir(parents=True)
    pyarrow.parquet.write_table(pyarrow.table(columns), file)


def texts_of(*arguments):
    return ["".join(pieces) for pieces in read_hub_documents(*arguments)]


@pytest.fixture
def xsum(tmp_path):
    """A folder with the schema of EdinburghNLP/xsum; its relative name shadows the hub's."""
    for split in ("train", "validation"):
        file = tmp_path / f"EdinburghNLP/xsum/{split}/{split}-00000.parquet"
        write_parquet(file, document=[f"{split} text", None, ""], summary=["s"] * 3, id=["1"] * 3)
    return "EdinburghNLP/xsum"


def test_the_text_column_of_the_split_is_streamed(xsum):
    assert texts_of(xsum, "document", "train", None) == ["train text", "", ""]
    assert texts_of(xsum, "document", None, None)[0] == "train text"
    assert texts_of(xsum, "document", "validation", None)[0] == "validation text"


def test_pg19_schema(tmp_path):
    write_parquet(
        tmp_path / "emozilla/pg19/data/train-00000.parquet",
        short_book_title=["A", "B"],
        publication_date=[1850, 1860],
        url=["u", "v"],
        text=["a book", "another book"],
    )
    assert texts_of("emozilla/pg19", "text", "train", None) == ["a book", "another book"]


def test_cnn_dailymail_needs_the_name_of_a_configuration(tmp_path):
    folder = tmp_path / "abisee/cnn_dailymail"
    for version in ("1.0.0", "3.0.0"):
        file = folder / version / "train-00000.parquet"
        write_parquet(file, article=[f"article {version}"], highlights=["h"], id=["1"])
    (folder / "README.md").write_text(CARD)
    texts = texts_of("abisee/cnn_dailymail", "article", "train", "3.0.0")
    assert texts == ["article 3.0.0"]
    with pytest.raises(ValueError, match=r"Config name is missing.*1\.0\.0") as caught:
        texts_of("abisee/cnn_dailymail", "article", "train", None)
    assert "\n" not in str(caught.value)


def test_addresses_of_compressed_data_files_are_streamed(tmp_path):
    with gzip.open(tmp_path / "arXiv_000.jsonl.gz", "wt") as stream:
        stream.write(json.dumps({"text": "a paper", "meta": {"id": 1}}) + "\n")
    documents = read_documents(f"file://{tmp_path}/arXiv_*.jsonl.gz")
    assert list(documents) == ["a paper"]


def test_a_split_of_an_address_is_refused(tmp_path):
    with pytest.raises(ValueError, match="address of files, of which no split can be told apart"):
        list(read_documents(f"file://{tmp_path}/a.jsonl", split="validation"))


def test_prepare_goes_through_datasets_for_what_is_not_on_disk(tmp_path):
    with gzip.open(tmp_path / "part.jsonl.gz", "wt") as stream:
        for text in ("a paper", "", "another"):
            stream.write(json.dumps({"text": text}) + "\n")
    shards = prepare_shards(f"file://{tmp_path}/part.jsonl.gz", tmp_path / "out")
    assert shards.num_documents == 2
    assert shards.num_bytes == len("a paper" + "another")


@pytest.mark.parametrize(
    ("column", "split", "config_name", "message"),
    [
        ("text", "train", None, "no column 'text'; its columns are: document, summary, id"),
        ("document", "nope", None, r"split 'nope'.*\['train', 'validation'\]"),
        ("document", "train", "2.0", r"configuration 2\.0.*not found"),
    ],
)
def test_wrong_column_split_or_configuration_is_one_clear_line(
    xsum, column, split, config_name, message
):
    with pytest.raises(ValueError, match=message) as caught:
        texts_of(xsum, column, split, config_name)
    assert "\n" not in str(caught.value)


def test_a_dataset_out_of_reach_is_one_clear_line():
    with pytest.raises(ValueError, match=r"Can't load 'nobody/nothing'.*Couldn't reach") as caught:
        list(read_documents("nobody/nothing"))
    assert "\n" not in str(caught.value)
