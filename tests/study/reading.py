"""A page as a reader's program sees it."""

import base64
import re
from html.parser import HTMLParser

VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """Checks that tags are closed in order; collects images, links, tables, text and every address."""

    def __init__(self, text):
        super().__init__()
        self.source = text
        self.open, self.images, self.addresses, self.ids, self.tags, self.words = [], [], [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        assert len(found) == len(attributes), f"<{tag}> has an attribute twice"
        assert not any(name.startswith("on") for name in found), f"<{tag}> has a handler"
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "img":
            self.images.append(found)
        self.ids += [found["id"]] if "id" in found else []
        self.addresses += [found[name] for name in ("src", "href", "xlink:href", "action") if name in found]

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> while {self.open[-3:]} are open"
        self.open.pop()

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self):
        return re.sub(r"[ \t\n]+", " ", " ".join(self.words))

    def everything(self):
        """The source and what is inside its vector pictures, pictures within pictures included."""
        parts, waiting = [self.source], [image["src"] for image in self.images]
        for address in waiting:
            head, _, body = address.partition(",")
            if "svg" in head:
                parts.append(base64.b64decode(body).decode())
        return "\n".join(parts)
