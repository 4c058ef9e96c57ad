"""Checkpoints: folders of files with a manifest, on a disk or in an object store."""
