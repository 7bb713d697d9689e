"""What a trained network is used for: probing, embedding, classification, segmentation."""
