"""What is trained: an encoder and, where something is drawn from its maps, a decoder."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from scanlearn.errors import ScanlearnError
from scanlearn.networks.decoder import Decoder, build_decoder
from scanlearn.networks.encoder import Encoder, build_encoder


class Network(nn.Module):
    """An encoder with an optional decoder on its maps; heads of objectives and tasks stand outside.

    ``network(x)`` is ``network.features(x)``.
    """

    def __init__(self, encoder: Encoder, decoder: Decoder | None = None):
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.features(x)

    def features(self, x: Tensor) -> list[Tensor]:
        """The encoder's maps of (N, 1 or in_channels, *spatial), fine to coarse."""
        return self.encoder(x)

    def pooled(self, x: Tensor) -> Tensor:
        """The global average of the coarsest map, (N, num_features)."""
        return self.features(x)[-1].flatten(2).mean(2)

    def restored(self, x: Tensor) -> Tensor:
        """The image that the decoder makes of x, (N, channels, *spatial), before any activation."""
        return self.image_of(self._drawn(x))

    def segmented(self, x: Tensor) -> Tensor:
        """The classes that the decoder draws of x, (N, channels, *spatial), before any activation."""
        return self.classes_of(self._drawn(x))

    def image_of(self, drawn: Tensor) -> Tensor:
        """The image in a decoder's output: its first ``image_channels``, or all."""
        images = self.decoder and self.decoder.image_channels
        return drawn[:, :images] if images else drawn

    def classes_of(self, drawn: Tensor) -> Tensor:
        """The classes in a decoder's output: what comes behind its ``image_channels``, or all."""
        images = self.decoder and self.decoder.image_channels
        return drawn[:, images:] if images else drawn

    def _drawn(self, x: Tensor) -> Tensor:
        if self.decoder is None:
            raise ScanlearnError("The network has no decoder: set network.decoder in the recipe.")
        return self.decoder(self.features(x), x.shape[2:])

    def describe(self) -> dict[str, Any]:
        """What ``build_network`` needs to build this network again."""
        return {
            "encoder": self.encoder.describe(),
            "decoder": None if self.decoder is None else self.decoder.describe(),
        }

    def published_names(self) -> dict[str, str]:
        """Published name of each tensor -> its name here (``encoder.*``, ``decoder.*``), in the order of the file.

        An encoder alone has the names of its publication without a prefix.
        """
        names = self.state_dict().keys()
        if self.decoder is None:
            return {name.removeprefix("encoder."): name for name in names}
        return {self.decoder.published_name(name): name for name in names}

    def published_state_dict(self) -> dict[str, Tensor]:
        """The tensors under the names, and in the order, of the published files of this network."""
        state = self.state_dict()
        return {published: state[name] for published, name in self.published_names().items()}


def build_network(description: dict[str, Any], **defaults: Any) -> Network:
    """The network of ``{"encoder": ..., "decoder": ... or None}``, freshly initialised.

    ``defaults`` (``spatial_dims``, ``in_channels``) hold where the encoder's description says nothing; so does a
    ``normalise`` beside the encoder, as recipes write it.
    """
    encoder = build_encoder(description["encoder"], normalise=description.get("normalise"), **defaults)
    decoder = description.get("decoder")
    return Network(encoder, None if decoder is None else build_decoder(decoder, encoder))
