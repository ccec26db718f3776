"""A certificate authority of our own: servers at loopback addresses get no certificate elsewhere."""

import subprocess


class Authority:
    """Keeps its key and what it certifies in one folder."""

    def __init__(self, folder):
        self.folder = folder
        self.certificate = folder / "ca.crt"
        extra = ["-x509", "-days", "2", "-addext", "basicConstraints=critical,CA:TRUE"]
        self._request("peers", folder / "ca.key", self.certificate, *extra)

    def certify(self, address):
        """A certificate for a server at this IP address, and its key: two files."""
        certificate, key, request, extensions = (
            self.folder / f"{address}.{kind}" for kind in ("crt", "key", "request", "extensions")
        )
        self._request(address, key, request)
        extensions.write_text(f"basicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\nsubjectAltName=IP:{address}\n")
        signed_by = ["-CA", self.certificate, "-CAkey", self.folder / "ca.key", "-CAcreateserial"]
        sign = ["x509", "-req", "-in", request, *signed_by, "-days", "2", "-extfile", extensions, "-out", certificate]
        self._openssl(*sign)
        return certificate, key

    def _request(self, name, key, out, *extra):
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        self._openssl("req", *curve, "-nodes", "-subj", f"/CN={name}", "-keyout", key, "-out", out, *extra)

    @staticmethod
    def _openssl(*words):
        subprocess.run(["openssl", *words], check=True, capture_output=True)
