import threading
import urllib.error
import urllib.request

import pytest

from scanlearn.study.serve import server_of


def test_only_the_page_is_served_and_only_under_its_address(tmp_path):
    (tmp_path / "report.html").write_text("<p>page</p>")
    (tmp_path / "study.yaml").write_text("secret: 1")
    server, address = server_of(tmp_path / "report.html")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        assert server.server_address[0] == "127.0.0.1"
        assert urllib.request.urlopen(address).read() == b"<p>page</p>"
        base = address.rsplit("/", 2)[0]
        for other in (f"{base}/report.html", f"{address}/../study.yaml", address.replace("report.html", "study.yaml")):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(other)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
