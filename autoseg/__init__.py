"""autoseg: medical image segmentation that configures itself."""

__version__ = "0.1.0"
