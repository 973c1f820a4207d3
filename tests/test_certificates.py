from __future__ import annotations

from clusterproof.certificates import Chain, self_signed


def test_names_are_those_that_visitors_look_at() -> None:
    assert Chain.of(self_signed("red.test").certificate).names == {"red.test"}


def test_a_key_fits_its_own_certificate_only() -> None:
    ours, other = self_signed("red.test"), self_signed("red.test")

    assert Chain.of(ours.certificate).fits(ours.key)
    assert not Chain.of(ours.certificate).fits(other.key)


def test_certificates_are_told_apart() -> None:
    ours, other = Chain.of(self_signed("red.test").certificate), Chain.of(self_signed("red.test").certificate)

    assert ours.serial != other.serial
    assert ours.key != other.key
