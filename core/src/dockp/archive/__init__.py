"""Layers as tar streams: unpack them confined, pack trees and changes, list changes, open compressed streams.

`apply` unpacks, `pack` packs, `changes` compares, `compression` opens streams. Source: OCI image-spec layer.md.
"""
