"""Transport records: authenticated, in order, rekeyed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restunnel_protocol import GoAwayReason, LocalError, RemoteError, Suite, records
from restunnel_protocol.limits import MAX_PLAINTEXT, MAX_RECORD
from restunnel_protocol.records import RecordOpener, RecordSealer, RecordSplitter, fastest_suite

suites = pytest.mark.parametrize("suite", Suite)


def pair(suite: Suite) -> tuple[RecordSealer, RecordOpener]:
    return RecordSealer(suite, b"k" * 32), RecordOpener(suite, b"k" * 32)


@suites
@given(plaintexts=st.lists(st.binary(max_size=300), min_size=1, max_size=5))
def test_records_open_in_order(suite, plaintexts):
    sealer, opener = pair(suite)
    for plaintext in plaintexts:
        record = sealer.seal(plaintext)
        assert int.from_bytes(record[:2], "big") == len(record) - 2 == len(plaintext) + 16
        assert opener.open(record[2:]) == plaintext


@suites
def test_the_largest_record_has_65535_bytes_of_ciphertext(suite):
    sealer, opener = pair(suite)
    record = sealer.seal(bytes(MAX_PLAINTEXT))
    assert len(record) - 2 == MAX_RECORD
    assert opener.open(memoryview(record)[2:]) == bytes(MAX_PLAINTEXT)
    with pytest.raises(LocalError):
        sealer.seal(bytes(MAX_PLAINTEXT + 1))


@suites
def test_altered_repeated_skipped_and_short_records_do_not_authenticate(suite):
    sealer, opener = pair(suite)
    first, second = sealer.seal(b"first"), sealer.seal(b"second")
    for record in (second[2:], first[2:-1], b"", bytes(15), first[2:-1] + b"\0"):
        with pytest.raises(RemoteError) as caught:
            opener.open(record)
        assert caught.value.reason is GoAwayReason.BAD_RECORD
    assert opener.open(first[2:]) == b"first"
    with pytest.raises(RemoteError):
        opener.open(first[2:])
    assert opener.open(second[2:]) == b"second"


@suites
def test_both_ends_rekey_after_the_same_record(suite, monkeypatch):
    monkeypatch.setattr(records, "REKEY_AFTER_RECORDS", 3)
    sealer, opener = pair(suite)
    sealed = [sealer.seal(b"x") for _ in range(10)]
    assert [opener.open(record[2:]) for record in sealed] == [b"x"] * 10
    aead, nonce = suite.aead(b"k" * 32), suite.nonce
    assert aead.decrypt(nonce.pack(0, 2), bytes(sealed[2][2:]), None) == b"x"
    after = suite.aead(suite.rekey(b"k" * 32))
    assert after.decrypt(nonce.pack(0, 3), bytes(sealed[3][2:]), None) == b"x"


@suites
def test_rekey_is_noises(suite):
    noise = pytest.importorskip("noise.connection").NoiseConnection.from_name(suite.value)
    cipher = noise.noise_protocol.cipher_class()
    cipher.initialize(b"k" * 32)
    assert suite.rekey(b"k" * 32) == cipher.rekey(b"k" * 32)


def test_the_fastest_suite_is_one_of_them():
    assert fastest_suite() in Suite


@given(st.lists(st.binary(max_size=50), max_size=10), st.data())
def test_records_are_found_again_whatever_the_pieces_they_come_in(ciphertexts, data):
    wire = b"".join(len(c).to_bytes(2, "big") + c for c in ciphertexts)
    splitter, found = RecordSplitter(), []
    while wire:
        size = data.draw(st.integers(1, len(wire)))
        found += [bytes(record) for record in splitter.feed(wire[:size])]
        wire = wire[size:]
    assert found == ciphertexts


def test_a_record_may_come_byte_by_byte():
    splitter = RecordSplitter()
    found = [list(splitter.feed(bytes((byte,)))) for byte in b"\0\2ab\0\0\0\1c"]
    assert [len(records) for records in found] == [0, 0, 0, 1, 0, 1, 0, 0, 1]
