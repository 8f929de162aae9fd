"""Streams: frames of files, cameras, addresses, image sequences and iterators; their poses; films out of them."""
