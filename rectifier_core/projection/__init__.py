"""Projection: a linear map from each modality's features to the anchors."""
