"""A certificate authority of a test's own, made with openssl, for servers on 127.0.0.1."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest


class Authority:
    """A CA in `folder`; `ca` is its certificate's file, `issue` makes a certificate that it vouches for."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("openssl") is None:
            reason = "no openssl on the PATH to make certificates with; install the package openssl"
            if os.environ.get("REGISTRATOR_REQUIRE_ALL"):
                pytest.fail(reason)
            pytest.skip(reason)
        self._folder = folder
        self.ca, self._key = folder / "ca.pem", folder / "ca.key"
        _openssl("req", "-x509", *_NEW_KEY, "-subj", "/CN=test CA", "-keyout", self._key, "-out", self.ca)

    def issue(self, name: str) -> tuple[Path, Path]:
        """A certificate for 127.0.0.1 that serves both sides of a connection: (certificate, key)."""
        certificate, key = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        request, extensions = self._folder / f"{name}.csr", self._folder / f"{name}.ext"
        extensions.write_text("subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")
        _openssl("req", *_NEW_KEY, "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        signer = ("-CA", self.ca, "-CAkey", self._key, "-CAcreateserial", "-days", "2")
        _openssl("x509", "-req", "-in", request, *signer, "-extfile", extensions, "-out", certificate)
        return certificate, key


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
